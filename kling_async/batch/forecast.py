"""
When a run will end, from what is known of it: pure arithmetic.

Three things decide: how many jobs are still to begin, how long the jobs take, and how much that varies. Dividing work by
rate forgets that the last jobs take their whole time, and that among many the slowest takes longer than most.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from attrs import define, field, frozen

__all__ = ["Crowd", "Lifetimes", "seconds_left"]

_SHORTEST = 0.001  # seconds: all below are counted together
_PER_OCTAVE = 32  # bins: each is 2.2 % wide
_HALVINGS = 20
_HALF_LIFE = 120.0  # seconds: what was so long ago counts half


def seconds_left(queued: int, ages: Sequence[float], lifetimes: Lifetimes, *, free: int = 0) -> float:
    """
    Say in how many seconds the last job ends.

    *ages* are the seconds for which the jobs in flight have run, *queued* how many more are to come, *free* how many of
    them could begin now. Jobs that end make room for those queued, one for one, so the last one begins where that many
    ends from now there is an end.
    """
    known = lifetimes.curve(ages)
    left = sorted([known.residual(age) for age in ages] + [0.0] * min(free, queued))
    if not queued:
        return known.last_of(ages)
    if not left:
        return known.mean
    rounds, place = divmod(queued - 1, len(left))
    last = left[place] + (rounds + 1) * known.mean
    last += known.spread(len(left)) * min(1.0, queued / len(left))
    # However the rest falls, all of it must be done by the places there are, and the last of those that run must end.
    return max(last, (sum(left) + queued * known.mean) / len(left), known.last_of(ages))


def _lateness(age: float, last: float) -> float:
    """Guess what a job has before it that is older than the *last* one that ended: as much again as it is late."""
    return max(0.0, age - last)


def _bin(seconds: float) -> int:
    return int(math.log2(max(seconds, _SHORTEST) / _SHORTEST) * _PER_OCTAVE)


@define(eq=False, repr=False)
class Lifetimes:
    """How long the jobs of one run took; counted in logarithmic bins, so that a million of them weigh nothing."""

    _bins: dict[int, tuple[int, float]] = field(factory=dict, init=False)
    count: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<Lifetimes of {self.count} jobs>"

    def add(self, seconds: float) -> None:
        """Learn that a job took *seconds*; none takes no time at all, whatever a coarse clock says."""
        seconds = max(seconds, _SHORTEST)
        count, total = self._bins.get(_bin(seconds), (0, 0.0))
        self._bins[_bin(seconds)] = (count + 1, total + seconds)
        self.count += 1

    def curve(self, ages: Sequence[float] = ()) -> Curve:
        """
        Return how long jobs take, as far as is known; *ages* are those of the jobs that have not ended.

        Those count as well (Kaplan and Meier, 1958): by a quarter of a run mostly quick jobs have ended, and taking them
        for typical would promise too much.
        """
        ends = [(total / count, count) for _, (count, total) in sorted(self._bins.items())]
        old = sorted(ages)
        at_risk, share = self.count + len(old), 1.0
        points, shares = [], []
        for seconds, count in ends:
            exposed = at_risk - bisect_right(old, seconds)
            ended = share * count / max(exposed, count)
            points.append(seconds)
            shares.append(ended)
            share -= ended
            at_risk -= count
        if share > 1e-9 or not points:
            last = points[-1] if points else 0.0
            oldest = max([*old[-1:], last, _SHORTEST])
            points.append(oldest + _lateness(oldest, last))
            shares.append(share)
        return Curve(tuple(points), tuple(shares))


@frozen
class Curve:
    """What part (*shares*) of the jobs ends at which ages (*points*, ascending, in seconds)."""

    points: tuple[float, ...]
    shares: tuple[float, ...] = field(repr=False)
    mean: float = field(init=False)
    # Of the jobs, how many last beyond the point before that number; and the sum of what they take.
    _beyond: tuple[float, ...] = field(init=False, repr=False)
    _sums: tuple[float, ...] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        weighted = [point * share for point, share in zip(self.points, self.shares, strict=True)]
        beyond = [*accumulate(reversed(self.shares)), 0.0][: len(self.shares)]
        object.__setattr__(self, "_beyond", (*reversed(beyond), 0.0))
        object.__setattr__(self, "_sums", (*reversed(list(accumulate(reversed(weighted)))), 0.0))
        object.__setattr__(self, "mean", sum(weighted))

    def typical(self) -> float:
        """Return the median in seconds."""
        return next(point for point, left in zip(self.points, self._beyond[1:], strict=True) if left <= 0.5)

    def residual(self, age: float) -> float:
        """Return how many seconds a job of *age* has before it, on average."""
        at = bisect_right(self.points, age)
        if self._beyond[at] <= 0:
            return _lateness(age, self.points[-1])
        return self._sums[at] / self._beyond[at] - age

    def last_of(self, ages: Sequence[float]) -> float:
        """Return in how many seconds, as likely as not, the last job of those with *ages* ends."""
        # Ages are counted in bins too: a thousand jobs are in two hundred.
        groups = Counter(map(_bin, ages))
        typical = {_bin(age): age for age in ages}
        low, high = 0.0, max([*self.points, *ages])
        if not groups:
            return 0.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            likely = 1.0
            for group, count in groups.items():
                likely *= self._ended_after(typical[group], middle) ** count
            low, high = (low, middle) if likely >= 0.5 else (middle, high)
        return high

    def _ended_after(self, age: float, seconds: float) -> float:
        """Say how likely a job of *age* ends within *seconds* from now."""
        now = self._beyond[bisect_right(self.points, age)]
        if now <= 0:
            return float(seconds >= _lateness(age, self.points[-1]))
        return 1 - self._beyond[bisect_right(self.points, age + seconds)] / now

    def spread(self, places: int) -> float:
        """
        Say by how many seconds the end of a run on *places* slots differs from that of jobs of one length, on average.

        When the last job begins, the others are in the midst of theirs: the slowest of them ends later the more they
        vary, and the last one begins earlier, because what the slow ones hold is not yet done.
        """
        square = sum(share * point**2 for point, share in zip(self.points, self.shares, strict=True))
        held = square / (2 * self.mean)
        median = math.pow(0.5, 1 / places)
        return self._rest_at(median) - median * self.mean - (held - self.mean / 2)

    def _rest_at(self, share: float) -> float:
        """Return the seconds within which that *share* of the jobs ends that are in the midst of theirs."""
        wanted, before = share * self.mean, 0.0
        for point, beyond in zip(self.points, self._beyond, strict=False):
            if wanted <= beyond * (point - before):
                return before + wanted / beyond
            wanted -= beyond * (point - before)
            before = point
        return before


@define(eq=False)
class Crowd:
    """How many jobs ran at once lately: what an account gives in fact, whatever its limit is believed to be."""

    _running: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)
    # Job-seconds and seconds, of which old ones fade.
    _area: float = field(default=0.0, init=False)
    _time: float = field(default=0.0, init=False)

    def begin(self, now: float) -> None:
        """Forget what was."""
        self._area, self._time, self._since = 0.0, 0.0, now

    def change(self, by: int, now: float) -> None:
        """Note that *by* more jobs run from *now* on."""
        self._pass_to(now)
        self._running += by

    def usual(self, now: float) -> float:
        """Return how many ran on average."""
        self._pass_to(now)
        return self._area / self._time if self._time else float(self._running)

    def _pass_to(self, now: float) -> None:
        passed, self._since = now - self._since, now
        kept = math.pow(0.5, passed / _HALF_LIFE)
        self._area = self._area * kept + self._running * passed
        self._time = self._time * kept + passed
