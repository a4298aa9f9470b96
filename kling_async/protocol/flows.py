"""
Conversations with the service. All repeating, asking again and giving up is visible here and nowhere else.

A flow is a generator: it yields steps and is sent what came of them. `Send` brings a `Reply` or raises a
`TransportError` at that point; `Wait` takes time; `Renew` answers whether another token is worth trying; `Doubt`
only tells. Whoever drives a flow owns sockets, clocks and tokens.

The promise of `submit()`: it returns a task that exists, raises `SubmissionUnknown`, or raises anything else, and
then no task was made. A create whose fate is unknown is never sent again before the service has been asked for its
external id over the whole settle window.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum, auto
from itertools import count
from typing import Any, TypeAlias, TypeVar

from attrs import evolve, field, frozen

from kling_async import errors
from kling_async.errors import KlingError, SubmissionUnknown
from kling_async.protocol.codec import Envelope, Reply, read_envelope, read_task, read_task_id
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.requests import Request
from kling_async.protocol.retry import Pacing, RetryQuota, heals
from kling_async.protocol.tasks import Task
from kling_async.protocol.verdict import Verdict, judge

__all__ = [
    "Doubt",
    "Flow",
    "Look",
    "Patience",
    "Renew",
    "Send",
    "Submission",
    "Wait",
    "ask",
    "exchange",
    "find",
    "read_with",
    "submit",
]

T = TypeVar("T")

_PACING = Pacing()
# Refusals that a new token may cure: not yet valid, expired, and for an old token also a plain "not authorised".
_RENEWABLE = frozenset({1000, 1002, 1003, 1004})


@frozen
class Send:
    """Send *request*; answered with its `Reply`, or a `TransportError` is thrown in."""

    request: Request


@frozen
class Wait:
    """Let *seconds* pass; *error* is what made attempt number *attempt* fail, None when there is only something to await."""

    seconds: float
    error: KlingError | None = None
    attempt: int = 0


@frozen
class Renew:
    """Ask for another token because the last one was refused; answered with whether there is one worth trying."""

    error: errors.AuthError
    service_time: float | None


@frozen
class Doubt:
    """A create ended with *error* and may have made a task: to be written down before anything else is done."""

    error: KlingError


Step: TypeAlias = Send | Wait | Renew | Doubt
Flow: TypeAlias = Generator[Step, Any, T]


@frozen(kw_only=True)
class Patience:
    """
    How long a flow goes on.

    *retries* counts repetitions after the first try; *settle* is the time in seconds over which at least *looks*
    look-ups must find nothing before a create counts as not made; *unknown_after* bounds, in seconds of pauses, how
    long look-ups that bring no answer go on. *dice* draws from [0, 1).
    """

    retries: int = 2
    pacing: Pacing = _PACING
    settle: float = 5.0
    looks: int = 3
    unknown_after: float = 60.0
    dice: Callable[[], float]
    quota: RetryQuota = field(factory=RetryQuota)


class Look(Enum):
    """Whether the service is asked for the task before the first create."""

    NO = auto()
    ONCE = auto()
    """The job may have been executed before, some time ago."""
    SETTLE = auto()
    """Somebody may have sent the create a moment ago, so not found is not found yet."""


@frozen
class Submission:
    """A task that exists; *found* says that it was looked up after its create brought no usable answer."""

    task_id: str
    request_id: str
    found: bool


def exchange(request: Request) -> Flow[Envelope]:
    """Send *request* once, and once more with another token if the first one was refused for its time."""
    return (yield from read_with(read_envelope, request))


def read_with(read: Callable[[Reply], T], request: Request) -> Flow[T]:
    """Do as `exchange()`, and *read* the reply in another way."""
    reply: Reply = yield Send(request)
    try:
        return read(reply)
    except errors.AuthError as error:
        if error.code not in _RENEWABLE or not (yield Renew(error, reply.service_time)):
            raise
    reply = yield Send(request)
    return read(reply)


def ask(request: Request, patience: Patience) -> Flow[Envelope]:
    """
    Send *request*, which only reads, until it is answered or *patience* runs out; raises the last error.

    Never for a create: one whose reply was lost may have been accepted, and paid for.
    """
    for attempt in count(1):
        try:
            envelope = yield from exchange(request)
        except KlingError as error:
            if attempt > patience.retries or not heals(error):
                raise
            # Too fast is no outage: waiting it out must not use up what outages may cost.
            throttled = isinstance(error, errors.RateLimited | errors.NoFreeSlot)
            if not throttled and not patience.quota.take():
                raise
            yield Wait(_pause(patience, attempt, error), error, attempt)
        else:
            patience.quota.give_back()
            return envelope
    raise AssertionError  # pragma: no cover - count() does not end


def submit(
    create: Request,
    find_it: Request,
    external_task_id: str,
    patience: Patience,
    *,
    adopt: bool = True,
    look: Look = Look.NO,
) -> Flow[Submission]:
    """
    Make one task, and never two.

    *find_it* asks for *external_task_id*, which the create carries. *adopt* says that a task which has the id already
    is this one, because the id was made from the job's content; otherwise such a task, unless it may come from a
    create sent here, is `DuplicateExternalId`. *look* asks for the task before anything is sent. Raises `NoFreeSlot` and `RateLimited` at once,
    because only the lane knows when to try again. See the module for what the other errors promise.
    """
    ours = adopt
    if look is not Look.NO:
        once = evolve(patience, looks=1, settle=0.0)
        earlier = yield from find(find_it, external_task_id, once if look is Look.ONCE else patience)
        if earlier is not None:
            return Submission(earlier.task_id, earlier.request_id, found=True)
    for attempt in count(1):
        try:
            envelope = yield from exchange(create)
            task_id = read_task_id(envelope.data, request_id=envelope.request_id)
        except KlingError as error:
            trouble = error
        else:
            patience.quota.give_back()
            return Submission(task_id, envelope.request_id, found=False)
        verdict = judge(trouble)
        if verdict is Verdict.DUPLICATE and not ours:
            raise trouble
        if verdict in {Verdict.AMBIGUOUS, Verdict.DUPLICATE}:
            ours = True
            yield Doubt(trouble)
            found = yield from find(find_it, external_task_id, patience)
            if found is not None:
                return Submission(found.task_id, found.request_id, found=True)
            _refuse_to_guess(trouble, verdict, external_task_id)
        elif verdict is not Verdict.NOT_SENT:
            raise trouble
        if attempt > patience.retries or not patience.quota.take():
            raise trouble
        yield Wait(_pause(patience, attempt, trouble), trouble, attempt)
    raise AssertionError  # pragma: no cover - count() does not end


def _refuse_to_guess(trouble: KlingError, verdict: Verdict, external_task_id: str) -> None:
    if verdict is Verdict.DUPLICATE:
        message = (
            f"the service says that {external_task_id} exists but does not find it; ask for it again later"
        )
        raise SubmissionUnknown(message, external_task_id) from trouble
    if isinstance(trouble, errors.MalformedReply) and trouble.is_redirect:
        raise errors.ConfigError(str(trouble)) from trouble


def find(find_it: Request, external_task_id: str, patience: Patience) -> Flow[Task | None]:
    """
    Find out whether a create made a task: the task, or None when it is certain that there is none.

    Not found is not found *yet*: it must be said `looks` times, spread over the settle window. Any other answer is
    none; raises `SubmissionUnknown` if none comes for long or none ever can.
    """
    absent, waited, failures, failed_for = 0, 0.0, 0, 0.0
    while True:
        try:
            envelope = yield from exchange(find_it)
            return _the_one(read_task(envelope.data, request_id=envelope.request_id), external_task_id)
        except KlingError as error:
            if isinstance(error, errors.ApiError) and is_not_found(error.code, error.message):
                absent += 1
                if absent >= patience.looks and waited >= patience.settle:
                    return None
                pause = patience.settle / max(1, patience.looks - 1)
            else:
                failures += 1
                pause = _pause(patience, failures, error)
                failed_for += pause
                if not heals(error) or failed_for > patience.unknown_after:
                    raise _unknown(external_task_id, error) from error
        waited += pause
        yield Wait(pause)


def _the_one(task: Task, external_task_id: str) -> Task:
    if not task.answers(external_task_id):
        raise errors.MalformedReply(
            f"expected the task with external id {external_task_id}, found that of {task.external_task_id!r}",
            200,
        )
    return task


def _unknown(external_task_id: str, error: KlingError) -> SubmissionUnknown:
    return SubmissionUnknown(
        f"it is not known whether task {external_task_id} was made, since look-ups bring no answer ({error}); "
        "nothing was sent again: ask for it later by its external id",
        external_task_id,
    )


def _pause(patience: Patience, attempt: int, error: KlingError) -> float:
    wish = error.retry_after if isinstance(error, errors.ApiError) else None
    return patience.pacing.pause(attempt, patience.dice(), wish)
