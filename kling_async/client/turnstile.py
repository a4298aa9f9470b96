"""
The shell around a lane: callers wait here until the lane grants them their slots.

Every decision is the lane's. This keeps the future of each waiting caller, the one timer for the lane's next look at
the clock, and tells what moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from attrs import define, field

from kling_async import protocol
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.errors import ApiError, KlingError, TransportError
from kling_async.protocol.slots import Lane, Limit, NeverFits

if TYPE_CHECKING:
    from kling_async.client.sharing import Share, Sharing
    from kling_async.protocol.limits import Change

__all__ = ["Party", "Pass", "Turnstile", "TurnstileClosed", "TurnstileMoved"]


class TurnstileClosed(Exception):
    """The lane was stopped while a caller waited; never leaves this package. *error* is why."""

    def __init__(self, error: KlingError) -> None:
        super().__init__(str(error))
        self.error = error


class TurnstileMoved(Exception):
    """Another account has slots for who waits here; never leaves this package."""


@define(eq=False)
class Party:
    """Callers that belong together, such as a batch: they share slots evenly with others and can be sent away."""

    dismissed: KlingError | None = field(default=None, init=False)
    # Creates under way, which are waited for before the party may be called gone.
    _sending: int = field(default=0, init=False)
    _quiet: asyncio.Event = field(factory=asyncio.Event, init=False, repr=False)

    def begin(self) -> None:
        """Note that a create of the party begins."""
        self._sending += 1
        self._quiet.clear()

    def end(self) -> None:
        """Note that a create of the party has ended."""
        self._sending -= 1
        if not self._sending:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no create of the party is under way."""
        if self._sending:
            await self._quiet.wait()


@define(eq=False)
class Pass:
    """What one caller holds of a lane: the right to *slots* slots, once granted, for the job with the external id *job*."""

    slots: int
    priority: int = 0
    party: Party | None = None
    job: str = ""
    # Seconds to wait for a service that tells nothing of what it was sent.
    patience: float = inf
    share: Share | None = field(default=None, init=False, repr=False)
    granted: asyncio.Future[None] | None = field(default=None, init=False, repr=False)
    # The caller was cancelled while its create was under way.
    abandoned: bool = field(default=False, init=False)

    @property
    def queued(self) -> bool:
        """Whether the ticket is in the queue, or has left it without its caller having noticed yet."""
        return self.granted is not None


