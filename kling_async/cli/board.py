"""
What the views of a run show, gathered from events, outcomes and the batch's own statistics.

Pure but for the clock it is given. It holds only the jobs between being taken up and their end, so its size is that
of the account's slots, not of the manifest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import asdict, define, field, frozen

from kling_async.batch.outcomes import Failed, Outcome, Succeeded
from kling_async.batch.statistics import Statistics
from kling_async.errors import ApiError
from kling_async.protocol.events import (
    Event,
    Finished,
    LaneStopped,
    PicturesFitted,
    Polled,
    Recovered,
    Refused,
    Retried,
    Saved,
    Submitted,
    Waiting,
)
from kling_async.protocol.fitting import Fitted

__all__ = ["Board", "Failure", "JobLine", "Snapshot"]

RATE_WINDOW = 10.0  # seconds
KEPT_FAILURES = 8
# Most important first: a view that has little room shows the first ones.
_ORDER = {"recovered": 0, "processing": 1, "saving": 2, "waiting": 3}


@define(eq=False)
class _Job:
    status: str
    since: float
    slots: int = 0
    note: str = ""
    task_id: str = ""


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
    """A run at one moment, as views show it. *eta* is in seconds; None while nobody knows."""

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
    jobs: tuple[JobLine, ...] = ()
    failures: tuple[Failure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot for `--progress json`; names and units stay as they are here."""
        return asdict(self)


@define(eq=False)
class Board:
    """
    Gathers; one for each run.

    *total* counts the jobs to do and *images* their pictures, None while unknown; both may be set later.
    """

    _clock: Callable[[], float]
    total: int | None = None
    images: int | None = None
    on_note: Callable[[str, str], None] | None = None
    _jobs: dict[str, _Job] = field(factory=dict, init=False)
    _failures: deque[Failure] = field(factory=lambda: deque(maxlen=KEPT_FAILURES), init=False)
    _submits: deque[float] = field(factory=deque, init=False)
    _fits: set[Fitted] = field(factory=set, init=False)
    _polls: int = field(default=0, init=False)
    _recovered: int = field(default=0, init=False)
    _saved: int = field(default=0, init=False)
    _images_ended: int = field(default=0, init=False)
    _slot_seconds: float = field(default=0.0, init=False)
    _slots_finished: int = field(default=0, init=False)
    _changes: dict[type, Callable[[Any], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._changes = {
            Waiting: self._waits,
            Submitted: self._submitted,
            Refused: self._refused,
            Retried: self._retried,
            Recovered: self._found,
            Polled: self._polled,
            Finished: self._finished,
            Saved: self._kept,
            LaneStopped: self._stopped,
            PicturesFitted: self._fitted,
        }

    def see(self, event: Event) -> None:
        """Note *event*."""
        change = self._changes.get(type(event))
        if change is not None:
            change(event)

    def end(self, outcome: Outcome) -> None:
        """Note that a job ended."""
        self._jobs.pop(outcome.key, None)
        if isinstance(outcome, Succeeded | Failed) and outcome.job is not None:
            self._images_ended += outcome.job.n
        if isinstance(outcome, Failed):
            error = outcome.error
            short = (
                f"{error.code}: {error.remedy or error.message}"
                if isinstance(error, ApiError)
                else str(error)
            )
            self._failures.append(Failure(key=outcome.key, message=str(error), short=short))

    def snapshot(self, statistics: Statistics) -> Snapshot:
        """Return where the run stands."""
        now = self._clock()
        while self._submits and self._submits[0] < now - RATE_WINDOW:
            self._submits.popleft()
        lines = [_line(key, job, now) for key, job in self._jobs.items()]
        lines.sort(key=lambda line: (_ORDER.get(line.status, 9), -line.age))
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
            jobs=tuple(lines),
            failures=tuple(self._failures),
        )

    def _eta(self, statistics: Statistics, now: float) -> float | None:
        """
        Return the seconds to the end: slot-seconds that are left, over the slots that are used on average.

        The slot-seconds one picture takes are learned from finished tasks. Counting ended jobs alone would be wrong by a
        task's length at the start of a run and by more at its end.
        """
        if self.images is None or not self._slots_finished or statistics.slot_utilisation is None:
            return None
        if statistics.done == self.total:
            return None
        each = self._slot_seconds / self._slots_finished
        running = [job for job in self._jobs.values() if job.status in {"processing", "recovered"}]
        ages = [(job.slots, max(each - (now - job.since), each / 20)) for job in running]
        saving = sum(job.slots for job in self._jobs.values() if job.status == "saving")
        ahead = max(0, self.images - self._images_ended - saving - sum(slots for slots, _ in ages))
        used = max(1.0, statistics.slots * statistics.slot_utilisation)
        left = (ahead * each + sum(slots * seconds for slots, seconds in ages)) / used
        # Nobody ends before the last task that runs, or that is still to be sent.
        return max(left, each if ahead else 0.0, *(seconds for _, seconds in ages), 0.0)

    def _say(self, key: str, text: str) -> None:
        if self.on_note is not None:
            self.on_note(key, text)

    # What each event changes.

    def _waits(self, event: Waiting) -> None:
        self._jobs[event.key] = _Job("waiting", self._clock(), event.slots)

    def _submitted(self, event: Submitted) -> None:
        now = self._clock()
        self._submits.append(now)
        before = self._jobs.get(event.key)
        found = before is not None and before.status == "recovered"
        note = before.note if before is not None and found else ""
        status = "recovered" if found else "processing"
        self._jobs[event.key] = _Job(status, now, event.slots, note, event.task_id)

    def _refused(self, event: Refused) -> None:
        job = self._jobs.setdefault(event.key, _Job("waiting", self._clock()))
        reason = "no free slot" if event.code == 1303 else "requests too fast"
        when = f", next try in {event.pause:.1f} s" if event.pause else ""
        job.note = f"{event.code}: {reason}, the refusal is free{when}"
        self._say(event.key, job.note)

    def _retried(self, event: Retried) -> None:
        job = self._jobs.setdefault(event.key, _Job("waiting", self._clock()))
        code = f"{event.error.code} " if isinstance(event.error, ApiError) and event.error.code else ""
        job.note = f"{code}{type(event.error).__name__}: try {event.attempt + 1} in {event.pause:.1f} s"

    def _found(self, event: Recovered) -> None:
        self._recovered += 1
        job = self._jobs.setdefault(event.key, _Job("recovered", self._clock()))
        job.status = "recovered"
        job.note = "reply lost after sending; found by its external id, not sent twice"
        self._say(event.key, job.note)

    def _fitted(self, event: PicturesFitted) -> None:
        for each in event.fitted:
            # The style of a thousand jobs is told once; the results have it for each.
            if each not in self._fits:
                self._fits.add(each)
                self._say(event.key, f"made to fit: {each}")

    def _polled(self, event: Polled) -> None:
        self._polls += event.requests

    def _finished(self, event: Finished) -> None:
        job = self._jobs.get(event.key)
        if job is None:
            return
        self._slot_seconds += job.slots * event.seconds
        self._slots_finished += job.slots
        job.status, job.since = "saving", self._clock()

    def _kept(self, _event: Saved) -> None:
        self._saved += 1

    def _stopped(self, event: LaneStopped) -> None:
        self._say("", f"{event.account}: nothing more is sent: {event.error}")


def _line(key: str, job: _Job, now: float) -> JobLine:
    return JobLine(
        key=key,
        status=job.status,
        slots=job.slots,
        age=now - job.since,
        note=job.note,
        task_id=job.task_id,
    )
