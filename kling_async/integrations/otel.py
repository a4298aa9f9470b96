"""
OpenTelemetry traces of jobs: `Kling(on_event=Tracing())`, extra `otel`.

A job is a span of the caller's trace with the attributes of the semantic conventions for generative AI, and has a span
for each of its stages:

    generate_content kling-v2-1          from the call of create() to the end of the task
    ├── kling.submit                     until the service has accepted it; refusals and retries are events of the span
    ├── kling.wait                       until the task has ended
    └── kling.download                   for each picture, also those saved later and elsewhere

A task that is looked after again, by a handle made of its id, begins a new job span where that happens, with a link to
the span that made it if this process did.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from kling_async._version import __version__
from kling_async.errors import ApiError, KlingError, MissingExtra
from kling_async.protocol import events
from kling_async.protocol.events import Event
from kling_async.protocol.redaction import redacted

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, TracerProvider

__all__ = ["Tracing"]

# Jobs of which something is remembered: those under way, and those that ended, to link to.
_MOST = 50_000
_OPERATION = "generate_content"


@define(eq=False)
class _Job:
    job: Span
    context: Context
    stage: Span | None = None


class Tracing:
    """
    Makes spans of events with a tracer of *tracer_provider*, by default the global one.

    One object may serve several clients. Raises `MissingExtra` without the extra `otel`.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError:
            raise MissingExtra(
                "tracing: expected the OpenTelemetry API, found no such module; install it: pip install 'kling-async[otel]'",
                "otel",
            ) from None
        self._trace = trace
        self._tracer = trace.get_tracer("kling_async", __version__, tracer_provider)
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._made: OrderedDict[str, SpanContext] = OrderedDict()
        self._actions: Mapping[type, Callable[[Any], None]] = {
            events.Waiting: self._waiting,
            events.Refused: self._refused,
            events.Retried: self._retried,
            events.Recovered: self._recovered,
            events.Submitted: self._submitted,
            events.Dropped: self._dropped,
            events.Resumed: self._resumed,
            events.Finished: self._finished,
            events.Detached: self._detached,
            events.Saved: self._saved,
            events.SaveFailed: self._save_failed,
        }

    def __call__(self, event: Event) -> None:
        """Begin, mark or end spans because of *event*."""
        action = self._actions.get(type(event))
        if action is not None:
            action(event)

    # The stages.

    def _waiting(self, event: events.Waiting) -> None:
        if event.external_task_id in self._jobs:
            # It looks for another account: the same create still.
            self._jobs[event.external_task_id].job.set_attribute("kling.account", event.account)
            return
        attributes = _names(event) | {
            "gen_ai.request.choice.count": event.slots,
            **({"gen_ai.request.model": event.model} if event.model else {}),
        }
        name = f"{_OPERATION} {event.model}".rstrip()
        self._begin(event.external_task_id, name, attributes, "kling.submit")

    def _refused(self, event: events.Refused) -> None:
        self._mark(event.external_task_id, "refused", {"kling.code": event.code})

    def _retried(self, event: events.Retried) -> None:
        details = {
            "error.type": _kind(event.error),
            "kling.attempt": event.attempt,
            "kling.pause": event.pause,
        }
        self._mark(event.external_task_id, "retried", details)

    def _recovered(self, event: events.Recovered) -> None:
        self._mark(event.external_task_id, "recovered", {"gen_ai.response.id": event.task_id})

    def _submitted(self, event: events.Submitted) -> None:
        job = self._jobs.get(event.external_task_id)
        if job is None:
            return
        named = {"gen_ai.response.id": event.task_id, "kling.account": event.account}
        if event.request_id:
            named["kling.request_id"] = event.request_id
        job.job.set_attributes(named)
        self._end_stage(job, named)
        job.stage = self._tracer.start_span("kling.wait", job.context, attributes=_names(event))
        _remember(self._made, event.task_id, job.job.get_span_context())

    def _resumed(self, event: events.Resumed) -> None:
        if event.external_task_id and event.external_task_id in self._jobs:
            return
        maker = self._made.get(event.task_id)
        links = [self._trace.Link(maker)] if maker is not None else []
        self._begin(
            event.external_task_id or event.task_id, "kling.resume", _names(event), "kling.wait", links
        )

    def _dropped(self, event: events.Dropped) -> None:
        job = self._jobs.pop(event.external_task_id, None)
        if job is not None:
            left = {} if event.error is not None else {"kling.left": True}
            self._end_stage(job, left, event.error)
            self._end(job.job, left, event.error)

    def _finished(self, event: events.Finished) -> None:
        job = self._jobs.pop(event.external_task_id, None) or self._jobs.pop(event.task_id, None)
        if job is None:
            return
        attributes: dict[str, Any] = {
            "gen_ai.response.id": event.task_id,
            "gen_ai.response.finish_reasons": (event.status,),
        }
        if event.units is not None:
            attributes["kling.units"] = float(event.units)
        if event.lag is not None:
            attributes["kling.lag"] = event.lag
        failure = f"failed: {event.reason}" if event.status == "failed" else None
        self._end_stage(job, attributes, failure)
        self._end(job.job, attributes, failure)

    def _detached(self, event: events.Detached) -> None:
        job = self._jobs.pop(event.external_task_id, None) or self._jobs.pop(event.task_id, None)
        if job is not None:
            self._end_stage(job, {}, event.error)
            self._end(job.job, {}, event.error)

    def _saved(self, event: events.Saved) -> None:
        self._download(event, {"file.path": event.path, "file.size": event.size}, None)

    def _save_failed(self, event: events.SaveFailed) -> None:
        self._download(event, {}, event.error)

    def _download(
        self, event: events.Saved | events.SaveFailed, found: Mapping[str, Any], error: KlingError | None
    ) -> None:
        maker = self._made.get(event.task_id)
        current = self._trace.get_current_span().get_span_context()
        context = None
        links = []
        if maker is not None and (not current.is_valid or current.trace_id == maker.trace_id):
            context = self._trace.set_span_in_context(self._trace.NonRecordingSpan(maker))
        elif maker is not None:
            links = [self._trace.Link(maker)]
        now = time.time_ns()
        span = self._tracer.start_span(
            "kling.download",
            context,
            attributes=_names(event) | dict(found),
            links=links,
            start_time=now - int(event.seconds * 1e9),
        )
        self._end(span, {}, error, now)

    # Spans.

    def _begin(
        self,
        name: str,
        title: str,
        attributes: Mapping[str, Any],
        stage: str,
        links: list[Link] | None = None,
    ) -> None:
        kind = self._trace.SpanKind.CLIENT
        span = self._tracer.start_span(title, kind=kind, attributes=attributes, links=links)
        context = self._trace.set_span_in_context(span)
        job = _Job(span, context, self._tracer.start_span(stage, context))
        forgotten = _remember(self._jobs, name, job)
        if forgotten is not None:
            self._end_stage(forgotten, {"kling.forgotten": True})
            self._end(forgotten.job, {"kling.forgotten": True})

    def _mark(self, name: str, what: str, details: Mapping[str, Any]) -> None:
        job = self._jobs.get(name)
        if job is not None and job.stage is not None:
            job.stage.add_event(what, details)

    def _end_stage(
        self, job: _Job, attributes: Mapping[str, Any], error: KlingError | str | None = None
    ) -> None:
        if job.stage is not None:
            self._end(job.stage, attributes, error)
            job.stage = None

    def _end(
        self,
        span: Span,
        attributes: Mapping[str, Any],
        error: KlingError | str | None = None,
        at: int | None = None,
    ) -> None:
        span.set_attributes(attributes)
        if error is not None:
            kind = error.partition(":")[0] if isinstance(error, str) else _kind(error)
            span.set_attribute("error.type", kind)
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, redacted(str(error))))
        span.end(at)


def _remember(into: OrderedDict[str, Any], name: str, value: Any) -> Any:
    """Put *value* in; returns the oldest one if there are too many."""
    into[name] = value
    into.move_to_end(name)
    return into.popitem(last=False)[1] if len(into) > _MOST else None


def _kind(error: KlingError) -> str:
    return str(error.code) if isinstance(error, ApiError) and error.code else type(error).__name__


def _names(event: Any) -> dict[str, Any]:
    found = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.provider.name": "kling",
        "gen_ai.output.type": "image",
        "gen_ai.response.id": getattr(event, "task_id", ""),
        "kling.account": event.account,
        "kling.key": event.key,
        "kling.external_task_id": event.external_task_id,
    }
    return {name: value for name, value in found.items() if value}
