"""
The lane: who may create now, on one account and one model.

Pure: no clock, no dice, no tasks. The shell tells what happened and when, then asks *grant()* who may create.

A ticket is WAITING (asked), ASKING (granted; its create is under way or its fate not known yet), RUNNING (its task
exists) or gone. ASKING and RUNNING tickets hold their slots; nothing but *release()* or a refusal gives them back.

    ask ──> WAITING ──grant──> ASKING ──accepted──> RUNNING ──release──> gone
               │  ▲               │  └──────release (the create never happened)──> gone
               │  └──refused, throttled, paused: back to its old place in the queue
               └──withdraw──> gone                     adopt ──> RUNNING

The lane itself is OPEN (everybody who fits is granted), COOLING (nobody until a time; a release of ours ends it
early unless the service named the time) or PROBING (one single create may be under way; once it is accepted:
OPEN). Any refusal, throttle or pause leads to COOLING, the end of that to PROBING. Independently it may be stopped:
nobody is granted, all else goes on.

What is guaranteed:
- A grant never makes the held weights pass the believed limit. They are above it only after *adopt()* or when the
  limit came down, and then nothing is granted until they are below.
- The limit rises only by sending a ticket that waits and does not fit, never over a ceiling. Few creates at a time
  go beyond what was ever seen to be held, so a limit that is believed wrongly costs few refusals.
- The next in line may be passed by others that fit for a bounded number of slots; then room is kept for it, unless
  as much as it weighs was refused a moment ago.
- While nothing is held, one ticket may always be tried alone, at the pace of the cool-down.
- A cancelled caller withdraws a WAITING ticket at any moment without a trace. It must not release an ASKING one
  before it is known that the create did not happen: an unanswered create may be a task that holds slots.
- No call costs more than the tickets it grants and the number of different weights and parties waiting.
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import Factory, define, field

from kling_async.protocol.gates import Cooldown, Gate
from kling_async.protocol.limits import Change, Estimate, Limit, NeverFits
from kling_async.protocol.lines import Lines, State, Ticket

__all__ = ["Lane", "Limit", "NeverFits"]


@define(eq=False, repr=False)
class Lane:
    """The weighted slots of one account and model."""

    _first_limit: Limit
    _estimate: Estimate = field(init=False)
    _lines: Lines = field(init=False, default=Factory(Lines))
    _tickets: dict[Hashable, Ticket] = field(init=False, default=Factory(dict))
    _cooldown: Cooldown = field(init=False, default=Factory(Cooldown))
    _gate: Gate = field(init=False, default=Factory(Gate))
    _probing: bool = field(init=False, default=False)
    _probe: Ticket | None = field(init=False, default=None)
    _running: int = field(init=False, default=0)
    _used: float = field(init=False, default=0.0)
    _offered: float = field(init=False, default=0.0)
    _counted_at: float | None = field(init=False, default=None)
    held: int = field(init=False, default=0)
    refusals: int = field(init=False, default=0)
    throttles: int = field(init=False, default=0)
    refused_since: float | None = field(init=False, default=None)
    full_since: float | None = field(init=False, default=None)
    stopped: object | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._estimate = Estimate(self._first_limit)

    # -- the queue

    def ask(
        self, ticket: Hashable, slots: int, now: float, *, priority: int = 0, party: Hashable = None
    ) -> None:
        """
        Join the queue for *slots*, to be named by *grant()* in its turn.

        A higher *priority* goes first. Parties of equal priority (a batch, the single creates of an application)
        share the slots evenly; they should be few. Raises `NeverFits` if the lane can never hold so many,
        `ValueError` if *ticket* is in the lane already or *slots* is not positive.
        """
        if slots < 1:
            raise ValueError(f"expected a ticket of at least one slot, found {slots}")
        ceiling = self._estimate.ceiling
        if ceiling is not None and slots > ceiling:
            raise NeverFits.of(slots, ceiling)
        self._lines.join(self._enter(ticket, slots, priority, party))
        if self._counted_at is None:
            self._counted_at = now

    def withdraw(self, ticket: Hashable, now: float) -> bool:
        """Leave the queue; False if *ticket* was not waiting, for example because it was granted a moment ago."""
        found = self._tickets.get(ticket)
        if found is None or found.state is not State.WAITING:
            return False
        self._count(now)
        self._lines.leave(found)
        self._lines.forget(found.party)
        del self._tickets[ticket]
        return True

    def grant(self, now: float) -> tuple[list[Hashable], float | None]:
        """
        Name those who may create now, in order, and when to ask again if nothing happens before.

        They hold their slots from here. None as the time means that only an event can change the answer.
        """
        granted: list[Hashable] = []
        lines = self._lines
        if self.stopped is not None or not lines.count:
            return granted, None
        again = self._cooldown.open(now)
        if again is not None:
            return granted, again
        self._count(now)
        while lines.count:
            if self._probing and self._probe is not None:
                return granted, None
            again = self._gate.wait_until(now)
            if again is not None:
                return granted, again
            head = lines.head()
            ticket = self._next(head, now)
            if ticket is None:
                if self.full_since is None:
                    self.full_since = now
                return granted, self._estimate.next_stretch(now)
            if ticket is not head:
                head.let_pass(ticket)
            self._take(ticket, now)
            granted.append(ticket.key)
        return granted, None

    # -- what became of a create

    def accepted(self, ticket: Hashable, now: float) -> None:
        """Note that the create of *ticket* was accepted: its task holds the slots until *release()*."""
        found = self._asking(ticket)
        self._count(now)
        self._answered(found)
        self._run(found)
        self._estimate.prove(self._running)
        self._gate.widen()
        if found.epoch == self._cooldown.epoch:
            self._probing = False
            self._cooldown.forgive()
            self.refused_since = None

    def refused(self, ticket: Hashable, now: float, *, dice: float, retry_after: float | None = None) -> None:
        """Note a 1303: *ticket* goes back to its place, the limit comes down to what is held, the lane cools down."""
        found = self._give_back(ticket, now)
        self.refusals += 1
        found.passed = 0
        if self.refused_since is None:
            self.refused_since = now
        fresh = self._cool(found, now, dice, retry_after, breakable=True)
        self._estimate.lower(self.held, found.slots, now, fresh=fresh)

    def throttled(
        self, ticket: Hashable, now: float, *, dice: float, retry_after: float | None = None
    ) -> None:
        """Note a 1302: *ticket* goes back to its place, the lane cools down and then creates at half the rate."""
        found = self._give_back(ticket, now)
        self.throttles += 1
        if self._cool(found, now, dice, retry_after, breakable=False):
            self._gate.narrow()

    def paused(self, ticket: Hashable, now: float, *, dice: float, retry_after: float | None = None) -> None:
        """Note a 5001, or a service that could not be reached: *ticket* goes back to its place, the lane cools down."""
        found = self._give_back(ticket, now)
        self._cool(found, now, dice, retry_after, breakable=False)
        self._estimate.doubt(self.held)

    def release(self, ticket: Hashable, now: float) -> bool:
        """
        Give back the slots of *ticket*: its task has ended, or its create is known not to have happened.

        False, and nothing changes, if it holds none.
        """
        found = self._tickets.get(ticket)
        if found is None or found.state is State.WAITING:
            return False
        self._count(now)
        if found.state is State.ASKING:
            self._answered(found)
        else:
            self._running -= found.slots
            self._estimate.turn_over(found.slots)
            self._cooldown.interrupt(found.slots, self.held)
            # A slot is free for certain, so a probe whose fate is unknown need not be waited for.
            self._probe = None
        self.held -= found.slots
        self.full_since = None
        self._lines.drop(found)
        del self._tickets[ticket]
        return True

    def adopt(
        self, ticket: Hashable, slots: int, now: float, *, priority: int = 0, party: Hashable = None
    ) -> None:
        """Count a task that exists already (found on resume) as holding *slots*, even above the limit."""
        self._count(now)
        found = self._enter(ticket, slots, priority, party)
        self.held += slots
        self._lines.hold(found)
        self._run(found)
        self._estimate.prove(self._running)

    # -- the lane as a whole

    def set_limit(self, limit: Limit, now: float) -> list[Hashable]:
        """Take a new word on the limit; returns the waiting tickets that can never fit now, taken out of the queue."""
        self._count(now)
        self._estimate.replace(limit)
        ceiling = limit.ceiling
        if ceiling is None:
            return []
        lost = [ticket.key for ticket in self._lines if ticket.slots > ceiling]
        for key in lost:
            self.withdraw(key, now)
        return lost

    def stop(self, reason: object) -> None:
        """Grant nothing more until *resume()*; what runs goes on. The first *reason* stays."""
        if self.stopped is None:
            self.stopped = reason

    def resume(self) -> None:
        """Grant again."""
        self.stopped = None

    def changes(self) -> list[Change]:
        """Hand over how the believed limit moved since the last call."""
        return self._estimate.drain_changes()

    @property
    def limit(self) -> int:
        """The believed limit."""
        return self._estimate.limit

    @property
    def ceiling(self) -> int | None:
        """What the limit never passes; None if nobody knows."""
        return self._estimate.ceiling

    @property
    def in_flight(self) -> int:
        """How many tickets hold slots."""
        return len(self._tickets) - self._lines.count

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return self._lines.count

    def spare(self, now: float) -> int:
        """Return how many slots nobody here waits for and a ticket could have at once."""
        shut = self.stopped is not None or self._probe is not None or self._cooldown.open(now) is not None
        if shut or self._lines.count:
            return 0
        return max(0, self._estimate.limit - self.held)

    def held_by(self, party: Hashable) -> int:
        """Return how many slots the tickets of *party* hold."""
        return self._lines.held_by(party)

    @property
    def rate(self) -> float | None:
        """Creates per second allowed after "too many requests"; None while there is no such limit."""
        return self._gate.rate

    def slot_seconds(self, now: float) -> float:
        """Return the slot-seconds held so far."""
        self._count(now)
        return self._used

    def offered_seconds(self, now: float) -> float:
        """Return the slot-seconds the believed limit has offered since the first ticket, what utilisation is taken of."""
        self._count(now)
        return self._offered

    def __repr__(self) -> str:
        cooling = self._cooldown.until is not None
        state = (
            "stopped"
            if self.stopped is not None
            else "cooling"
            if cooling
            else "probing"
            if self._probing
            else "open"
        )
        return (
            f"<Lane {state}, {self.held} of {self.limit} slots held by {self.in_flight}, "
            f"{self.waiting} waiting, {self.refusals} refusals>"
        )

    # -- inside

    def _next(self, head: Ticket, now: float) -> Ticket | None:
        """Choose who may create now; None if nobody may."""
        estimate = self._estimate
        room = estimate.reach - self.held
        found: Ticket | None = head
        if head.slots > room:
            self._lines.block(head)
            kept = head.has_no_patience(estimate.limit) and estimate.worth_trying(head.slots, now)
            found = None if kept or room < 1 else self._lines.fitting(room)
            if found is None and not (estimate.at_ceiling and self.held):
                found = self._beyond(head, kept=kept, now=now)
        if found is not None and self.held + found.slots > estimate.proven and not estimate.may_risk:
            return None
        return found

    def _beyond(self, head: Ticket, *, kept: bool, now: float) -> Ticket | None:
        """Choose a ticket that may be sent beyond the believed limit."""
        if self.held == 0:
            return head if self._estimate.worth_trying(head.slots, now) else self._lines.smallest()
        found = head if kept or self._estimate.ramping else self._lines.smallest()
        return found if self._estimate.may_stretch(self.held + found.slots, now) else None

    def _take(self, ticket: Ticket, now: float) -> None:
        estimate = self._estimate
        self._lines.leave(ticket)
        self._lines.hold(ticket)
        held = self.held + ticket.slots
        if held > estimate.limit:
            if self.held:
                estimate.stretch(held, now)
            else:
                estimate.stretch_alone(held, now)
        self.held = held
        ticket.state = State.ASKING
        ticket.epoch = self._cooldown.epoch
        if held > estimate.proven:
            ticket.risky = True
            estimate.risky += 1
        if self._probing:
            self._probe = ticket
        self._gate.passed(now)

    def _enter(self, key: Hashable, slots: int, priority: int, party: Hashable) -> Ticket:
        if key in self._tickets:
            raise ValueError(f"expected a new ticket, found {key!r} in the lane already")
        ticket = self._tickets[key] = Ticket(key, slots, self._lines.party(priority, party))
        return ticket

    def _asking(self, key: Hashable) -> Ticket:
        found = self._tickets.get(key)
        if found is None or found.state is not State.ASKING:
            raise LookupError(f"expected a ticket whose create is under way, found {key!r}")
        return found

    def _answered(self, ticket: Ticket) -> None:
        if ticket.risky:
            ticket.risky = False
            self._estimate.risky -= 1
        if self._probe is ticket:
            self._probe = None

    def _run(self, ticket: Ticket) -> None:
        self._tickets[ticket.key] = ticket.party.running(ticket.slots)
        self._running += ticket.slots

    def _give_back(self, key: Hashable, now: float) -> Ticket:
        found = self._asking(key)
        self._count(now)
        self._answered(found)
        self.held -= found.slots
        self.full_since = None
        found.state = State.WAITING
        self._lines.rejoin(found)
        self._lines.drop(found)
        return found

    def _cool(
        self, ticket: Ticket, now: float, dice: float, retry_after: float | None, *, breakable: bool
    ) -> bool:
        """Start a cool-down and return True; only lengthen it if *ticket* was sent before the last one began."""
        if ticket.epoch != self._cooldown.epoch:
            self._cooldown.extend(now, retry_after)
            return False
        self._cooldown.strike(now, dice, retry_after, breakable=breakable)
        self._probing = True
        return True

    def _count(self, now: float) -> None:
        """Add up held and offered slot-seconds before either number changes."""
        if self._counted_at is None:
            self._counted_at = now
            return
        passed = now - self._counted_at
        if passed > 0:
            self._used += passed * self.held
            self._offered += passed * self._estimate.limit
            self._counted_at = now
