"""The books of a batch, and the statistics made of them."""

from __future__ import annotations

from decimal import Decimal

from attrs import define, field

from kling_async.batch.entries import Entry
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Failed, Outcome, Succeeded
from kling_async.batch.statistics import LaneStatistics, Statistics
from kling_async.client.engine import Engine
from kling_async.client.turnstile import Turnstile
from kling_async.errors import BudgetSpent
from kling_async.protocol.tasks import Task

__all__ = ["Counts"]

# Seconds of finished jobs before the rate of a run says anything about its end.
_EARLIEST_ETA = 1.0


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
    units: Decimal = field(default=Decimal(0), init=False)
    units_committed: int = field(default=0, init=False)
    # The input is used up, so what was taken is all there is.
    complete: bool = field(default=False, init=False)
    _began: float = field(init=False)
    _ended: float | None = field(default=None, init=False)
    _first_end: float | None = field(default=None, init=False)
    _requests_before: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self._engine.clock.now()
        self._requests_before = self._requests()

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

    def spend(self, task: Task) -> None:
        """Add what the service says *task* cost."""
        self.units += task.units or 0

    def count(self, outcome: Outcome) -> None:
        """Note the end of a job."""
        if self._first_end is None:
            self._first_end = self._engine.clock.now()
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

    @property
    def done(self) -> int:
        """Jobs that ended, however."""
        return self.succeeded + self.failed + self.skipped

    def statistics(self, waiting_for: dict[str, float]) -> Statistics:
        """Return where the batch stands; *waiting_for* names jobs in flight with their seconds."""
        now = self._engine.clock.now()
        lanes = [turnstile for link in self._engine.links for turnstile in link.lanes.values()]
        used = sum(turnstile.lane.slot_seconds(now) for turnstile in lanes)
        offered = sum(turnstile.lane.offered_seconds(now) for turnstile in lanes)
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
            units=self.units,
            units_committed=self.units_committed,
            budget=self._options.budget,
            creates=self.creates,
            requests=self._requests() - self._requests_before,
            refusals=sum(turnstile.lane.refusals for turnstile in lanes),
            images=self.images,
            slots=sum(turnstile.lane.limit for turnstile in lanes),
            slots_held=sum(turnstile.lane.held for turnstile in lanes),
            slot_utilisation=used / offered if offered > 0 else None,
            eta=self._eta(total, now),
            lanes=tuple(_lane(turnstile) for turnstile in lanes),
            waiting_for=waiting_for,
        )

    def _requests(self) -> int:
        return sum(link.session.requests for link in self._engine.links)

    def _eta(self, total: int | None, now: float) -> float | None:
        if total is None or self._first_end is None or self._ended is not None:
            return None
        left = total - self.done - self.dropped
        elapsed = now - self._began
        if left <= 0 or elapsed < _EARLIEST_ETA:
            return 0.0 if left <= 0 else None
        # Jobs in flight are half done on average; without them the end would look farther at the start of a run.
        progress = self.done + self.in_flight / 2
        return elapsed * max(0.0, total - self.dropped - progress) / progress


def _lane(turnstile: Turnstile) -> LaneStatistics:
    lane = turnstile.lane
    return LaneStatistics(
        account=turnstile.account,
        model=turnstile.model,
        slots=lane.limit,
        held=lane.held,
        waiting=lane.waiting,
        refusals=lane.refusals,
    )