@define(eq=False)
class Turnstile:
    """Lets callers through as the lane of *account* and *model* has slots."""

    account: str
    model: str
    lane: Lane
    _clock: Clock = field(repr=False)
    _emitter: Emitter = field(repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)
    _turn_due: bool = field(default=False, init=False, repr=False)
    # Since when the service has refused or failed, without accepting a create in between.
    troubled_since: float | None = field(default=None, init=False)
    # Who waits for slots, and since when.
    _waiting: dict[Pass, float] = field(factory=dict, init=False, repr=False)
    # Whose create may have made a task; they hold their slots until the service tells.
    _doubtful: dict[Pass, KlingError] = field(factory=dict, init=False, repr=False)
    _silence: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)
    _closed: KlingError | None = field(default=None, init=False, repr=False)
    # Other processes use the account too: what the lane grants waits for their store's lease.
    sharing: Sharing | None = field(default=None, repr=False)
    _told: protocol.events.LaneMoved | None = field(default=None, init=False, repr=False)
    # Told when there are slots that nobody here waits for.
    on_spare: Callable[[Turnstile, int], None] | None = field(default=None, repr=False)

    @property
    def load(self) -> float:
        """How much is asked of the lane, as a share of what it can hold."""
        return (self.lane.held + self.lane.waiting) / self.lane.limit

    @property
    def held(self) -> int:
        """How many slots are held; those that are still waited for at a shared store are not."""
        return self.lane.held - (self.sharing.awaited.value if self.sharing else 0)

    @property
    def waiting(self) -> int:
        """How many callers wait for slots, here or at a shared store."""
        return self.lane.waiting + (self.sharing.waiting if self.sharing else 0)

    def slot_seconds(self, now: float) -> float:
        """Return the slot-seconds held so far."""
        awaited = self.sharing.awaited.total(now) if self.sharing else 0.0
        return self.lane.slot_seconds(now) - awaited

    def join(self, ticket: Pass) -> None:
        """Put *ticket* into the queue; raises `NeverFits` if the lane can never hold that many slots."""
        self.lane.ask(ticket, ticket.slots, self._clock.now(), priority=ticket.priority, party=ticket.party)
        self._expect(ticket)

    async def wait(self, ticket: Pass) -> None:
        """
        Wait until *ticket* is granted.

        Raises `TurnstileClosed` if the lane is stopped meanwhile, `TurnstileMoved` if another account has room. A cancelled caller leaves no trace.
        """
        assert ticket.granted is not None, "only who joined can wait"
        try:
            await ticket.granted
        except BaseException:
            ticket.abandoned = True
            self.leave(ticket)
            raise
        ticket.granted = None

    def leave(self, ticket: Pass) -> None:
        """Give up *ticket* wherever it stands, as long as no create of it is under way."""
        now = self._clock.now()
        self._waiting.pop(ticket, None)
        waiting, ticket.granted = ticket.granted, None
        if waiting is not None and waiting.done() and not waiting.cancelled():
            waiting.exception()  # seen, though by nobody who still waits
        if not self.lane.withdraw(ticket, now):
            self.lane.release(ticket, now)
        self._end_share(ticket)
        self._turn_soon()

    def adopt(self, ticket: Pass) -> None:
        """Count a task that exists already as holding its slots."""
        if self.sharing is not None:
            ticket.share = self.sharing.adopt(ticket.job, ticket.slots)
        self.lane.adopt(ticket, ticket.slots, self._clock.now(), priority=ticket.priority, party=ticket.party)

    def accepted(self, ticket: Pass) -> None:
        """Note that the create was accepted; its task holds the slots until `release()`."""
        self.troubled_since = None
        self.lane.accepted(ticket, self._clock.now())
        if self.sharing is not None and ticket.share is not None:
            self.sharing.accepted(ticket.share)
        self._turn_soon()

    def refused(self, ticket: Pass, error: ApiError) -> None:
        """Note that there was no free slot: *ticket* waits again, at its old place."""
        self.lane.refused(ticket, self._clock.now(), dice=self._clock.dice(), retry_after=error.retry_after)
        if self.sharing is not None and ticket.share is not None:
            self.sharing.refused(ticket.share, error.retry_after)
        self._expect_after_trouble(ticket)

    def throttled(self, ticket: Pass, error: ApiError) -> None:
        """Note that requests came too fast: *ticket* waits again, at its old place."""
        self.lane.throttled(ticket, self._clock.now(), dice=self._clock.dice(), retry_after=error.retry_after)
        self._expect_after_trouble(ticket)

    def paused(self, ticket: Pass, error: KlingError) -> None:
        """Note that the service could not serve: *ticket* waits again, at its old place."""
        wish = error.retry_after if isinstance(error, ApiError) else None
        self.lane.paused(ticket, self._clock.now(), dice=self._clock.dice(), retry_after=wish)
        self._expect_after_trouble(ticket)

    def doubted(self, ticket: Pass, error: KlingError) -> None:
        """
        Note that nobody knows whether the create of *ticket* made a task: it holds its slots until that is known.

        *error* is what the look-ups ended with. If nothing becomes known, those who wait are sent away when their patience is over.
        """
        self._doubtful[ticket] = error
        if self.troubled_since is None:
            self.troubled_since = self._clock.now()
        self._heed_silence()

    def found(self, ticket: Pass) -> None:
        """Note that the task of *ticket* exists, if that was in doubt."""
        if ticket in self._doubtful:
            self._break_silence(ticket)
            self.accepted(ticket)

    def release(self, ticket: Pass) -> None:
        """Give back the slots of *ticket*: its task ended, or its create is known not to have happened."""
        if ticket in self._doubtful:
            self._break_silence(ticket)
        self.lane.release(ticket, self._clock.now())
        self._end_share(ticket)
        self._turn_soon()

    def set_limit(self, limit: Limit) -> None:
        """Take a new word on the limit; who can never fit is told so."""
        for lost in self.lane.set_limit(limit, self._clock.now()):
            assert isinstance(lost, Pass)
            self._fail(lost, NeverFits.of(lost.slots, limit.slots))
        self._turn_soon()

    def stop(self, error: KlingError) -> None:
        """Grant nothing more and send everybody who waits away with *error*."""
        if self.lane.stopped is None and self._emitter.active:
            stopped = protocol.events.LaneStopped(account=self.account, model=self.model, error=error)
            self._emitter.emit(stopped)
        self.lane.stop(error)
        self._send_away(tuple(self._waiting), TurnstileClosed(error))

    def dismiss(self, party: Party) -> None:
        """Send away everybody of *party* who waits, with the error that it was dismissed with."""
        assert party.dismissed is not None, "a party is dismissed before its members are"
        self._send_away([ticket for ticket in self._waiting if ticket.party is party], party.dismissed)

    def hand_over(self, slots: int) -> int:
        """Send those away who came last, *slots* slots of them at most, to look for another account; returns how many."""
        moved = 0
        for ticket in reversed(tuple(self._waiting)):
            if ticket.slots <= slots - moved:
                moved += ticket.slots
                self._send_away((ticket,), TurnstileMoved())
        return moved

    def close(self, error: KlingError) -> None:
        """Take back the timers and send everybody who waits, now and later, away with *error*."""
        self._closed = error
        self._stop_timer()
        self._stop_silence()
        self._send_away(tuple(self._waiting), error)

    def _send_away(self, tickets: Sequence[Pass], error: Exception) -> None:
        now = self._clock.now()
        for ticket in tickets:
            if not self.lane.withdraw(ticket, now):
                self.lane.release(ticket, now)
            self._end_share(ticket)
            self._fail(ticket, error)

    def _end_share(self, ticket: Pass) -> None:
        if self.sharing is not None and ticket.share is not None:
            self.sharing.end(ticket.share)

    def _let_through(self, ticket: Pass) -> None:
        self._waiting.pop(ticket, None)
        if ticket.granted is not None and not ticket.granted.done():
            ticket.granted.set_result(None)

    def _heed_store(self, ticket: Pass, error: KlingError | None) -> None:
        if error is None:
            self._let_through(ticket)
        else:
            self._send_away((ticket,), error)
        self._turn_soon()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _break_silence(self, ticket: Pass) -> None:
        del self._doubtful[ticket]
        # An answer came, so the service is there; what is left in doubt begins to count anew.
        self.troubled_since = self._clock.now() if self._doubtful else None
        self._heed_silence()

    def _heed_silence(self) -> None:
        """Send away whose patience is over while creates are in doubt, and look again when the next one's is."""
        self._stop_silence()
        if not self._doubtful or self.troubled_since is None:
            return
        now, due = self._clock.now(), inf
        for ticket, since in tuple(self._waiting.items()):
            end = max(since, self.troubled_since) + ticket.patience
            if end <= now:
                self._send_away((ticket,), self._no_word(ticket.patience))
            else:
                due = min(due, end)
        self._silence = self._clock.later(due - now, self._heed_silence)

    def _no_word(self, seconds: float) -> TransportError:
        last = tuple(self._doubtful.values())[-1]
        return TransportError(
            f"expected the service to accept or refuse what it was sent, found no such answer for {seconds:,.0f} s "
            f"({len(self._doubtful)} creates in doubt, the last one: {last}); check the base URL and the service's status page",
            sent=False,
        )

    def _stop_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _expect_after_trouble(self, ticket: Pass) -> None:
        self._end_share(ticket)
        if self.troubled_since is None:
            self.troubled_since = self._clock.now()
        self._expect(ticket)

    def _expect(self, ticket: Pass) -> None:
        ticket.granted = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = self._clock.now()
        if ticket.party is not None and ticket.party.dismissed is not None:
            self.dismiss(ticket.party)
        if self._closed is not None:
            self._send_away((ticket,), self._closed)
        if self._doubtful:
            self._heed_silence()
        self._turn_soon()

    def _fail(self, ticket: Pass, error: Exception) -> None:
        self._waiting.pop(ticket, None)
        if ticket.granted is not None and not ticket.granted.done():
            ticket.granted.set_exception(error)

    def _turn_soon(self) -> None:
        # Many things happen in one pass of the loop; the lane decides once for all of them.
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        now = self._clock.now()
        granted, again = self.lane.grant(now)
        for ticket in granted:
            assert isinstance(ticket, Pass)
            if ticket.granted is None or ticket.granted.done():
                # Its caller was cancelled in this very pass of the loop.
                self._waiting.pop(ticket, None)
                self.lane.release(ticket, now)
                self._turn_soon()
            elif self.sharing is None:
                self._let_through(ticket)
            else:
                told = partial(self._heed_store, ticket)
                ticket.share = self.sharing.ask(ticket.job, ticket.slots, told)
        self._stop_timer()
        if self.on_spare is not None and (spare := self.lane.spare(now)):
            self.on_spare(self, spare)
        if again is not None:
            self._timer = self._clock.later(again - now, self._turn)
        changes = self.lane.changes()
        if self._emitter.active:
            self._emit_moved()
            for change in changes:
                self._emit_changed(change)

    def _emit_changed(self, change: Change) -> None:
        self._emitter.emit(
            protocol.events.LaneChanged(
                account=self.account,
                model=self.model,
                before=change.before,
                after=change.after,
                reason=change.reason,
            )
        )

    def _emit_moved(self) -> None:
        moved = protocol.events.LaneMoved(
            account=self.account,
            model=self.model,
            limit=self.lane.limit,
            held=self.held,
            waiting=self.waiting,
        )
        if moved != self._told:
            self._told = moved
            self._emitter.emit(moved)
