"""
Events as log records: `Kling(on_event=EventLog())`.

Every record has the fields `task_id, external_task_id, key, request_id, code, account`, empty where they do not apply,
and *event*, the name of what happened. What the service or a caller's error may have put into a message is redacted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import define, field

from kling_async.client.logs import about
from kling_async.protocol import events
from kling_async.protocol.events import Event
from kling_async.protocol.redaction import redacted

__all__ = ["EventLog", "Redacting"]

_Line: TypeAlias = tuple[int, Callable[[Any], str]]


def _finished(event: events.Finished) -> str:
    reason = f": {event.reason}" if event.reason else ""
    units = "" if event.units is None else f", {event.units} units"
    return f"task {event.task_id} {event.status} after {event.seconds:.1f} s{units}{reason}"


def _requested(event: events.Requested) -> str:
    outcome = f"HTTP {event.status}, code {event.code}" if event.error is None else str(event.error)
    return f"{event.route} took {event.seconds:.3f} s: {outcome}"


def _dropped(event: events.Dropped) -> str:
    return f"no task for {_job(event)}: {event.error or 'its caller left'}"


def _job(event: Any) -> str:
    return f"job {event.key}" if event.key else f"create {event.external_task_id}"


# What is said of each kind of event, and how loud: what is normal at DEBUG, a job's way at INFO, trouble above.
_LINES: dict[type, _Line] = {
    events.Waiting: (logging.DEBUG, lambda e: f"{_job(e)} waits for {e.slots} slots"),
    # The client itself says it at INFO, a line for each picture.
    events.PicturesFitted: (logging.DEBUG, lambda e: f"pictures of {_job(e)} were made to fit"),
    events.Submitted: (logging.INFO, lambda e: f"{_job(e)} is task {e.task_id}"),
    events.Refused: (logging.DEBUG, lambda e: f"{_job(e)} was refused with code {e.code} and waits"),
    events.Retried: (
        logging.INFO,
        lambda e: f"{_job(e)} is sent again in {e.pause:.1f} s, try {e.attempt} failed: {e.error}",
    ),
    events.Recovered: (
        logging.INFO,
        lambda e: f"{_job(e)} was found as task {e.task_id} after its reply was lost",
    ),
    events.Dropped: (logging.WARNING, _dropped),
    events.Resumed: (logging.INFO, lambda e: f"task {e.task_id} is looked after again"),
    events.Requested: (logging.DEBUG, _requested),
    events.Polled: (
        logging.DEBUG,
        lambda e: f"asked about {e.waiting} tasks in {e.requests} requests, {e.ended} ended",
    ),
    events.StatusChanged: (logging.DEBUG, lambda e: f"task {e.task_id} is {e.status}"),
    events.Finished: (logging.INFO, _finished),
    events.Detached: (
        logging.WARNING,
        lambda e: f"task {e.task_id} is no longer looked after: {e.error}",
    ),
    events.Saved: (logging.INFO, lambda e: f"saved {e.path}, {e.size} bytes in {e.seconds:.1f} s"),
    events.SaveFailed: (
        logging.WARNING,
        lambda e: f"a picture of task {e.task_id} was not saved: {e.error}",
    ),
    events.LaneMoved: (
        logging.DEBUG,
        lambda e: f"{e.model}: {e.held} of {e.limit} slots held, {e.waiting} jobs wait",
    ),
    events.LaneChanged: (
        logging.INFO,
        lambda e: f"{e.model}: slots go from {e.before} to {e.after} ({e.reason})",
    ),
    events.LaneStopped: (logging.ERROR, lambda e: f"{e.model} takes no more jobs: {e.error}"),
    events.Missed: (logging.WARNING, lambda e: f"{e.count} events were not logged: the log is too slow"),
}


@define(eq=False)
class EventLog:
    """Logs events on *logger*: a job's way at INFO, trouble above it, everything else at DEBUG."""

    logger: logging.Logger = field(factory=lambda: logging.getLogger("kling_async"))

    def __call__(self, event: Event) -> None:
        """Log *event*."""
        level, line = _LINES.get(type(event), (logging.DEBUG, repr))
        if isinstance(event, events.Finished) and event.status == "failed":
            level = logging.WARNING
        if not self.logger.isEnabledFor(level):
            return
        fields = about(event, error=getattr(event, "error", None))
        self.logger.log(level, "%s", redacted(line(event)), extra=fields | {"event": type(event).__name__})


class Redacting(logging.Filter):
    """
    A filter for handlers, also those of other libraries' records: keys, tokens and queries of URLs are blanked.

    Put it on a handler with `addFilter()`. The text of a record and its exception are redacted, not its other fields.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Blank what is secret in *record*; always keeps it."""
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True
