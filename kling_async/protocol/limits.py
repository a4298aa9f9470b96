"""
What is known of a lane's limit, and how it is learned.

Every number here is a sum of slot weights. The limit moves by evidence only: down to what is held when the service
refuses (1303), up when a create beyond it was accepted.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import Factory, define, field, frozen
from attrs.validators import ge

from kling_async.errors import InvalidJob

__all__ = ["Change", "Estimate", "Limit", "NeverFits", "Reason"]

Reason: TypeAlias = Literal["refused", "probe", "pack"]

# The service names no number to an account without a readable pack; the smallest packs seen have 5 (2026-09).
_START = 5
# So few creates may be under way beyond what was ever seen to fit: their number bounds the refusals of a wrong belief.
_FIRST = 3
_MOST_LEARNING = 10
_MOST_STEPS = 16
# A refused probe is tried again after so many seconds, or when the whole lane has turned over once; both double.
_QUIET_SECONDS = 60.0


class NeverFits(InvalidJob):
    """A job weighs more slots than its lane can ever hold, so it would wait for ever."""

    @classmethod
    def of(cls, slots: int, ceiling: int) -> NeverFits:
        """Build the error for a job of *slots* on a lane that never holds more than *ceiling*."""
        rule = f"at most {ceiling}, the slots of the account for this model"
        remedy = "lower n, split the job, or raise the slots if the account has more"
        return cls(f"n: expected {rule}, found {slots}; {remedy}", "n", rule, str(slots), remedy)


@frozen
class Limit:
    """
    How many slots a lane has, and how sure that is.

    `fixed`: the caller said so. `known`: read from the name of a resource pack. Both are ceilings that are never
    passed, though tasks of other programs may take a share of them. `learned`: nobody said, so start low and probe.
    """

    kind: Literal["fixed", "known", "learned"]
    slots: int = field(validator=ge(1))

    @classmethod
    def fixed(cls, slots: int) -> Limit:
        """Take the caller's word for *slots*."""
        return cls("fixed", slots)

    @classmethod
    def known(cls, slots: int) -> Limit:
        """Take *slots* from the name of a resource pack."""
        return cls("known", slots)

    @classmethod
    def learned(cls, start: int = _START) -> Limit:
        """Begin with *start* and find the limit by trying; there is no ceiling."""
        return cls("learned", start)

    @property
    def ceiling(self) -> int | None:
        """What is never passed; None if nobody knows."""
        return None if self.kind == "learned" else self.slots


@frozen
class Change:
    """The believed limit moved from *before* to *after*."""

    before: int
    after: int
    reason: Reason


