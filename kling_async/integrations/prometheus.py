"""
Prometheus metrics of clients: `Kling(on_event=Metrics())`, extra `prometheus`.

Labels are accounts, models, routes, codes and kinds of errors, never ids, so that there are few time series.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from kling_async.errors import ApiError, ConfigError, KlingError, MissingExtra
from kling_async.protocol import events
from kling_async.protocol.events import Event

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Metrics"]

# Seconds. An image takes about 25 s, a full account lets jobs wait for hours.
_REQUEST = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_TASK = (5, 10, 15, 20, 25, 30, 40, 60, 90, 120, 300, 600, 1800)
_QUEUE = (0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 14400)
_LAG = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_PICTURE = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
# Jobs whose way to a task is timed at once.
_MOST = 100_000


class Metrics:
    """
    Counts and times events in *registry*, by default the global one, under names that begin with *namespace*.

    One object may serve several clients, and a registry takes one. Raises `MissingExtra` without the extra
    `prometheus` and `ConfigError` if the names are taken.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, namespace: str = "kling") -> None:
        try:
            import prometheus_client
        except ImportError:
            raise MissingExtra(
                "metrics: expected prometheus-client, found no such module; install it: pip install 'kling-async[prometheus]'",
                "prometheus",
            ) from None
        where: dict[str, Any] = {
            "namespace": namespace,
            "registry": prometheus_client.REGISTRY if registry is None else registry,
        }
        try:
            self._make(prometheus_client, where)
        except ValueError as error:
            raise ConfigError(
                f"metrics: expected a registry without names that begin with {namespace}_, found some; "
                "give one Metrics to all clients, or each a namespace of its own"
            ) from error
        # When each job began to wait, by its external id.
        self._since: OrderedDict[str, float] = OrderedDict()
        self._actions: Mapping[type, Callable[[Any], None]] = {
            events.Waiting: self._waiting,
            events.Submitted: self._submitted,
            events.Refused: lambda e: self._refusals.labels(e.account, str(e.code)).inc(),
            events.Retried: lambda e: self._retries.labels(e.account, _kind(e.error)).inc(),
            events.Recovered: lambda e: self._recovered.labels(e.account).inc(),
            events.Dropped: self._dropped,
            events.Resumed: lambda e: self._resumed.labels(e.account).inc(),
            events.Requested: self._requested,
            events.Finished: self._finished,
            events.Detached: lambda e: self._detached.labels(e.account, _kind(e.error)).inc(),
            events.Saved: self._saved,
            events.SaveFailed: lambda e: self._unsaved.labels(e.account, _kind(e.error)).inc(),
            events.LaneMoved: self._moved,
            events.LaneStopped: lambda e: self._stops.labels(e.account, e.model, _kind(e.error)).inc(),
            events.Missed: lambda e: self._missed.inc(e.count),
        }

    def _make(self, kinds: Any, where: Mapping[str, Any]) -> None:
        def counter(name: str, help_: str, *labels: str) -> Any:
            return kinds.Counter(name, help_, labels, **where)

        def gauge(name: str, help_: str) -> Any:
            return kinds.Gauge(name, help_, ("account", "model"), **where)

        def histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return kinds.Histogram(name, help_, labels, buckets=buckets, **where)

        self._limit = gauge("slots_limit", "Slots that a lane is believed to have")
        self._held = gauge("slots_held", "Slots that tasks of this client hold")
        self._queue = gauge("jobs_waiting", "Jobs that wait for slots")
        self._submits = counter("tasks_submitted", "Tasks made", "account")
        self._ends = counter("tasks_finished", "Tasks seen to have ended", "account", "status")
        self._drops = counter("jobs_dropped", "Jobs that left without a task", "account", "reason")
        self._refusals = counter("creates_refused", "Creates refused free of charge", "account", "code")
        self._retries = counter("creates_retried", "Creates tried again after trouble", "account", "reason")
        self._recovered = counter("tasks_recovered", "Tasks found after their reply was lost", "account")
        self._resumed = counter("tasks_resumed", "Tasks looked after again", "account")
        self._detached = counter("tasks_detached", "Tasks no longer looked after", "account", "reason")
        self._units = counter("units", "Units that ended tasks have cost", "account")
        self._stops = counter("account_stops", "Times a lane was stopped", "account", "model", "reason")
        self._missed = counter("events_missed", "Events that came too fast to be counted here")
        self._bytes = counter("picture_bytes", "Bytes of pictures saved", "account")
        self._unsaved = counter("pictures_failed", "Pictures not saved", "account", "reason")
        self._requests = counter("requests", "Requests to the service", "account", "route", "outcome")
        self._request_time = histogram("request_seconds", "Time of a request", _REQUEST, "route")
        self._queue_time = histogram("queue_seconds", "From waiting to a task", _QUEUE, "account")
        self._task_time = histogram("task_seconds", "From a task to its end seen", _TASK, "account")
        self._lag = histogram("lag_seconds", "How late ends are seen", _LAG, "account")
        self._picture_time = histogram("picture_seconds", "Time to save a picture", _PICTURE, "account")

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        action = self._actions.get(type(event))
        if action is not None:
            action(event)

    def _waiting(self, event: events.Waiting) -> None:
        self._since.setdefault(event.external_task_id, monotonic())
        if len(self._since) > _MOST:
            self._since.popitem(last=False)

    def _submitted(self, event: events.Submitted) -> None:
        self._submits.labels(event.account).inc()
        since = self._since.pop(event.external_task_id, None)
        if since is not None:
            self._queue_time.labels(event.account).observe(monotonic() - since)

    def _dropped(self, event: events.Dropped) -> None:
        self._since.pop(event.external_task_id, None)
        reason = "left" if event.error is None else _kind(event.error)
        self._drops.labels(event.account, reason).inc()

    def _requested(self, event: events.Requested) -> None:
        self._requests.labels(event.account, event.route, _outcome(event)).inc()
        self._request_time.labels(event.route).observe(event.seconds)

    def _finished(self, event: events.Finished) -> None:
        self._ends.labels(event.account, event.status).inc()
        self._task_time.labels(event.account).observe(event.seconds)
        if event.units is not None:
            self._units.labels(event.account).inc(float(event.units))
        if event.lag is not None:
            self._lag.labels(event.account).observe(event.lag)

    def _saved(self, event: events.Saved) -> None:
        self._bytes.labels(event.account).inc(event.size)
        self._picture_time.labels(event.account).observe(event.seconds)

    def _moved(self, event: events.LaneMoved) -> None:
        self._limit.labels(event.account, event.model).set(event.limit)
        self._held.labels(event.account, event.model).set(event.held)
        self._queue.labels(event.account, event.model).set(event.waiting)


def _outcome(event: events.Requested) -> str:
    if event.error is not None:
        return type(event.error).__name__
    if event.code:
        return str(event.code)
    return "ok" if event.status < 400 else f"http_{event.status}"


def _kind(error: KlingError) -> str:
    return str(error.code) if isinstance(error, ApiError) and error.code else type(error).__name__
