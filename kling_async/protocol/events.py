"""
What happens inside a client, as typed values for whoever watches.

`Kling(on_event=...)` receives them; the live view, the logs and the telemetry are subscribers like any other.
No event carries a secret, a body or a picture.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from attrs import frozen

from kling_async.errors import KlingError

__all__ = [
    "Event",
    "Finished",
    "LaneChanged",
    "LaneStopped",
    "Polled",
    "Recovered",
    "Refused",
    "Retried",
    "Saved",
    "StatusChanged",
    "Submitted",
    "Waiting",
]


@frozen(kw_only=True)
class _JobEvent:
    """What all events about one job tell; *key* is the caller's, empty for a single create without one."""

    account: str
    key: str
    external_task_id: str


@frozen(kw_only=True)
class Waiting(_JobEvent):
    """A job is ready and waits for *slots* free slots."""

    slots: int


@frozen(kw_only=True)
class Submitted(_JobEvent):
    """A create was accepted; the task holds *slots* slots until it ends."""

    task_id: str
    slots: int
    request_id: str = ""


@frozen(kw_only=True)
class Refused(_JobEvent):
    """A create was refused free of charge (1302 or 1303) and will be sent again after *pause* seconds or a free slot."""

    code: int
    pause: float | None


@frozen(kw_only=True)
class Retried(_JobEvent):
    """A call failed with *error* in a way that is safe to repeat and is repeated after *pause* seconds."""

    error: KlingError
    attempt: int
    pause: float


@frozen(kw_only=True)
class Recovered(_JobEvent):
    """The reply to a create was lost; the task was found by its external id and was not submitted twice."""

    task_id: str


@frozen(kw_only=True)
class StatusChanged(_JobEvent):
    """A task that goes on shows another *status* than before, in the service's word; its end is `Finished`."""

    task_id: str
    status: str


@frozen(kw_only=True)
class Polled:
    """The poller took one turn over an account: *requests* sent for *waiting* tasks, *ended* of them seen to have ended."""

    account: str
    requests: int
    waiting: int
    ended: int


@frozen(kw_only=True)
class Finished(_JobEvent):
    """A task ended. *status* is the service's word, *seconds* the time since it was submitted, *units* what it cost."""

    task_id: str
    status: str
    reason: str
    seconds: float
    units: Decimal | None


@frozen(kw_only=True)
class Saved(_JobEvent):
    """A result picture is whole on disk (or in the store) as *path*, *size* bytes."""

    task_id: str
    path: str
    size: int


@frozen(kw_only=True)
class LaneChanged:
    """The believed limit of a lane (account and model) moved."""

    account: str
    model: str
    before: int
    after: int
    reason: str


@frozen(kw_only=True)
class LaneStopped:
    """An account can take no more jobs until somebody acts; its rows stay pending."""

    account: str
    model: str
    error: KlingError


Event: TypeAlias = (
    Waiting
    | Submitted
    | Refused
    | Retried
    | Recovered
    | StatusChanged
    | Polled
    | Finished
    | Saved
    | LaneChanged
    | LaneStopped
)
