"""Where a batch stands, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from attrs import field, frozen

from kling_async.errors import KlingError

__all__ = ["AccountStatistics", "LaneStatistics", "Statistics"]


@frozen(kw_only=True)
class LaneStatistics:
    """One lane (account and model): slots believed and held, jobs in its queue, refusals (1303) so far."""

    account: str
    model: str
    slots: int
    held: int
    waiting: int
    refusals: int


@frozen(kw_only=True)
class AccountStatistics:
    """One account: the batch's tasks that ended there, how many of them with pictures, and the units they were charged."""

    account: str
    succeeded: int
    failed: int
    units: Decimal


@frozen(kw_only=True)
class Statistics:
    """
    A batch at one moment.

    Jobs are *queued* (taken from the input, not submitted), *in_flight* (a task runs), *saving*, or ended as
    *succeeded*, *failed* or *skipped*. *units* is what the service says was spent, *units_committed* what the accepted
    jobs cost if all succeed, *budget* the bound on that. *creates* counts accepted creates of the batch.

    *requests* and *refusals* (creates refused for want of slots) are those of the whole client while the batch runs, and
    so is *slot_utilisation*: the slot-seconds that tasks of this client held, the batch's and any other's, ÷ those that
    the believed limits of its lanes offered, from the start of the batch to now or its end. It includes the start, when
    slots fill, and the end, when there is nothing left to fill them with.

    *lag* is the mean of the seconds between the end of a task, by the service's `updated_at`, and our seeing it, None as
    long as no task told. It is taken between two durations, the service's and ours, so that clocks may differ; a sample
    is never below 0. *seconds* is since the start; *eta* the seconds to the end, None as long as nobody knows.
    *accounts* counts tasks by account (a job that was split counts once for each task), *lanes* shows what is known of
    the slots, and *waiting_for* names the jobs in flight for longest, with their seconds. *stopped_by* is why no more
    jobs are taken, None while they are: `BudgetSpent`, `BatchStopped` after `stop()`, trouble of the account. After the
    end it is None as well; what there was to raise, the iteration has raised.
    """

    seconds: float
    total: int | None = None
    queued: int = 0
    in_flight: int = 0
    saving: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    units: Decimal = Decimal(0)
    units_committed: int = 0
    budget: int | None = None
    creates: int = 0
    requests: int = 0
    refusals: int = 0
    images: int = 0
    slots: int = 0
    slots_held: int = 0
    slot_utilisation: float | None = None
    eta: float | None = None
    lag: float | None = None
    accounts: tuple[AccountStatistics, ...] = ()
    lanes: tuple[LaneStatistics, ...] = ()
    waiting_for: Mapping[str, float] = field(factory=dict)
    stopped_by: KlingError | None = None

    @property
    def done(self) -> int:
        """Jobs that ended, however."""
        return self.succeeded + self.failed + self.skipped
