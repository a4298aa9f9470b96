"""Traces in the real SDK: what spans there are, whose they are, and what they say."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from socket_kit import client, job, until

from kling_async.emulator import Emulator, Fault
from kling_async.errors import KlingError, MissingExtra, TaskFailed, TaskTimeout
from kling_async.integrations import otel
from kling_async.integrations.otel import Tracing

pytestmark = pytest.mark.anyio


class Recorded:
    """A provider of the real SDK that keeps its spans in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider)

    def named(self, start: str) -> list[ReadableSpan]:
        """Return the spans that have ended and whose names begin so."""
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]

    def one(self, start: str) -> ReadableSpan:
        """Return the one span of that name."""
        (span,) = self.named(start)
        return span


def told(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def own(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


async def test_a_job_is_a_span_of_its_caller_with_its_stages(tmp_path: Path) -> None:
    """A job's span belongs to the caller's trace; submit, wait and download are its children and tell what they are."""
    recorded = Recorded()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=recorded.tracing) as kling,
    ):
        with recorded.provider.get_tracer("app").start_as_current_span("request") as request:
            done = await kling.images.multi_image.run(job(key="row-1", n=2))
            path = await done.images[0].save(tmp_path)
            size = await anyio.Path(path).stat()

    span = recorded.one("generate_content kling-v2-1")
    children = [recorded.one(name) for name in ("kling.submit", "kling.wait", "kling.download")]
    assert parent(span) == request.get_span_context().span_id
    assert {parent(child) for child in children} == {own(span)}
    assert span.kind is SpanKind.CLIENT
    expected = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "kling",
        "gen_ai.output.type": "image",
        "gen_ai.request.model": "kling-v2-1",
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": done.task_id,
        "gen_ai.response.finish_reasons": ("succeed",),
        "kling.account": "default",
        "kling.key": "row-1",
        "kling.external_task_id": done.external_task_id,
        "kling.units": 32.0,
    }
    assert expected.items() <= told(span).items()
    assert all(told(each)["gen_ai.response.id"] == done.task_id for each in children)
    assert told(children[2])["file.size"] == size.st_size
    assert span.status.status_code is not StatusCode.ERROR


async def test_two_requests_keep_their_traces_apart() -> None:
    """Jobs of two callers at once, looked after by one poller, are each in their caller's trace."""
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("app")

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=recorded.tracing) as kling,
    ):
        handles = []
        for name in ("one", "two"):
            with tracer.start_as_current_span(name):
                handles.append(await kling.images.multi_image.create(job(external_task_id=f"{name}-1")))
        for handle in handles:
            await handle

    roots = {
        span.name: span.context.trace_id
        for span in recorded.named("")
        if span.name in {"one", "two"} and span.context
    }
    waits = {
        told(span)["kling.external_task_id"]: span.context.trace_id
        for span in recorded.named("kling.wait")
        if span.context
    }
    assert waits == {"one-1": roots["one"], "two-1": roots["two"]}


async def test_trouble_is_told_on_the_span() -> None:
    """Refusals are events of the submit span; a failed task makes its spans errors with the service's reason."""
    recorded = Recorded()
    faults = [Fault(action="refuse", code=1303, route="create", times=1), Fault(action="fail-task", times=1)]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=recorded.tracing) as kling,
    ):
        with pytest.raises(TaskFailed) as caught:
            await kling.images.multi_image.run(job())

    submit, span = recorded.one("kling.submit"), recorded.one("generate_content")
    assert [(event.name, dict(event.attributes or {})) for event in submit.events] == [
        ("refused", {"kling.code": 1303})
    ]
    assert (span.status.status_code, told(span)["error.type"]) == (StatusCode.ERROR, "failed")
    assert caught.value.reason in str(span.status.description)


async def test_a_create_that_made_no_task_ends_its_spans() -> None:
    """A refused create ends as an error with the service's code; one that its caller left in the queue says so."""
    recorded = Recorded()

    async with (
        Emulator(
            speed=1, task_seconds=3600.0, paint="stamp", faults=[Fault(action="refuse", code=1301, times=1)]
        ) as emulator,
        client(emulator, on_event=recorded.tracing, slots=1) as kling,
    ):
        with pytest.raises(KlingError):
            _ = await kling.images.multi_image.create(job())
        refused = recorded.one("generate_content")
        _ = await kling.images.multi_image.create(job())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                _ = await kling.images.multi_image.create(job())
        left = recorded.named("generate_content")[-1]

    assert told(refused)["error.type"] == "1301"
    assert told(left)["kling.left"] is True
    assert left.status.status_code is not StatusCode.ERROR


