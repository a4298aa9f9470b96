"""
How long tasks take, learned from those that ended, and so the ages at which looking is worth a request.

Durations from a millisecond to hours are counted in logarithmic bins, so nothing here knows whether a task takes
0.2 or 200 seconds. Every observation weighs a little more than the one before, which forgets old ones: after a
few hundred newer ones a habit of the service has been replaced.
"""

from __future__ import annotations

from itertools import accumulate
from math import inf, log2, sqrt

__all__ = ["Durations"]

_SHORTEST = 0.001  # seconds: the lower edge of the first bin
_PER_OCTAVE = 32  # bins: each is 2.2 % wide
_OCTAVES = 25  # up to about nine hours
_BINS = _PER_OCTAVE * _OCTAVES
_GROWTH = 1.0025  # each observation weighs that much more than the last: the newest 400 hold the balance
_HEAVIEST = 1e100  # weights are scaled down before they overflow
_ENOUGH = 8  # observations before the ages are trusted

_EARLY = 0.003  # of the tasks may end before the first look; they are seen by it
_LATE = 0.99  # of the tasks have ended when the others begin to count as stragglers
_RARE = 0.00015  # of the weight: a bin with less is not worth looking at
_PAUSE_BINS = (
    5  # a run of so many rare bins is a pause between two habits (quick refusals, then the pictures)
)

_UNKNOWN_GROWTH = 0.06  # of its age passes between two looks at a task while nothing is known
_STRAGGLER_GROWTH = 0.1  # of its delay passes between two looks at a straggler


class Durations:
    """
    An estimate of the distribution of durations that follows drift.

    *first_look* is the age in seconds of a first look before anything is known.
    """

    __slots__ = (
        "_first_look",
        "_late",
        "_learn_at",
        "_mean",
        "_pauses",
        "_seen",
        "_start",
        "_step",
        "_typical",
        "_weights",
    )

    def __init__(self, first_look: float) -> None:
        self._first_look = first_look
        self._weights = [0.0] * _BINS
        self._step = 1.0
        self._seen = 0
        self._learn_at = 1
        self._typical: float | None = None
        self._mean: float | None = None
        self._start = first_look
        self._late = inf
        self._pauses: tuple[tuple[float, float], ...] = ()

    def __repr__(self) -> str:
        return f"<Durations of {self._seen} tasks, typically {self._typical or 0.0:.3g} s>"

    def add(self, seconds: float) -> None:
        """Learn that a task took *seconds*."""
        octaves = log2(max(seconds, _SHORTEST) / _SHORTEST)
        self._weights[min(int(octaves * _PER_OCTAVE), _BINS - 1)] += self._step
        self._step *= _GROWTH
        self._seen += 1
        # Reading the bins costs as much as hundreds of observations, so it is done seldom once much is known.
        if self._seen >= self._learn_at:
            self._learn()
            self._learn_at = self._seen + max(1, min(self._seen // 8, 100))
        if self._step > _HEAVIEST:
            self._weights = [weight / self._step for weight in self._weights]
            self._step = 1.0

    def add_between(self, low: float, high: float) -> None:
        """
        Learn from a task that had not ended at the age *low* and had at *high*.

        With *low* 0 it ended before the first look: it is taken for shorter, so that the next ones are looked at earlier.
        """
        self.add((low + high) / 2 if low else 0.85 * high)

    @property
    def typical(self) -> float | None:
        """The median in seconds, None before the first task has ended."""
        return self._typical

    @property
    def mean(self) -> float | None:
        """The mean in seconds, None before the first task has ended."""
        return self._mean

    def next_look(self, age: float, interval: float) -> float:
        """
        Say at which age to look next at a task of *age* that has not ended; always later than *age*.

        *interval* is how long a finished task may stay unseen. Ages at which tasks do not end are passed over;
        a task older than nearly all others is asked less and less often.
        """
        if age < self._start:
            # Durations all alike are best looked at just after, not just before.
            return self._late if self._late - self._start <= interval / 2 else self._start
        for begin, end in self._pauses:
            if begin <= age < end:
                return max(age + interval, end)
        if self._seen < _ENOUGH:
            return age + max(interval, _UNKNOWN_GROWTH * age)
        return age + max(interval, _STRAGGLER_GROWTH * (age - self._late))

    def _learn(self) -> None:
        total = sum(self._weights)
        self._typical = _middle(self._quantile(total, 0.5))
        self._mean = sum(weight * _middle(at) for at, weight in enumerate(self._weights) if weight) / total
        if self._seen < _ENOUGH:
            return
        # Few observations have not shown the whole range yet.
        count = min(self._seen, 1 / (_GROWTH - 1))
        margin = int(19 / sqrt(count))
        first, last = self._quantile(total, _EARLY), self._quantile(total, _LATE)
        self._start = _edge(first - margin)
        self._late = _edge(last + 1)
        rare = _RARE * total
        self._pauses = tuple(_pauses(self._weights[first : last + 1], first, rare, margin))

    def _quantile(self, total: float, share: float) -> int:
        below = enumerate(accumulate(self._weights))
        # Rounding of the sum may leave nothing to find.
        return next((at for at, weight in below if weight >= share * total and self._weights[at]), _BINS - 1)


def _pauses(weights: list[float], first: int, rare: float, margin: int) -> list[tuple[float, float]]:
    """Find the runs of rare bins; *first* is the number of the first of *weights*, *margin* bins are left at the ends."""
    found = []
    since: int | None = None
    for at, weight in enumerate(weights, first):
        if weight <= rare:
            since = at if since is None else since
        elif since is not None:
            if at - since >= _PAUSE_BINS + 2 * margin:
                found.append((_edge(since + margin), _edge(at - margin)))
            since = None
    return found


def _edge(at: int) -> float:
    return float(_SHORTEST * 2.0 ** (at / _PER_OCTAVE))


def _middle(at: int) -> float:
    return _edge(at) * float(2.0 ** (0.5 / _PER_OCTAVE))
