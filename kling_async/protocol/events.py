"""
What happens inside a client, as typed values for whoever watches.

`Kling(on_event=...)` receives them; the live view, the logs and the telemetry are subscribers like any other.
No event carries a secret, a body or a picture.

The way of one job, known by its external id::

    Waiting ─(Refused, Retried)─> Submitted ──> Finished ──> Saved or SaveFailed, for each picture
       └──> Dropped     Resumed ─────┘    └──> Detached

`Recovered` stands before a `Submitted` whose reply was lost. A job that looks for another account waits again. A create
whose fate is unknown is `Dropped`, and may be `Finished` all the same when its task is found.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from attrs import frozen

from kling_async.errors import KlingError
from kling_async.protocol.pictures import Fitted

__all__ = [
    "Detached",
    "Dropped",
    "Event",
    "Finished",
    "LaneChanged",
    "LaneMoved",
    "LaneStopped",
    "Missed",
    "PicturesFitted",
    "Polled",
    "Recovered",
    "Refused",
    "Requested",
    "Resumed",
    "Retried",
    "SaveFailed",
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
    """A job is ready and waits for *slots* free slots of *model*."""

    slots: int
    model: str = ""


@frozen(kw_only=True)
class PicturesFitted(_JobEvent):
    """Pictures of a job were changed to bring them within the rules; no account is chosen yet."""

    fitted: tuple[Fitted, ...]


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
class Dropped(_JobEvent):
    """
    A job left without a task that is looked after; *error* is why, None if its caller left while it waited.

    A `SubmissionUnknown` means that there may be a task all the same. *account* is empty if none was chosen yet.
    """

    error: KlingError | None


@frozen(kw_only=True)
class Resumed(_JobEvent):
    """A task that existed already is looked after from now on, as after a restart or by a handle made of its id."""

    task_id: str


@frozen(kw_only=True)
class Detached(_JobEvent):
    """A task is no longer looked after because of *error*; unless the service does not know it, it goes on and is charged."""

    task_id: str
    error: KlingError


@frozen(kw_only=True)
class Requested:
    """
    A request was answered after *seconds*, or not.

    *route* is `create`, `get`, `list` or `costs`. *status* is HTTP's, 0 without an answer, and *code* the service's, 0
    also if the answer has none. *error* is what happened instead of an answer.
    """

    account: str
    route: str
    seconds: float
    status: int = 0
    code: int = 0
    request_id: str = ""
    error: KlingError | None = None


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
    """
    A task ended. *status* is the service's word, *seconds* the time since it was submitted, *units* what it cost.

    *lag* is the part of *seconds* that passed before the end was seen, by the service's own clock; None if it is not told.
    """

    task_id: str
    status: str
    reason: str
    seconds: float
    units: Decimal | None
    lag: float | None = None


@frozen(kw_only=True)
class Saved(_JobEvent):
    """A result picture is whole on disk (or in the store) as *path*, *size* bytes; that took *seconds*, with waiting its turn."""

    task_id: str
    path: str
    size: int
    seconds: float = 0.0


@frozen(kw_only=True)
class SaveFailed(_JobEvent):
    """A result picture could not be fetched or kept, after *seconds*."""

    task_id: str
    error: KlingError
    seconds: float


@frozen(kw_only=True)
class LaneMoved:
    """
    A lane (account and model) holds *held* of *limit* slots for its tasks, and *waiting* jobs wait for some.

    What happens in one pass of the event loop is told at once.
    """

    account: str
    model: str
    limit: int
    held: int
    waiting: int


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


@frozen(kw_only=True)
class Missed:
    """This watcher was too slow: *count* events that happened before the next one are not told to it."""

    count: int


Event: TypeAlias = (
    Waiting
    | PicturesFitted
    | Submitted
    | Refused
    | Retried
    | Recovered
    | Dropped
    | Resumed
    | Requested
    | StatusChanged
    | Polled
    | Finished
    | Detached
    | Saved
    | SaveFailed
    | LaneMoved
    | LaneChanged
    | LaneStopped
    | Missed
)
