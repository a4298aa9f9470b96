"""The books of a batch, and the statistics made of them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from attrs import define, field, frozen

from kling_async.batch.entries import Entry
from kling_async.batch.forecast import Lifetimes, seconds_left
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Failed, Outcome, Succeeded
from kling_async.batch.statistics import AccountStatistics, LaneStatistics, Statistics
from kling_async.client.engine import Engine
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Party, Turnstile
from kling_async.errors import BudgetSpent, KlingError
from kling_async.protocol.tasks import Task, TaskStatus

__all__ = ["Counts"]


@define
class _Tally:
    """The tasks that ended on one account."""

    succeeded: int = 0
    failed: int = 0
    units: Decimal = Decimal(0)


@frozen
class _Use:
    """What a client's lanes and sessions have done since they began."""

    held: float = 0.0
    offered: float = 0.0
    refusals: int = 0
    requests: int = 0


@define(eq=False)
class Counts:
    """What happened so far; one owner, the runner, changes it."""

    _engine: Engine
    _options: BatchOptions
    taken: int = field(default=0, init=False)
    in_flight: int = field(default=0, init=False)
    saving: int = field(default=0, init=False)
    succeeded: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    creates: int = field(default=0, init=False)
    images: int = field(default=0, init=False)
    units_committed: int = field(default=0, init=False)
    # The input is used up, so what was taken is all there is.
    complete: bool = field(default=False, init=False)
    _began: float = field(init=False)
    _ended: float | None = field(default=None, init=False)
    _before: _Use = field(factory=_Use, init=False)
    _after: _Use | None = field(default=None, init=False)
    _tallies: dict[str, _Tally] = field(factory=dict, init=False)
    # Of the tasks seen to end: how long they were in flight, their slots, and how late their end was seen.
    _lifetimes: Lifetimes = field(factory=Lifetimes, init=False)
    _lags: float = field(default=0.0, init=False)
    _weights: int = field(default=0, init=False)
    _timed_ends: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start the clock of the batch; what the client did before is not counted."""
        self._began = self._engine.clock.now()
        self._before = self._use(self._began)

    def commit(self, entry: Entry) -> None:
        """Count the units of *entry* as committed; raises `BudgetSpent` if that would pass the budget."""
        assert entry.job is not None, "rows that are no job have an error"
        budget, committed = self._options.budget, self.units_committed + entry.job.units
        if budget is not None and committed > budget:
            raise BudgetSpent(
                f"the budget is {budget} units and the next job would commit {committed}; raise it to continue",
                budget,
                self.units_committed,
            )
        self.units_committed = committed
        entry.committed = entry.job.units

    def take_back(self, entry: Entry) -> None:
        """Count the units of *entry* as committed no more."""
        self.units_committed -= entry.committed
        entry.committed = 0

    def has_room_again(self, error: BaseException | None) -> bool:
        """Tell whether *error* is a budget that was reached by jobs which were then not sent, so that it stopped nothing."""
        return isinstance(error, BudgetSpent) and self.units_committed < error.committed

    def saw_end(self, account: str, task: Task, row: Tracked) -> None:
        """Count the *task* of *row* on *account*, which has just been seen to have ended."""
        tally = self._tallies.setdefault(account, _Tally())
        good = task.status == TaskStatus.SUCCEED and bool(task.images)
        tally.succeeded += good
        tally.failed += not good
        tally.units += task.units or 0
        if row.since < self._began:
            # Sent by an earlier run: while nobody looked it may have ended at any time.
            return
        seconds = self._engine.clock.now() - row.since
        self._lifetimes.add(seconds)
        self._weights += row.expected
        if task.created_at is not None and task.updated_at is not None:
            self._lags += max(0.0, seconds - (task.updated_at - task.created_at).total_seconds())
            self._timed_ends += 1

    def count(self, outcome: Outcome) -> None:
        """Note the end of a job."""
        if isinstance(outcome, Succeeded):
            self.succeeded += 1
            self.images += len(outcome.files)
        elif isinstance(outcome, Failed):
            self.failed += 1
        else:
            self.skipped += 1

    def finish(self) -> None:
        """Stop the clock of the batch."""
        self._ended = self._engine.clock.now()
        self._after = self._use(self._ended)

    @property
    def done(self) -> int:
        """Jobs that ended, however."""
        return self.succeeded + self.failed + self.skipped

    def statistics(
        self,
        waiting_for: dict[str, float],
        ages: Sequence[float],
        party: Party,
        stopped_by: KlingError | None,
    ) -> Statistics:
        """
        Return where the batch stands.

        *waiting_for* names jobs in flight with their seconds; *ages* are the seconds of all tasks in flight, *party*
        is who holds their slots. *stopped_by* is why nothing more is taken from the input.
        """
        now = self._engine.clock.now()
        lanes = self._lanes()
        use = self._after or self._use(now)
        offered = use.offered - self._before.offered
        total = self.taken if self.complete else self._options.total
        return Statistics(
            seconds=(self._ended or now) - self._began,
            total=total,
            queued=self.taken - self.done - self.in_flight - self.saving - self.dropped,
            in_flight=self.in_flight,
            saving=self.saving,
            succeeded=self.succeeded,
            failed=self.failed,
            skipped=self.skipped,
            units=sum((tally.units for tally in self._tallies.values()), Decimal(0)),
            units_committed=self.units_committed,
            budget=self._options.budget,
            creates=self.creates,
            requests=use.requests - self._before.requests,
            refusals=use.refusals - self._before.refusals,
            images=self.images,
            slots=sum(turnstile.lane.limit for turnstile in lanes),
            slots_held=sum(turnstile.held for turnstile in lanes),
            slot_utilisation=(use.held - self._before.held) / offered if offered > 0 else None,
            eta=self._eta(total if stopped_by is None else self.taken, ages, party),
            lag=self._lags / self._timed_ends if self._timed_ends else None,
            accounts=tuple(_account(name, tally) for name, tally in self._tallies.items()),
            lanes=tuple(_lane(turnstile) for turnstile in lanes),
            waiting_for=waiting_for,
            stopped_by=stopped_by,
        )

    def _lanes(self) -> list[Turnstile]:
        return [turnstile for link in self._engine.links for turnstile in link.lanes.values()]

    def _use(self, now: float) -> _Use:
        lanes = self._lanes()
        return _Use(
            held=sum(each.slot_seconds(now) for each in lanes),
            offered=sum(each.lane.offered_seconds(now) for each in lanes),
            refusals=sum(each.lane.refusals for each in lanes),
            requests=sum(link.session.requests for link in self._engine.links),
        )

    def _eta(self, total: int | None, ages: Sequence[float], party: Party) -> float | None:
        if total is None or self._ended is not None:
            return None
        queued = total - self.done - self.dropped - self.in_flight - self.saving
        if not self._lifetimes.count:
            return 0.0 if total == self.done + self.dropped else None
        at_once = self._room(party) * self._lifetimes.count // self._weights
        return seconds_left(max(0, queued), ages, self._lifetimes, free=max(0, at_once - len(ages)))

    def _room(self, party: Party) -> int:
        """Say how many slots the jobs of *party* have now, and could have."""
        lanes = (
            turnstile
            for link in self._engine.links
            if link.stopped is None
            for turnstile in link.lanes.values()
        )
        return sum(
            # What the lane has granted and the store has not leased yet, nobody can use.
            max(0, each.lane.held_by(party) - (each.lane.held - each.held))
            + max(0, each.lane.limit - each.lane.held)
            for each in lanes
        )


def _account(name: str, tally: _Tally) -> AccountStatistics:
    return AccountStatistics(account=name, succeeded=tally.succeeded, failed=tally.failed, units=tally.units)


def _lane(turnstile: Turnstile) -> LaneStatistics:
    lane = turnstile.lane
    return LaneStatistics(
        account=turnstile.account,
        model=turnstile.model,
        slots=lane.limit,
        held=turnstile.held,
        waiting=turnstile.waiting,
        refusals=lane.refusals,
    )