async def test_waiting_again_is_linked_to_what_made_the_task() -> None:
    """A handle made of an id, in another client and request, begins a span with a link to the span that made the task."""
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("app")

    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator:
        async with client(emulator, on_event=recorded.tracing) as kling:
            handle = await kling.images.multi_image.create(job())
            with pytest.raises(TaskTimeout) as caught:
                await handle.wait(timeout=0.05)
        async with client(emulator, on_event=recorded.tracing) as kling:
            with tracer.start_as_current_span("later") as later:
                again = kling.images.multi_image.handle(caught.value.task_id)
                with pytest.raises(TaskTimeout):
                    await again.wait(timeout=0.5)
            await emulator.advance(4000)
            await again.wait(timeout=5)

    made, resumed = recorded.one("generate_content"), recorded.one("kling.resume")
    assert [link.context.span_id for link in resumed.links] == [own(made)]
    assert parent(resumed) == later.get_span_context().span_id
    assert told(made)["error.type"] == "ConfigError"  # its client was closed
    assert told(resumed)["gen_ai.response.finish_reasons"] == ("succeed",)


async def test_pictures_of_a_batch_belong_to_its_jobs(tmp_path: Path) -> None:
    """Each download of a batch is a child of the span of its job."""
    recorded = Recorded()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=recorded.tracing) as kling,
        kling.batch([job(key=str(number)) for number in range(3)], out=tmp_path) as batch,
    ):
        ended = [outcome async for outcome in batch]

    jobs = {own(span): told(span)["kling.key"] for span in recorded.named("generate_content")}
    downloads = {
        jobs[parent(span) or 0]: told(span)["kling.key"] for span in recorded.named("kling.download")
    }
    assert len(ended) == 3
    assert downloads == {"0": "0", "1": "1", "2": "2"}


async def test_nothing_secret_is_in_a_span() -> None:
    """Neither the API key nor a query of a URL is anywhere in the spans of a job in trouble."""
    recorded = Recorded()
    key = "an-api-key-that-nobody-may-see"
    faults = [
        Fault(action="reset-after-accept", route="create", times=1),
        Fault(action="html-502", route="get", times=1),
    ]

    async with (
        Emulator(speed="instant", paint="stamp", api_key=key, faults=faults) as emulator,
        client(emulator, on_event=recorded.tracing, api_key=key) as kling,
    ):
        await kling.images.multi_image.run(job(prompt="a prompt that is nobody's business"))

    texts = [span.to_json() for span in recorded.named("")]
    assert texts
    assert not [text for text in texts if key in text or "nobody's business" in text or "?" in text]
    assert {event.name for event in recorded.one("kling.submit").events} >= {"recovered"}


async def test_spans_end_with_the_client() -> None:
    """Closing a client ends the spans of tasks that still run; nothing is kept for jobs that are over."""
    recorded = Recorded()

    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator:
        async with client(emulator, on_event=recorded.tracing) as kling:
            _ = await kling.images.multi_image.create(job())

    assert len(recorded.named("kling.wait")) == len(recorded.named("generate_content")) == 1
    assert recorded.tracing._jobs == {}


async def test_jobs_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more jobs than the bound the oldest one's spans are ended, so that memory stays bounded."""
    recorded = Recorded()
    monkeypatch.setattr(otel, "_MOST", 2)

    async with (
        Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator,
        client(emulator, on_event=recorded.tracing) as kling,
    ):
        for _ in range(3):
            _ = await kling.images.multi_image.create(job())
        await until(lambda: emulator.tasks)
        forgotten = recorded.one("generate_content")
        left = len(recorded.tracing._jobs)

    assert (told(forgotten)["kling.forgotten"], left) == (True, 2)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry the construction fails and names the command."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(MissingExtra, match=r"pip install 'kling-async\[otel\]'") as caught:
        Tracing()
    assert caught.value.extra == "otel"
