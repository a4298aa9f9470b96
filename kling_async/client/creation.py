"""
One job's way from the queue to a task that is looked after.

Whatever happens to the caller, what is known here stays true: slots are held as long as a task may hold them, and a
create under way is carried to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from kling_async import protocol
from kling_async._crash import crash_point
from kling_async.client.background import Background
from kling_async.client.claims import Claims
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.client.link import Guard, Link
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Party, Pass, Turnstile, TurnstileClosed
from kling_async.errors import JournalError, KlingError, NoFreeSlot, RateLimited, SubmissionUnknown
from kling_async.protocol.bodies import Body
from kling_async.protocol.codes import name_model
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.flows import Doubt, Look, Patience, Step, Submission, Wait, submit
from kling_async.protocol.pictures import Fitted, PictureRules
from kling_async.protocol.requests import create_request, find_request
from kling_async.protocol.verdict import Verdict, judge

if TYPE_CHECKING:
    from kling_async.journal.ledger import Ledger

__all__ = ["Creation", "Order", "Rules", "Workshop"]


@frozen(kw_only=True)
class Rules:
    """
    How a call behaves.

    *persistent* calls (those of a batch) wait out an outage of the service, others raise it once *retries* are used
    up. After *stall_after* seconds in which no create was accepted, a full account and an outage are errors too.
    *pictures* says how pictures are taken in.
    """

    timeouts: Timeouts = field(factory=Timeouts)
    retries: int = 2
    persistent: bool = False
    stall_after: float = 600.0
    priority: int = 0
    party: Party | None = None
    pictures: PictureRules = field(factory=PictureRules)


@frozen(kw_only=True)
class Order:
    """
    One job ready to be sent: its *body* is complete and carries *external_task_id*.

    *adopt* says that a task which has that id already is this job's, as in `flows.submit()`. *ledger* is the job's page
    in a journal, *units* what it is to say the task costs. With *look* the service is asked for the external id first,
    because an earlier execution of the job may have made the task. *veto* is asked when there are slots, and before
    anything is sent: what it returns is raised instead. *fitted* is what was changed of its pictures.
    """

    path: str
    model: str
    body: Body
    external_task_id: str
    slots: int
    key: str = ""
    adopt: bool = True
    units: int = 0
    ledger: Ledger | None = None
    look: bool = False
    veto: Callable[[], KlingError | None] | None = None
    fitted: tuple[Fitted, ...] = ()


@frozen(kw_only=True)
class Workshop:
    """What a creation works with."""

    clock: Clock
    background: Background
    emitter: Emitter
    # Has a task looked after; returns the row of whoever does so already.
    watch: Callable[[Link, Tracked], Tracked]
    claims: Claims


@define(eq=False)
class Creation:
    """Makes the task of *order* on one account."""

    _tools: Workshop
    _link: Link
    _turnstile: Turnstile
    _order: Order
    _rules: Rules
    _patience: Patience
    _ticket: Pass = field(init=False)
    _began: float = field(init=False, default=0.0)
    # Whether a create is under way that its caller has left.
    goes_on: bool = field(init=False, default=False)

    @property
    def account(self) -> str:
        """The account that was chosen."""
        return self._link.name

    async def run(self) -> Tracked:
        """
        Wait for slots, make the task and have it looked after.

        Raises what `flows.submit()` raises, and `TurnstileClosed` if the account takes no more jobs.
        """
        order, rules = self._order, self._rules
        self._ticket = Pass(
            order.slots,
            rules.priority,
            rules.party,
            job=order.external_task_id,
            patience=rules.stall_after,
        )
        self._began = self._tools.clock.now()
        if self._link.stopped is not None:
            raise TurnstileClosed(self._link.stopped)
        self._turnstile.join(self._ticket)
        self._emit_waiting()
        while True:
            await self._turnstile.wait(self._ticket)
            crash_point("after-slots")
            veto = self._order.veto() if self._order.veto is not None else None
            if veto is not None:
                self._turnstile.leave(self._ticket)
                raise veto
            try:
                result = await self._tools.background.carry(self._send(), ended=self._hold())
            except asyncio.CancelledError:
                self._ticket.abandoned = True
                if self._ticket.queued:
                    # The create was refused in this very pass of the loop, and its ticket waits again.
                    self._turnstile.leave(self._ticket)
                else:
                    self.goes_on = True
                raise
            if isinstance(result, Tracked):
                return result
            if isinstance(result, SubmissionUnknown):
                # There may be a task, so its slots stay held; the poller gives them back.
                raise result
            stop = self._turned_away_by(result)
            if stop is not None:
                self._turnstile.leave(self._ticket)
                raise TurnstileClosed(stop)
            if not self._ticket.queued or self._is_stalled():
                self._turnstile.leave(self._ticket)
                raise result

    def _hold(self) -> Callable[[], None] | None:
        """Hold a caller's own external id until the create has ended; nobody else can come to one of ours."""
        return None if self._order.adopt else self._tools.claims.hold(self._order.external_task_id)

    def _turned_away_by(self, error: KlingError) -> KlingError | None:
        """Return why the account takes no more jobs, if that concerns a create that ended with *error*."""
        # Also who would queue again: at a stopped lane that is for ever.
        concerned = self._ticket.queued or judge(error) is Verdict.ACCOUNT_STOP
        return self._link.stopped if concerned else None

    def _is_stalled(self) -> bool:
        if self._rules.retries == 0 and not self._rules.persistent:
            return True
        since = self._turnstile.troubled_since
        return (
            since is not None and self._tools.clock.now() - max(since, self._began) > self._rules.stall_after
        )

    async def _send(self) -> Tracked | KlingError:
        party = self._rules.party
        if party is None:
            return await self._create()
        party.begin()
        try:
            return await self._create()
        finally:
            party.end()

    async def _create(self) -> Tracked | KlingError:
        order = self._order
        if order.ledger is not None:
            try:
                await order.ledger.intend(self._link.name, order.units)
            except JournalError as error:
                # What is not on the disk is not sent.
                self._turnstile.leave(self._ticket)
                return error
        flow = submit(
            create_request(order.path, order.body),
            find_request(order.path, order.external_task_id),
            order.external_task_id,
            self._patience,
            adopt=order.adopt,
            look=self._look(),
        )
        try:
            submission = await self._link.drive(flow, self._rules.timeouts, self._watch, self._guard())
        except SubmissionUnknown as error:
            # The task may be there and hold its slots, so they are held too until it is found or known to be absent.
            self._turnstile.doubted(self._ticket, _reason(error))
            self._track(order.external_task_id)
            self._emit_left(error)
            return error
        except KlingError as error:
            name_model(error, order.model)
            self._step_back(error)
            self._emit_left(error)
            return error
        except asyncio.CancelledError:
            # Only the end of the client cuts a create off. Its caller is not cancelled by that, and must know.
            return self._cut_off()
        self._turnstile.accepted(self._ticket)
        if order.ledger is not None:
            order.ledger.made(submission.task_id, self._link.name, order.units)
        self._emit_made(submission)
        return self._track(submission.task_id)

    def _look(self) -> Look:
        """Say whether the task must be looked for before the first create."""
        share = self._ticket.share
        if share is not None and share.inherited:
            return Look.SETTLE
        return Look.ONCE if self._order.look else Look.NO

    def _guard(self) -> Guard | None:
        """Return what lets a create through only while no other process may send the same job."""
        sharing, share = self._turnstile.sharing, self._ticket.share
        return None if sharing is None or share is None else partial(sharing.send, share)

    def _cut_off(self) -> SubmissionUnknown:
        name = self._order.external_task_id
        if self._order.ledger is not None:
            self._order.ledger.doubt()
        error = SubmissionUnknown(
            f"the client was closed while a create was under way; there may be a task {name}, and it would be charged: "
            f"look it up with retrieve({name!r})",
            name,
        )
        self._emit_left(error)
        return error

    def _track(self, ask_for: str) -> Tracked:
        row = Tracked(
            path=self._order.path,
            ask_for=ask_for,
            external_task_id=self._order.external_task_id,
            key=self._order.key,
            expected=self._order.slots,
            since=self._tools.clock.now(),
            ticket=self._ticket,
            turnstile=self._turnstile,
        )
        return self._tools.watch(self._link, row)

    def _step_back(self, error: KlingError) -> None:
        """Give the slots back, since no task was made; queue again where waiting heals."""
        if self._order.ledger is not None:
            self._order.ledger.free()
        verdict = judge(error)
        if verdict is Verdict.ACCOUNT_STOP:
            self._turnstile.leave(self._ticket)
            self._link.stop(error)
        elif self._ticket.abandoned:
            self._turnstile.leave(self._ticket)
        elif isinstance(error, NoFreeSlot):
            self._turnstile.refused(self._ticket, error)
            self._emit_refused(error)
        elif isinstance(error, RateLimited):
            self._turnstile.throttled(self._ticket, error)
            self._emit_refused(error)
        elif self._rules.persistent and verdict in {Verdict.NOT_SENT, Verdict.AMBIGUOUS}:
            self._turnstile.paused(self._ticket, error)
        else:
            self._turnstile.leave(self._ticket)

    # Events.

    def _watch(self, step: Step) -> None:
        if isinstance(step, Doubt) and self._order.ledger is not None:
            self._order.ledger.doubt()
        if isinstance(step, Wait) and step.error is not None and self._tools.emitter.active:
            self._tools.emitter.emit(
                protocol.events.Retried(
                    account=self._link.name,
                    key=self._order.key,
                    external_task_id=self._order.external_task_id,
                    error=step.error,
                    attempt=step.attempt,
                    pause=step.seconds,
                )
            )

    def _emit_left(self, error: KlingError) -> None:
        # Whoever still waits for the create is told by raising, and its end is told where that is last seen.
        if self._tools.emitter.active and self._ticket.abandoned:
            self._tools.emitter.emit(
                protocol.events.Dropped(
                    account=self._link.name,
                    key=self._order.key,
                    external_task_id=self._order.external_task_id,
                    error=error,
                )
            )

    def _emit_waiting(self) -> None:
        if self._tools.emitter.active:
            self._tools.emitter.emit(
                protocol.events.Waiting(
                    account=self._link.name,
                    key=self._order.key,
                    external_task_id=self._order.external_task_id,
                    slots=self._order.slots,
                    model=self._order.model,
                )
            )

    def _emit_refused(self, error: NoFreeSlot | RateLimited) -> None:
        if self._tools.emitter.active:
            self._tools.emitter.emit(
                protocol.events.Refused(
                    account=self._link.name,
                    key=self._order.key,
                    external_task_id=self._order.external_task_id,
                    code=error.code,
                    pause=error.retry_after,
                )
            )

    def _emit_made(self, submission: Submission) -> None:
        if not self._tools.emitter.active:
            return
        if submission.found:
            self._tools.emitter.emit(
                protocol.events.Recovered(
                    account=self._link.name,
                    key=self._order.key,
                    external_task_id=self._order.external_task_id,
                    task_id=submission.task_id,
                )
            )
        self._tools.emitter.emit(
            protocol.events.Submitted(
                account=self._link.name,
                key=self._order.key,
                external_task_id=self._order.external_task_id,
                task_id=submission.task_id,
                slots=self._order.slots,
                request_id=submission.request_id,
            )
        )


def _reason(error: SubmissionUnknown) -> KlingError:
    """Return what the look-ups of a task ended with."""
    return error.__cause__ if isinstance(error.__cause__, KlingError) else error
