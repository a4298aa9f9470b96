"""
How long a lane keeps quiet after a refusal, and how fast it may create after "too many requests".

Pure: the time is given, and so is the jitter, as *dice* in [0, 1).
"""

from __future__ import annotations

from math import isfinite

from attrs import define, field

__all__ = ["Cooldown", "Gate"]

# The vendor's concurrency rules ask for exponential backoff from at least one second (page of 2026-09).
_SHORTEST = 1.0
_LONGEST = 60.0
# A shell that wakes up late may catch up on this much of its allowance, no more, or a late timer makes a herd.
_CATCH_UP = 0.25
_SLOWEST = 0.2


@define(eq=False)
class Cooldown:
    """
    A pause shared by a whole lane.

    *epoch* counts the pauses: an answer to a create from before the last pause is no news and does not lengthen it.
    """

    until: float | None = field(init=False, default=None)
    epoch: int = field(init=False, default=0)
    _strikes: int = field(init=False, default=0)
    _breakable: bool = field(init=False, default=False)
    _freed: int = field(init=False, default=0)

    def strike(self, now: float, dice: float, retry_after: float | None, *, breakable: bool) -> None:
        """Begin the next, longer pause; a *breakable* one ends early when a slot of ours is released."""
        self._strikes += 1
        self.epoch += 1
        asked = sane(retry_after)
        top = min(_LONGEST, 2.0 ** min(self._strikes, 6))
        pause = _SHORTEST + dice * (top - _SHORTEST) if asked is None else asked
        self.until = now + pause
        self._breakable = breakable and asked is None
        self._freed = 0

    def extend(self, now: float, retry_after: float | None) -> None:
        """Take a late answer of the same burst into account: only a longer time the service asks for counts."""
        asked = sane(retry_after)
        if asked is not None and self.until is not None and now + asked > self.until:
            self.until, self._breakable = now + asked, False

    def open(self, now: float) -> float | None:
        """End the pause if it is over; else tell until when it lasts."""
        if self.until is not None and now >= self.until:
            self.until = None
        return self.until

    def interrupt(self, freed: int, held: int) -> None:
        """
        End the pause because *freed* of *held* slots of ours became free, unless the service named its length.

        When probe after probe is refused, somebody else takes what we free; then it takes twice as many each time, up
        to half of what is held.
        """
        self._freed += freed
        if self._breakable and self._freed >= min(2 ** max(0, self._strikes - 2), max(1, held // 2)):
            self.until = None

    def forgive(self) -> None:
        """Start again from the shortest pause."""
        self._strikes = 0


def sane(retry_after: float | None) -> float | None:
    """Return the seconds to wait that a service asks for, at most 60; None if it asks for nothing sensible."""
    if retry_after is None or not isfinite(retry_after) or retry_after <= 0:
        return None
    return min(retry_after, _LONGEST)


@define(eq=False)
class Gate:
    """A limit on creates per second: wide open until the service complains, then halved, then slowly wider again."""

    rate: float | None = field(init=False, default=None)
    _peak: float = field(init=False, default=1.0)
    _next: float = field(init=False, default=0.0)
    _second: int = field(init=False, default=0)
    _count: int = field(init=False, default=0)
    _count_before: int = field(init=False, default=0)

    def wait_until(self, now: float) -> float | None:
        """Tell when the next create may leave; None if it may now."""
        return self._next if self.rate is not None and now < self._next else None

    def passed(self, now: float) -> None:
        """Note that a create leaves *now*."""
        second = int(now)
        if second != self._second:
            self._count_before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        self._count += 1
        if self.rate is not None:
            self._next = max(self._next, now - _CATCH_UP) + 1.0 / self.rate

    def narrow(self) -> None:
        """Halve the rate: the one allowed, or the one just used."""
        if self.rate is None:
            self._peak = float(max(1, self._count, self._count_before))
            self.rate = self._peak
        self.rate = max(_SLOWEST, self.rate / 2)

    def widen(self) -> None:
        """
        Add to the rate after an accepted create: about a twentieth of the old peak for each second.

        At twice the old peak the gate stands open again.
        """
        if self.rate is None:
            return
        self.rate += min(self.rate, max(0.1, self._peak / 20) / self.rate)
        if self.rate >= 2 * self._peak:
            self.rate = None
