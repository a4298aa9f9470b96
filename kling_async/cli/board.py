"""
What the views of a run show, gathered from events, outcomes and the batch's own statistics.

Pure but for the clock it is given. It holds only the jobs between being taken up and their end, so its size is that
of the account's slots, not of the manifest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import asdict, define, evolve, field, fields, frozen

from kling_async.batch.forecast import Crowd, Lifetimes, seconds_left
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Failed, Outcome
from kling_async.batch.statistics import Statistics
from kling_async.cli.money import duration
from kling_async.errors import ApiError, BudgetSpent, KlingError, TaskFailed
from kling_async.protocol.codes import CODES
from kling_async.protocol.events import (
    Dropped,
    Event,
    Finished,
    LaneStopped,
    PicturesFitted,
    Polled,
    Recovered,
    Refused,
    Requested,
    Resumed,
    Retried,
    Saved,
    Submitted,
    Waiting,
)
from kling_async.protocol.pictures import Fitted

__all__ = ["Board", "Failure", "JobLine", "Snapshot"]

RATE_WINDOW = 10.0  # seconds
KEPT_FAILURES = 8
# Most important first: a view that has little room shows the first ones.
_ORDER = {"recovered": 0, "processing": 1, "saving": 2, "waiting": 3}
# A task that has taken so many times the usual is late, once so many have ended that there is a usual.
_LATE = 2.0
# Seconds by which the clocks of an event and of the board may differ.
_A_MOMENT = 1.0
_ENOUGH = 5
_PATIENCE = fields(BatchOptions).task_timeout.default or 0.0
_STALL = fields(BatchOptions).stall_after.default or 0.0


_RUNNING = frozenset({"processing", "recovered"})


@define(eq=False)
class _Job:
    status: str
    since: float
    slots: int = 0
    note: str = ""
    task_id: str = ""
    # When it is tried again, by the clock of the board.
    again: float = 0.0


@frozen(kw_only=True)
class JobLine:
    """One job under way: *age* in seconds since its status changed, *note* says why it waits or what happened."""

    key: str
    status: str
    slots: int
    age: float
    note: str
    task_id: str


@frozen(kw_only=True)
class Failure:
    """A job that failed: *message* says it all, *short* is the code and what to do."""

    key: str
    message: str
    short: str


@frozen(kw_only=True)
class Snapshot:
    """
    A run at one moment, as views show it.

    *eta* is in seconds; None while nobody knows. *usual* is the median of the tasks that ended, in seconds. *stopped* says
    why nothing more is sent, by one account or by all, *trouble* why nothing is accepted; empty while everything goes on.
    """

    seconds: float
    total: int | None
    done: int
    succeeded: int
    failed: int
    running: int
    saving: int
    waiting: int
    slots_held: int
    slots: int
    utilisation: float | None
    submit_rate: float
    requests: int
    polls: int
    refusals: int
    recovered: int
    images: int
    units: float
    budget: int | None
    eta: float | None
    usual: float | None = None
    stopped: tuple[str, ...] = ()
    trouble: str = ""
    jobs: tuple[JobLine, ...] = ()
    failures: tuple[Failure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot for `--progress json`; names and units stay as they are here."""
        return asdict(self)


