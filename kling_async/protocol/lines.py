"""
Who waits for slots, and who is next.

Higher priorities first; among parties of one priority the one that holds least; within a party in the order of
asking. No look at the queue costs more than the number of different weights and parties in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from enum import Enum, auto
from itertools import takewhile

from attrs import Factory, define, field

__all__ = ["Lines", "Party", "State", "Ticket"]

# How many slots may pass a ticket that does not fit. Keeping room for it idles about weight / 2 * weight / limit slots for
# the time of a task, which a wait for twenty times that turns into a few per cent. In simulation a lane of 9 slots
# with n from 1 to 9 reaches 0.95 of the best packing from 8 times the weight on and gains nothing beyond 12.
_IDLE_WORTH = 20
_LEAST_PATIENCE = 2
_MOST_PATIENCE = 12
# Slots that go to another party, or to a lower priority, use that patience up faster.
_COST_OTHER = 4
_COST_LOWER = 12


class State(Enum):
    """Where a ticket stands."""

    WAITING = auto()
    ASKING = auto()  # holds its slots; its create is under way, or its fate is not known yet
    RUNNING = auto()  # holds its slots; its task exists


@define(eq=False)
class Ticket:
    """One create that waits for slots or holds them; all of a party that run and weigh the same are one ticket."""

    key: Hashable
    slots: int
    party: Party
    stamp: int = 0
    state: State = State.WAITING
    epoch: int = 0
    risky: bool = False
    passed: int = 0

    def let_pass(self, other: Ticket) -> None:
        """Note that *other* goes first, though this one is next."""
        if other.party is self.party:
            self.passed += other.slots
        else:
            self.passed += other.slots * (
                _COST_OTHER if other.party.level is self.party.level else _COST_LOWER
            )

    def has_no_patience(self, limit: int) -> bool:
        """Tell whether room must be kept for this ticket now, in a lane of *limit* slots."""
        fair = min(_MOST_PATIENCE * self.slots, _IDLE_WORTH * self.slots * self.slots // limit)
        return self.passed >= max(_LEAST_PATIENCE * self.slots, fair)


@define(eq=False)
class Party:
    """The tickets of one caller at one priority, a line for each weight."""

    key: Hashable
    level: Level
    held: int = 0
    turn: int = 0
    lines: dict[int, OrderedDict[Hashable, Ticket]] = Factory(dict)
    _running: dict[int, Ticket] = field(init=False, default=Factory(dict))

    def head(self) -> Ticket:
        """Return the ticket that asked first."""
        firsts = [next(iter(line.values())) for line in self.lines.values()]
        return firsts[0] if len(firsts) == 1 else min(firsts, key=_stamp)

    def first_of(self, slots: int) -> Ticket:
        """Return the first ticket of exactly this weight."""
        return next(iter(self.lines[slots].values()))

    def running(self, slots: int) -> Ticket:
        """Return what stands for every task of this weight: nothing tells one from another until it ends."""
        found = self._running.get(slots)
        if found is None:
            found = self._running[slots] = Ticket(None, slots, self, state=State.RUNNING)
        return found

    def end(self) -> None:
        """Let go of what refers back to this party."""
        self._running.clear()

    def widest(self, room: int) -> int:
        """Return the largest weight waiting that fits into *room*; zero if none does."""
        return max((slots for slots in self.lines if slots <= room), default=0)


@define(eq=False)
class Level:
    """The parties of one priority; *active* are those with someone waiting."""

    priority: int
    parties: dict[Hashable, Party] = Factory(dict)
    active: dict[Hashable, Party] = Factory(dict)
    blocked: Ticket | None = None

    def head(self) -> Ticket:
        """Return who is next; a ticket that has been passed stays next until it gets its slots."""
        if self.blocked is not None:
            return self.blocked
        return self._neediest(list(self.active.values())).head()

    def fitting(self, room: int) -> Ticket | None:
        """Return the largest ticket that fits into *room*, of the party that holds least."""
        parties = [party for party in self.active.values() if party.widest(room)]
        if not parties:
            return None
        party = self._neediest(parties)
        return party.first_of(party.widest(room))

    @staticmethod
    def _neediest(parties: list[Party]) -> Party:
        return parties[0] if len(parties) == 1 else min(parties, key=_need)


def _stamp(ticket: Ticket) -> int:
    return ticket.stamp


def _need(party: Party) -> tuple[int, int]:
    return party.held, party.turn


@define(eq=False)
class Lines:
    """All who wait at one lane."""

    count: int = field(init=False, default=0)
    _levels: dict[int, Level] = field(init=False, default=Factory(dict))
    _order: list[Level] = field(
        init=False, default=Factory(list)
    )  # with someone waiting, highest priority first
    _stamps: int = field(init=False, default=0)
    _turns: int = field(init=False, default=0)

    def __iter__(self) -> Iterator[Ticket]:
        for level in self._order:
            for party in level.active.values():
                for line in party.lines.values():
                    yield from line.values()

    def party(self, priority: int, key: Hashable) -> Party:
        """Return the party *key* at *priority*, new if need be."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = Level(priority)
        party = level.parties.get(key)
        if party is None:
            party = level.parties[key] = Party(key, level)
        return party

    def join(self, ticket: Ticket) -> None:
        """Put *ticket* at the end."""
        self._stamps += 1
        ticket.stamp = self._stamps
        self._line_of(ticket)[ticket.key] = ticket

    def rejoin(self, ticket: Ticket) -> None:
        """Put *ticket* back where it was before it left, ahead of all who asked after it."""
        line = self._line_of(ticket)
        older = list(takewhile(lambda other: other.stamp < ticket.stamp, line.values()))
        line[ticket.key] = ticket
        for key in (ticket.key, *(other.key for other in reversed(older))):
            line.move_to_end(key, last=False)
        level = ticket.party.level
        if level.blocked is not None and level.blocked.stamp > ticket.stamp:
            level.blocked = None

    def leave(self, ticket: Ticket) -> None:
        """Take *ticket* out, wherever it stands."""
        party = ticket.party
        level = party.level
        line = party.lines[ticket.slots]
        del line[ticket.key]
        self.count -= 1
        if level.blocked is ticket:
            level.blocked = None
        if not line:
            del party.lines[ticket.slots]
            if not party.lines:
                del level.active[party.key]
                if not level.active:
                    self._order.remove(level)

    def head(self) -> Ticket:
        """Return who is next; somebody must be waiting."""
        return self._order[0].head()

    def fitting(self, room: int) -> Ticket | None:
        """Return the largest ticket that fits into *room*, of the highest priority that has one."""
        return next((found for level in self._order if (found := level.fitting(room))), None)

    def smallest(self) -> Ticket:
        """Return the first of the smallest tickets of the highest priority."""
        party = min(self._order[0].active.values(), key=lambda party: (min(party.lines), *_need(party)))
        return party.first_of(min(party.lines))

    @staticmethod
    def block(head: Ticket) -> None:
        """Note that *head* does not fit: it stays next at its priority, whoever passes it."""
        head.party.level.blocked = head

    def hold(self, ticket: Ticket) -> None:
        """Count the slots of *ticket* as held by its party."""
        self._turns += 1
        ticket.party.held += ticket.slots
        ticket.party.turn = self._turns

    def drop(self, ticket: Ticket) -> None:
        """Count the slots of *ticket* as held no more."""
        ticket.party.held -= ticket.slots
        self.forget(ticket.party)

    def held_by(self, key: Hashable) -> int:
        """Return how many slots the party *key* holds, at all priorities."""
        parties = (level.parties.get(key) for level in self._levels.values())
        return sum(party.held for party in parties if party is not None)

    @staticmethod
    def forget(party: Party) -> None:
        """Keep no record of a party that holds nothing and waits for nothing: callers come and go."""
        if party.held == 0 and not party.lines:
            party.level.parties.pop(party.key, None)
            party.end()

    def _line_of(self, ticket: Ticket) -> OrderedDict[Hashable, Ticket]:
        party = ticket.party
        level = party.level
        self.count += 1
        if not party.lines:
            if not level.active:
                self._order.append(level)
                self._order.sort(key=lambda level: -level.priority)
            level.active[party.key] = party
        line = party.lines.get(ticket.slots)
        if line is None:
            line = party.lines[ticket.slots] = OrderedDict()
        return line
