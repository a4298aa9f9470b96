"""
Slots that several processes share: who may create now, decided in one place for all of them.

Pure: the time is given. A store keeps one `Book` for each lane (account and model) and changes it by `exchange()`
alone; `slots/lease.lua` states the same rules for Redis, and a test holds the two together, so change both.

A process talks under a name of its own (*owner*) and tells what is new: what it asks for, what has ended, which
creates it is about to send. Each claim has a *token* of its own, which fences it: who asks for a job that somebody
else has, takes it over, and from then on the old token can neither send nor release anything.

What is guaranteed:
- A grant never makes the leases pass the limit. They are above it only after a task was found that exists already, or
  when the limit came down, and then nothing is granted until they are below.
- First come, first served over all processes. Who does not fit may be passed by others for a bounded number of slots.
- A create may be sent only in a window opened here. While the window of one token may be open, no other token gets
  one for the same job, whatever has become of the process.
- A process that is not heard of for *patience* seconds loses what waits; its running tasks hold their slots for
  *orphan* seconds more, or until somebody takes them over.
- A book that has lost its memory grants nothing for *settle* seconds, in which processes tell what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import Factory, asdict, define, field

from kling_async.protocol.claims import (
    GONE,
    LOST,
    OPEN,
    Claim,
    Grant,
    Opening,
    Refusal,
    Report,
    Ruling,
    Terms,
)

__all__ = ["Asker", "Book", "Lease"]

_UNLIMITED = 1_000_000
# Waiting claims that are looked at in one turn.
_LOOKED_AT = 200
# So many places after the first that does not fit are looked at for others that do: whoever came later waits in line,
# or light jobs would never wait and heavy ones would wait for all of them.
_REACH = 12
# As in `lines`: how many slots may pass a claim that does not fit.
_IDLE_WORTH, _LEAST_PATIENCE, _MOST_PATIENCE = 20, 2, 12
# After a refusal: seconds before the ceiling rises again, doubling each time, and seconds for each slot that it rises.
_QUIET, _LONGEST_QUIET, _RISE = 30.0, 600.0, 5.0
_LONGEST_PAUSE = 60.0


@define(eq=True)
class Lease:
    """Slots in use. *window* is until when the create of *sender* may arrive; *until* when the lease of a vanished owner ends."""

    owner: str
    token: str
    slots: int
    running: bool = False
    window: float = 0.0
    sender: str = ""
    until: float = 0.0


@define(eq=True)
class Asker:
    """A claim that waits; *passed* counts the slots that went to others while it was next."""

    owner: str
    token: str
    slots: int
    passed: int = 0


@define
class Book:
    """The shared slots of one lane."""

    generation: str = ""
    turn: int = 0
    limit: int = 0
    held: int = 0
    settled_at: float = 0.0
    paused_until: float = 0.0
    lowered_to: int = 0
    lowered_at: float = 0.0
    strikes: int = 0
    clock: float = 0.0
    owners: dict[str, float] = Factory(dict)
    leases: dict[str, Lease] = Factory(dict)
    queue: dict[str, Asker] = Factory(dict)
    # Tokens whose job was taken over, with the owner who is to be told.
    lost: dict[str, str] = Factory(dict)
    terms: Terms = field(factory=Terms, repr=False)

    def exchange(self, report: Report, now: float) -> Ruling:
        """Take in *report* and rule; the same report again does no harm."""
        self._remember(report, now)
        self._bury(now)
        forgotten = report.owner not in self.owners
        self.owners[report.owner] = now
        if report.limit is not None:
            self.limit = report.limit
        self.limit = self.limit or report.guess or 0
        for job, token in report.ends:
            self._end(job, token)
        for refusal in report.refusals:
            self._refuse(refusal, now)
        for claim in report.holds:
            self._hold(claim, report.owner)
        granted = [grant for claim in report.asks for grant in self._ask(claim, report.owner)]
        for job, token in report.closes:
            lease = self.leases.get(job)
            if lease is not None and lease.sender == token:
                lease.window = 0.0
        opened = {wish.token: self._open(wish, now) for wish in report.opens}
        pause = max(0.0, self.settled_at - now, self.paused_until - now)
        if pause == 0.0:
            granted += self._grant(report.owner, now)
        return Ruling(
            generation=self.generation,
            turn=self.turn,
            forgotten=forgotten,
            granted=tuple(granted),
            lost=tuple(self._tell_lost(report.owner)),
            opened=opened,
            limit=self.limit,
            ceiling=self.ceiling(now),
            held=self.held,
            waiting=len(self.queue),
            owners=len(self.owners),
            pause=pause,
        )

    def ceiling(self, now: float) -> int:
        """Return how many slots may be leased: the limit, or what a refusal has taught and is not unlearned yet."""
        limit = self.limit or _UNLIMITED
        if not self.lowered_to:
            return limit
        quiet = min(_LONGEST_QUIET, _QUIET * 2.0 ** (self.strikes - 1))
        risen = max(0.0, now - self.lowered_at - quiet) // _RISE
        return min(limit, self.lowered_to + int(risen))

    # -- memory

    def _remember(self, report: Report, now: float) -> None:
        """Find out whether this book knows all that was told; if not, begin a new generation that listens first."""
        forgot = report.generation == self.generation and report.turn > self.turn
        if not self.generation or forgot:
            self.generation = report.nonce
            self.settled_at = now + self.terms.settle
        self.turn += 1
        if now < self.clock:
            # The clock of a machine that was started again; what is remembered keeps its distances.
            self._shift(now - self.clock)
            self.settled_at = now + self.terms.settle
        self.clock = now

    def _shift(self, seconds: float) -> None:
        self.paused_until += seconds
        self.lowered_at += seconds
        self.owners = {owner: seen + seconds for owner, seen in self.owners.items()}
        for lease in self.leases.values():
            lease.window += seconds if lease.window else 0.0
            lease.until += seconds if lease.until else 0.0

    def _bury(self, now: float) -> None:
        """Take away from processes that are not heard of any more."""
        for owner, seen in list(self.owners.items()):
            if seen < now - self.terms.patience:
                del self.owners[owner]
                self.queue = {job: each for job, each in self.queue.items() if each.owner != owner}
                self.lost = {token: heir for token, heir in self.lost.items() if heir != owner}
                for lease in self.leases.values():
                    if lease.owner == owner:
                        lease.owner = ""
                        lease.until = self._end_of(lease, seen, now)
        for job, lease in list(self.leases.items()):
            if not lease.owner and lease.until <= now:
                self._drop(job)

    def _end_of(self, lease: Lease, seen: float, now: float) -> float:
        # A create that was about to be sent may have made a task, which holds its slots.
        if not lease.running and not lease.sender:
            return now
        return max(lease.window, seen + self.terms.patience + self.terms.orphan)

    def _drop(self, job: str) -> None:
        self.held -= self.leases.pop(job).slots

    # -- claims

    def _end(self, job: str, token: str) -> None:
        lease, asker = self.leases.get(job), self.queue.get(job)
        if lease is not None and lease.token == token:
            self._drop(job)
        if asker is not None and asker.token == token:
            del self.queue[job]

    def _refuse(self, refusal: Refusal, now: float) -> None:
        """Take the lease back, pause, and come down to what is held, since others use the account too."""
        lease = self.leases.get(refusal.job)
        if lease is None or lease.token != refusal.token:
            return
        below = self.ceiling(now)
        self._drop(refusal.job)
        if now >= self.paused_until:
            learned = self.lowered_to and below < (self.limit or _UNLIMITED)
            self.strikes = self.strikes + 1 if learned else 1
        pause = min(_LONGEST_PAUSE, refusal.pause or 2.0 ** (self.strikes - 1))
        self.paused_until = max(self.paused_until, now + pause)
        self.lowered_to, self.lowered_at = max(1, min(below, self.held)), now

    def _hold(self, claim: Claim, owner: str) -> None:
        """Count a task that exists already, even above the limit."""
        lease = self.leases.get(claim.job)
        if lease is not None and lease.token != claim.token:
            if lease.owner and not claim.firm:
                self.lost[claim.token] = owner
                return
            self._displace(lease.owner, lease.token)
        if lease is None:
            lease = self.leases[claim.job] = Lease(owner, claim.token, 0)
        self.held += claim.slots - lease.slots
        lease.owner, lease.token, lease.slots = owner, claim.token, claim.slots
        lease.running, lease.until = True, 0.0
        asker = self.queue.get(claim.job)
        # What was told before has no claim on another's: that waits, and is given what is leased now.
        if asker is not None and (claim.firm or asker.token == claim.token):
            del self.queue[claim.job]
            if asker.token != claim.token:
                self._displace(asker.owner, asker.token)

    def _ask(self, claim: Claim, owner: str) -> list[Grant]:
        """Queue a claim; what is leased already is granted at once, whoever had it before."""
        present = self.leases.get(claim.job) or self.queue.get(claim.job)
        if present is not None and present.token != claim.token:
            if present.owner and not claim.firm:
                self.lost[claim.token] = owner
                return []
            self._displace(present.owner, present.token)
            present.owner, present.token = owner, claim.token
        if isinstance(present, Lease):
            return [self._hand_over(claim.job, present, owner, claim.token)]
        if present is None:
            self.queue[claim.job] = Asker(owner, claim.token, claim.slots)
        return []

    def _hand_over(self, job: str, lease: Lease, owner: str, token: str) -> Grant:
        lease.owner, lease.token, lease.until = owner, token, 0.0
        return Grant(job, token, inherited=lease.running or bool(lease.sender))

    def _displace(self, owner: str, token: str) -> None:
        if owner:
            self.lost[token] = owner

    def _tell_lost(self, owner: str) -> list[str]:
        found = [token for token, heir in self.lost.items() if heir == owner]
        for token in found:
            del self.lost[token]
        return sorted(found)

    def _open(self, wish: Opening, now: float) -> float:
        lease = self.leases.get(wish.job)
        if lease is None:
            return GONE
        if lease.token != wish.token:
            return LOST
        if lease.sender not in {"", wish.token} and lease.window > now:
            return lease.window - now
        lease.window, lease.sender = now + wish.seconds, wish.token
        return OPEN

    # -- the queue

    def _grant(self, owner: str, now: float) -> list[Grant]:
        """Name those of *owner* who may create now; room is kept for those of others who came before."""
        granted: list[Grant] = []
        ceiling = self.ceiling(now)
        taken = self.held
        blocked: Asker | None = None
        behind = 0
        for job, asker in list(self.queue.items())[:_LOOKED_AT]:
            behind += blocked is not None
            if behind > _REACH:
                break
            lease = self.leases.get(job)
            if lease is not None:
                # Its task was told of after the claim, by a process that this book had forgotten.
                if asker.owner == owner:
                    del self.queue[job]
                    self._displace(lease.owner, lease.token)
                    granted.append(self._hand_over(job, lease, owner, asker.token))
                continue
            heard = self.owners.get(asker.owner, 0.0) >= now - self.terms.fresh
            if not heard or (self.limit and asker.slots > self.limit):
                continue
            # With nothing in use one may always be tried, or a claim above a learned ceiling would wait for ever.
            if taken and taken + asker.slots > ceiling:
                blocked = blocked or asker
                if _has_no_patience(blocked, ceiling):
                    break
                continue
            taken += asker.slots
            if asker.owner != owner:
                continue
            del self.queue[job]
            self.leases[job] = Lease(owner, asker.token, asker.slots)
            self.held += asker.slots
            granted.append(Grant(job, asker.token, inherited=False))
            if blocked is not None:
                blocked.passed += asker.slots
        return granted

    # -- for stores that keep text

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], terms: Terms) -> Self:
        """Take back what `to_json()` gave."""
        book = cls(**{**values, "terms": terms})
        book.leases = {job: Lease(**lease) for job, lease in values["leases"].items()}
        book.queue = {job: Asker(**asker) for job, asker in values["queue"].items()}
        return book


def _has_no_patience(asker: Asker, ceiling: int) -> bool:
    fair = min(_MOST_PATIENCE * asker.slots, _IDLE_WORTH * asker.slots * asker.slots // ceiling)
    return asker.passed >= max(_LEAST_PATIENCE * asker.slots, fair)