@define(eq=False)
class Board:
    """
    Gathers; one for each run.

    *total* counts all rows and *todo* those that were not done before, None while unknown. These may be set later, and so
    may *asked_to_end*: that a person stopped the run.
    """

    _clock: Callable[[], float]
    total: int | None = None
    todo: int | None = None
    asked_to_end: bool = field(default=False, kw_only=True)
    on_note: Callable[[str, str], None] | None = None
    _jobs: dict[str, _Job] = field(factory=dict, init=False)
    _failures: deque[Failure] = field(factory=lambda: deque(maxlen=KEPT_FAILURES), init=False)
    _submits: deque[float] = field(factory=deque, init=False)
    _fits: set[Fitted] = field(factory=set, init=False)
    _stopped: dict[str, str] = field(factory=dict, init=False)
    # What creates end with since the last one that was answered properly, and since when.
    _trouble: tuple[str, float] | None = field(default=None, init=False)
    _polls: int = field(default=0, init=False)
    _recovered: int = field(default=0, init=False)
    _saved: int = field(default=0, init=False)
    _tasks: Lifetimes = field(factory=Lifetimes, init=False)
    _savings: Lifetimes = field(factory=Lifetimes, init=False)
    _crowd: Crowd = field(factory=Crowd, init=False)
    _changes: dict[type, Callable[[Any], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._changes = {
            Waiting: self._waits,
            Submitted: self._submitted,
            Resumed: self._resumed,
            Refused: self._refused,
            Retried: self._retried,
            Recovered: self._found,
            Dropped: self._dropped,
            Requested: self._requested,
            Polled: self._polled,
            Finished: self._finished,
            Saved: self._kept,
            LaneStopped: self._lane_stopped,
            PicturesFitted: self._fitted,
        }

    def see(self, event: Event) -> None:
        """Note *event*."""
        change = self._changes.get(type(event))
        if change is not None:
            change(event)

    def end(self, outcome: Outcome) -> None:
        """Note that a job ended."""
        job = self._jobs.pop(outcome.key, None)
        if job is not None and job.status == "saving":
            self._savings.add(self._clock() - job.since)
        elif job is not None and job.status in _RUNNING:
            self._crowd.change(-1, self._clock())  # given up
        if isinstance(outcome, Failed):
            error = outcome.error
            self._failures.append(Failure(key=outcome.key, message=str(error), short=_short(error)))

    def snapshot(self, statistics: Statistics) -> Snapshot:
        """Return where the run stands."""
        now = self._clock()
        while self._submits and self._submits[0] < now - RATE_WINDOW:
            self._submits.popleft()
        usual = self._tasks.curve().typical() if self._tasks.count else None
        lines = [self._line(key, job, now, usual) for key, job in self._jobs.items()]
        lines.sort(key=lambda line: (_ORDER.get(line.status, 9), not line.note, -line.age))
        return Snapshot(
            seconds=statistics.seconds,
            total=self.total if self.total is not None else statistics.total,
            done=statistics.done,
            succeeded=statistics.succeeded,
            failed=statistics.failed,
            running=statistics.in_flight,
            saving=statistics.saving,
            waiting=statistics.queued,
            slots_held=statistics.slots_held,
            slots=statistics.slots,
            utilisation=statistics.slot_utilisation,
            submit_rate=len(self._submits) / min(RATE_WINDOW, max(statistics.seconds, 1.0)),
            requests=statistics.requests,
            polls=self._polls,
            refusals=statistics.refusals,
            recovered=self._recovered,
            images=self._saved,
            units=float(statistics.units),
            budget=statistics.budget,
            eta=self._eta(statistics, now),
            usual=usual,
            stopped=self._why_stopped(statistics),
            trouble=self._what_troubles(now) if statistics.queued else "",
            jobs=tuple(lines),
            failures=tuple(self._failures),
        )

    def _why_stopped(self, statistics: Statistics) -> tuple[str, ...]:
        whole = statistics.stopped_by
        if self.asked_to_end:
            return ("as you asked, nothing more is sent; what runs is paid for and collected",)
        if isinstance(whole, BudgetSpent):
            return (f"no more rows are taken: {whole}",)
        if whole is not None:
            return (f"nothing more is sent: {_short(whole)}",)
        return tuple(f"{account}: nothing more is sent: {why}" for account, why in self._stopped.items())

    def _what_troubles(self, now: float) -> str:
        if self._trouble is None:
            return ""
        what, since = self._trouble
        end = f"after {duration(_STALL)} of this the run ends, and can be resumed"
        return f"nothing was accepted for {duration(now - since)}: {what}; {end}"

    def _eta(self, statistics: Statistics, now: float) -> float | None:
        ended = statistics.succeeded + statistics.failed
        begun = ended + statistics.in_flight + statistics.saving
        queued = statistics.queued
        going_on = statistics.stopped_by is None and not self.asked_to_end
        if going_on and self.todo is not None:
            queued = max(queued, self.todo - begun)
        elif going_on and statistics.total is None:
            return None
        if not self._tasks.count or (not queued and ended == begun):
            return None
        ages = [now - job.since for job in self._jobs.values() if job.status in _RUNNING]
        free = round(self._crowd.usual(now)) - len(ages)
        left = seconds_left(queued, ages, self._tasks, free=max(0, free)) if queued or ages else 0.0
        return left + (self._savings.curve().mean if self._savings.count else 0.0)

    def _line(self, key: str, job: _Job, now: float, usual: float | None) -> JobLine:
        age, note = now - job.since, job.note
        if job.again > now:
            note += f", next try in {duration(job.again - now)}"
        elif job.status in _RUNNING and usual and self._tasks.count >= _ENOUGH and age > _LATE * usual:
            late = f"late: usually {duration(usual)}, given up after {duration(_PATIENCE)}"
            note = f"{note}; {late}" if note else late
        return JobLine(key=key, status=job.status, slots=job.slots, age=age, note=note, task_id=job.task_id)

    def _say(self, key: str, text: str) -> None:
        if self.on_note is not None:
            self.on_note(key, text)

    def _run(self, key: str, job: _Job) -> None:
        before = self._jobs.get(key)
        self._jobs[key] = job
        if before is None or before.status not in _RUNNING:
            self._crowd.change(1, self._clock())

    # What each event changes.

    def _waits(self, event: Waiting) -> None:
        self._jobs[event.key] = _Job("waiting", self._clock(), event.slots)

    def _submitted(self, event: Submitted) -> None:
        now = self._clock()
        self._submits.append(now)
        self._stopped.pop(event.account, None)
        self._trouble = None
        before = self._jobs.get(event.key)
        found = before is not None and before.status == "recovered"
        note = before.note if before is not None and found else ""
        status = "recovered" if found else "processing"
        self._run(event.key, _Job(status, now, event.slots, note, event.task_id))

    def _resumed(self, event: Resumed) -> None:
        note = "sent by an earlier run"
        self._run(event.key, _Job("processing", self._clock(), note=note, task_id=event.task_id))

    def _refused(self, event: Refused) -> None:
        job = self._jobs.setdefault(event.key, _Job("waiting", self._clock()))
        reason = "no free slot" if event.code == 1303 else "requests too fast"
        job.note = f"{event.code}: {reason}, the refusal is free"
        job.again = self._clock() + (event.pause or 0.0)
        self._say(event.key, job.note)

    def _retried(self, event: Retried) -> None:
        job = self._jobs.setdefault(event.key, _Job("waiting", self._clock()))
        job.note = f"{_short(event.error)} (try {event.attempt})"
        job.again = self._clock() + event.pause
        self._say(event.key, job.note)

    def _found(self, event: Recovered) -> None:
        self._recovered += 1
        job = self._jobs.get(event.key) or _Job("recovered", self._clock())
        note = "reply lost after sending; found by its external id, not sent twice"
        self._run(event.key, evolve(job, status="recovered", note=note, again=0.0))
        self._say(event.key, note)

    def _dropped(self, event: Dropped) -> None:
        job = self._jobs.get(event.key)
        if job is not None and job.status == "waiting":
            del self._jobs[event.key]

    def _fitted(self, event: PicturesFitted) -> None:
        for each in event.fitted:
            # The style of a thousand jobs is told once; the results have it for each.
            if each not in self._fits:
                self._fits.add(each)
                self._say(event.key, f"made to fit: {each}")

    def _requested(self, event: Requested) -> None:
        if event.route != "create":
            return
        told = str(event.error) if event.error is not None else _outage(event.code, event.status)
        since = self._trouble[1] if self._trouble else self._clock()
        self._trouble = (told, since) if told else None

    def _polled(self, event: Polled) -> None:
        self._polls += event.requests

    def _finished(self, event: Finished) -> None:
        job = self._jobs.get(event.key)
        if job is None or job.status not in _RUNNING:
            return
        now = self._clock()
        self._crowd.change(-1, now)
        # One that an earlier run sent may have ended at any time since.
        if event.seconds <= now - job.since + _A_MOMENT:
            self._tasks.add(event.seconds)
            if self._tasks.count == 1:
                # Until now the slots were filling.
                self._crowd.begin(now)
        self._jobs[event.key] = evolve(job, status="saving", since=now, note="")

    def _kept(self, _event: Saved) -> None:
        self._saved += 1

    def _lane_stopped(self, event: LaneStopped) -> None:
        self._stopped[event.account] = _short(event.error)
        self._say("", f"{event.account}: nothing more is sent: {event.error}")


def _short(error: KlingError) -> str:
    """Return what happened, by its code if there is one, and what to do."""
    if isinstance(error, TaskFailed):
        return f"the service says: {error.reason} (`retry` makes a new task)"
    if not isinstance(error, ApiError):
        return str(error)
    return f"{error.code or f'HTTP {error.http_status}'}: {error.remedy or error.message}"


def _outage(code: int, status: int) -> str:
    """Say what keeps the service from answering; empty if it answered, whatever it said of the job."""
    if code < 5000 and (code or status < 500):
        return ""
    row = CODES.get(code)
    return f"{code}: {row.meaning}" if row else f"HTTP {status}"
