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
# What somebody named, or was held before, is worth asking for again: at under one refusal in a hundred creates, and at
# least so often. Beyond what was ever held quiet periods double without end, which keeps the refusals logarithmic.
_LONGEST_QUIET = 600.0


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
    unanswered at a time. A learned limit is "ramping" until its first refusal: whenever it is full, the next ticket
    raises it. After a refusal one ticket may stretch it, after a quiet period that doubles with each refusal; a
    stretched limit that lives through such a period may next be stretched by twice as many tickets.

    A refusal of a heavy ticket says only that the sum was too much. What was proven below that sum is not
    contradicted, so up to *hope* the limit comes back without a quiet period, as soon as a ticket makes use of it.
    The sum itself is a wall: a ticket that alone weighs as much waits for a quiet period, and lighter ones pass it.
    """

    source: Limit
    limit: int = field(init=False)
    proven: int = field(init=False, default=0)
    hope: int = field(init=False, default=0)
    risky: int = field(init=False, default=0)
    ramping: bool = field(init=False)
    _wall: int | None = field(init=False, default=None)
    _best: int = field(init=False, default=0)
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

    def worth_trying(self, slots: int, now: float) -> bool:
        """Tell whether a ticket of *slots* may be sent alone, or kept room for: not if as much was refused of late."""
        return self._wall is None or slots < self._wall or self._is_quiet(now)

    def next_stretch(self, now: float) -> float | None:
        """Tell when a full lane may stretch if no event comes before; None if it cannot or may already."""
        at = self._quiet_ends()
        return at if at > now and not self.ramping and not self.at_ceiling else None

    def stretch(self, total: int, now: float) -> None:
        """Raise the limit to *total*, because a ticket that needs it is being sent."""
        free = self.ramping or total <= self.hope
        self._move(total, "probe")
        if free:
            return
        if self._allowed == 0:
            if self._on_trial:
                self._step = min(self._step * 2, _MOST_STEPS if self._held_before() else 2)
                self._quiet = max(1, self._quiet // 2)
            self._allowed, self._on_trial = self._step, True
        self._allowed -= 1
        self._turned, self._since = 0, now

    def stretch_alone(self, total: int, now: float) -> None:
        """Raise the limit to *total*, because a ticket that needs it is being sent while nothing is held."""
        self._move(total, "probe")
        self._turned, self._since = 0, now

    def prove(self, held: int) -> None:
        """Note that the service was seen to hold *held* slots at once."""
        self.proven = max(self.proven, min(held, self.limit))
        self._best = max(self._best, self.proven)
        if self._wall is not None and held >= self._wall:
            self._wall = None

    def doubt(self, held: int) -> None:
        """Forget what was proven beyond *held*, so that a service that comes back is not run over."""
        self.proven = min(self.proven, held)

    def turn_over(self, slots: int) -> None:
        """Note that a task of *slots* ended."""
        self._turned += slots

    def lower(self, held: int, slots: int, now: float, *, fresh: bool) -> None:
        """
        Come down to what is *held* after a ticket of *slots* was refused.

        *fresh* tells that it belongs to no burst already counted. Only what was tried beyond the limit makes the
        quiet period longer: others may take our slots one by one, and give them back at once.
        """
        total = held + slots
        tried = self._on_trial or (self._wall is not None and total >= self._wall)
        self._wall = total if self._wall is None else min(self._wall, total)
        self.hope = min(max(self.hope, self.proven), total - 1)
        self._move(min(self.limit, max(1, held)), "refused")
        # Tasks that have ended unseen make the lane believe to hold a little more than the service counts, so the
        # last slots below a limit that was refused are proven anew, not taken by a herd.
        self.proven = min(self.proven, self.limit - self.limit // 50)
        self.ramping = False
        self._on_trial, self._step, self._allowed = False, 1, 0
        self._turned, self._since = 0, now
        if fresh and (tried or self._quiet == 0):
            self._quiet = max(1, self._quiet * 2)

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
        turns = min(self._quiet, max(16, 128 // self.limit)) if self._held_before() else self._quiet
        return self._turned >= turns * self.limit or now >= self._quiet_ends()

    def _quiet_ends(self) -> float:
        pause = self._quiet * _QUIET_SECONDS
        return self._since + (min(pause, _LONGEST_QUIET) if self._held_before() else pause)

    def _held_before(self) -> bool:
        return self.ceiling is not None or self.limit < 0.9 * self._best

    def _move(self, after: int, reason: Reason) -> None:
        if after != self.limit:
            self._changes.append(Change(self.limit, after, reason))
            self.limit = after