@define(eq=False)
class Estimate:
    """
    The believed limit of one lane.

    Up to *proven* slots were seen to be held at once; a create that goes beyond is *risky*, and few of those may be
    unanswered at a time. A learned limit is "ramping" until its first refusal: whenever it is full, the next ticket raises it.
    After a refusal one ticket at a time may stretch it, after a quiet period that doubles with each refusal; a
    stretched limit that lives through such a period may next be stretched by twice as many tickets.

    A refusal of a heavy ticket says only that the sum was too much. What was proven below that sum is not
    contradicted, so up to *hope* the limit comes back without a quiet period, as soon as a ticket makes use of it.
    """

    source: Limit
    limit: int = field(init=False)
    proven: int = field(init=False, default=0)
    hope: int = field(init=False, default=0)
    risky: int = field(init=False, default=0)
    ramping: bool = field(init=False)
    _turned: int = field(init=False, default=0)
    _since: float = field(init=False, default=0.0)
    _quiet: int = field(init=False, default=0)
    _step: int = field(init=False, default=1)
    _allowed: int = field(init=False, default=0)
    _on_trial: bool = field(init=False, default=False)
    _changes: list[Change] = field(init=False, default=Factory(list))

    def __attrs_post_init__(self) -> None:
        self.limit = self.source.slots
        self.ramping = self.source.ceiling is None

    @property
    def ceiling(self) -> int | None:
        """What the limit never passes; None if nobody knows."""
        return self.source.ceiling

    @property
    def at_ceiling(self) -> bool:
        """Tell whether the limit can rise no further."""
        return self.limit == self.source.ceiling

    @property
    def reach(self) -> int:
        """What may be held without a quiet period."""
        return max(self.limit, self.hope)

    @property
    def may_risk(self) -> bool:
        """Tell whether one more create beyond *proven* may be under way."""
        if self.risky < _FIRST:
            return True
        certain = self.source.ceiling is not None
        return self.risky < (self.proven // 2 if certain else min(self.proven // 8, _MOST_LEARNING))

    def may_stretch(self, total: int, now: float) -> bool:
        """Tell whether the limit may be raised to *total* as a probe now, while it is full."""
        ceiling = self.source.ceiling
        if ceiling is not None and total > ceiling:
            return False
        return self.ramping or self._allowed > 0 or self._is_quiet(now)

    def next_stretch(self, now: float) -> float | None:
        """Tell when a full lane may stretch if no event comes before; None if it cannot or may already."""
        at = self._since + self._quiet * _QUIET_SECONDS
        return at if at > now and not self.ramping and not self.at_ceiling else None

    def stretch(self, total: int, now: float) -> None:
        """Raise the limit to *total*, because a ticket that needs it is being sent."""
        free = self.ramping or total <= self.hope
        self._move(total, "probe")
        if free:
            return
        if self._allowed == 0:
            if self._on_trial:
                self._step = min(self._step * 2, 2 if self.ceiling is None else _MOST_STEPS)
                self._quiet = max(1, self._quiet // 2)
            self._allowed, self._on_trial = self._step, True
        self._allowed -= 1
        self._turned, self._since = 0, now

    def move_alone(self, total: int) -> None:
        """Raise the limit to *total* because a ticket is sent while nothing is held: the only way to learn then."""
        self._move(max(self.limit, total), "probe")

    def prove(self, held: int) -> None:
        """Note that the service was seen to hold *held* slots at once."""
        self.proven = max(self.proven, min(held, self.limit))

    def doubt(self, held: int) -> None:
        """Forget what was proven beyond *held*, so that a service that comes back is not run over."""
        self.proven = min(self.proven, held)

    def turn_over(self, slots: int) -> None:
        """Note that a task of *slots* ended."""
        self._turned += slots

    def lower(self, held: int, slots: int, now: float, *, fresh: bool) -> None:
        """
        Come down to what is *held* after a ticket of *slots* was refused.

        *fresh* tells that it belongs to no burst already counted.
        """
        self.hope = min(max(self.hope, self.proven), held + slots - 1)
        self._move(min(self.limit, max(1, held)), "refused")
        self.proven = min(self.proven, self.limit)
        self.ramping = False
        self._on_trial, self._step, self._allowed = False, 1, 0
        self._turned, self._since = 0, now
        if fresh:
            self._quiet = max(1, min(self._quiet * 2, self._longest()))

    def replace(self, source: Limit) -> None:
        """Take *source* as the new word on the limit; what a refusal has taught stays until probed again."""
        learned = self._quiet > 0
        self.source = source
        after = min(self.limit, source.slots) if learned else source.slots
        self.ramping = source.ceiling is None and not learned
        self._move(after, "pack")
        self.proven, self.hope = min(self.proven, self.limit), min(self.hope, self.limit)

    def drain_changes(self) -> list[Change]:
        """Hand over the changes since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def _is_quiet(self, now: float) -> bool:
        return self._turned >= self._quiet * self.limit or now >= self._since + self._quiet * _QUIET_SECONDS

    def _longest(self) -> int:
        # A ceiling somebody named is worth asking for again, at under one refusal in a hundred creates; a learned one
        # has no such claim, and doubling without end keeps its refusals logarithmic.
        return 1 << 20 if self.ceiling is None else max(16, 256 // self.limit)

    def _move(self, after: int, reason: Reason) -> None:
        if after != self.limit:
            self._changes.append(Change(self.limit, after, reason))
            self.limit = after
