"""
How fast to ask: the interval between turns, the budget of single requests, and the pause after failures.

The interval is the largest of three: the caller's minimum, a fiftieth of a typical duration (more often would win nothing),
and what thrift asks for; where callbacks tell of every end, a *stretch* times that. Thrift keeps the requests sent during a mean duration under a line drawn over the tasks in
flight: 16 for 9 tasks, 36 for 50, 25 for 100, 105 for 5,000, that is 1.8, 0.7, 0.25 and 0.021 a job.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf

from attrs import define

__all__ = ["Backoff", "Bucket", "Pace"]

_PRECISION = 0.02  # of a typical duration
_LAZIEST = 0.12  # of a mean duration: the longest interval that thrift leads to
_MEMORY = 0.9  # weight of the earlier turns in the cost of a turn
_LONGEST_GAP = 20.0  # intervals without a turn that count as such; an idle night says nothing about cost
# Tasks in flight, and requests allowed during a mean duration. One task may be looked at often, since somebody
# waits for it; a thousand fill the slots of a large account, where delay is dear and a page shows hundreds. Fifty are
# the slots of a usual pack, kept full by looking as often as precision wants.
_LINE = (
    (1, 24.0),
    (9, 16.0),
    (50, 36.0),
    (100, 25.0),
    (1000, 80.0),
    (5000, 105.0),
    (20_000, 300.0),
    (100_000, 1000.0),
)
_ROUNDING = 1e-6  # of a token: what rounding may take from a whole one
_LONGEST_HOLD = 60.0  # seconds without requests after failures


@define(eq=False)
class Pace:
    """The *interval* between turns; never under *min_interval*, and *thrift* 0 saves no requests."""

    min_interval: float
    max_interval: float
    thrift: float
    interval: float
    next_turn: float = -inf
    stretch: float = 1.0
    _last_turn: float = -inf
    _spent: int = 0
    _requests: float = 0.0
    _elapsed: float = 0.0

    def spend(self, requests: int) -> None:
        """Count requests that the plan chose."""
        self._spent += requests

    def turn(self, now: float, waiting: int, typical: float, mean: float, dice: float) -> None:
        """Take a turn for *waiting* tasks of *typical* (median) and *mean* duration, and settle when the next may come."""
        gap = min((now - self._last_turn) / self.interval, _LONGEST_GAP)
        self._requests = _MEMORY * self._requests + self._spent
        self._elapsed = _MEMORY * self._elapsed + gap
        self._spent = 0
        self._last_turn = now
        share = self.thrift * self._requests / self._elapsed / _allowed(waiting) if self._elapsed else 0.0
        wished = max(self.min_interval, _PRECISION * typical, mean * min(share, _LAZIEST))
        self.interval = min(wished * self.stretch, self.max_interval)
        # Not on a beat: several programs on one account must not fall into step.
        self.next_turn = now + self.interval * (0.97 + 0.06 * dice)


def _allowed(waiting: int) -> float:
    for (few, least), (many, most) in pairwise(_LINE):
        if waiting <= many:
            return least + (most - least) * (waiting - few) / (many - few)
    return _LINE[-1][1]


@define(eq=False)
class Bucket:
    """A token bucket: *rate* tokens a second, never more than *capacity* at once."""

    rate: float
    capacity: float
    tokens: float
    _at: float = -inf

    @classmethod
    def of(cls, rate: float) -> Bucket:
        """Fill a bucket that holds a quarter of a second, one token at least."""
        capacity = max(1.0, rate / 4)
        return cls(rate, capacity, capacity)

    def refill(self, now: float) -> int:
        """Let time pass and return how many whole tokens there are."""
        if now > self._at:
            self.tokens = min(self.capacity, self.tokens + (now - self._at) * self.rate)
            self._at = now
        return int(self.tokens + _ROUNDING)

    def take(self, count: int) -> None:
        """Take *count* tokens that are there."""
        self.tokens -= count

    def wait(self, count: int) -> float:
        """Say after how many seconds it is worth looking for *count* tokens, or half a bucketful if that is less."""
        # Half a bucket at a time: a wake-up costs the loop as much as a request.
        need = min(count, max(1, int(self.capacity / 2)))
        return max(0.0, need - self.tokens) / self.rate


@define(eq=False)
class Backoff:
    """A pause shared by all requests after failures; it doubles with each round that failed."""

    until: float = -inf
    _rounds: int = 0

    def fail(self, now: float, unit: float, dice: float, retry_after: float | None) -> None:
        """Hold for about *unit* seconds, twice that the next time; the service's own *retry_after* counts up to a minute."""
        if now >= self.until:  # else it belongs to the round that failed already
            pause = min(_LONGEST_HOLD, unit * 2.0 ** min(self._rounds, 30)) * (0.75 + 0.5 * dice)
            self.until = now + pause
            self._rounds += 1
        if retry_after is not None:
            self.until = max(self.until, now + min(retry_after, _LONGEST_HOLD))

    def succeed(self) -> None:
        """Begin anew after an answer; a pause that is running is kept."""
        self._rounds = 0
