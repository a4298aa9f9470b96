"""
One account of a client: its credentials, its connection, its lanes.

Drives flows: sends what they want sent, waits where they want to wait, renews the token when they ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import define, evolve, field

from kling_async import protocol
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.client.logs import about
from kling_async.client.turnstile import Turnstile
from kling_async.errors import ApiError, AuthError, KlingError, MalformedReply
from kling_async.protocol.auth import Sealed, Signer, name_credentials
from kling_async.protocol.codec import Reply, glimpse
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.flows import Doubt, Flow, Patience, Renew, Send, Step, Wait, ask, exchange
from kling_async.protocol.packs import Pack, read_packs, slots_in
from kling_async.protocol.requests import Request, costs_request
from kling_async.protocol.slots import Lane, Limit
from kling_async.transport.sessions import Session

if TYPE_CHECKING:
    from kling_async.client.sharing import Sharing

__all__ = ["Guard", "Link"]

T = TypeVar("T")

# Calls what sends a create, when it may be sent: it is given the seconds that may take, and gives the latest moment.
Guard: TypeAlias = Callable[[float, Callable[[float], Awaitable[Reply]]], Awaitable[Reply]]

# Packs last 30 or 90 days; what was bought in the last year is asked for.
_PACKS_SINCE = 365 * 86_400
# Seconds that the first create waits at most to learn how many slots there are.
_PACKS_LIMIT = 10.0
# Seconds after which a long-lived client tries an account again that could take no jobs.
_STOPPED_FOR = 60.0

_log = logging.getLogger("kling_async")


@define(eq=False)
class Link:
    """An account as a client holds it; *slots* is what the caller said, None to find out."""

    name: str
    signer: Signer = field(repr=False)
    session: Session = field(repr=False)
    slots: int | None
    _clock: Clock = field(repr=False)
    _emitter: Emitter = field(repr=False)
    # Makes the shared side of a lane, given its model and limit; None if no other process uses the account.
    share: Callable[[str, Limit], Sharing] | None = field(default=None, repr=False, kw_only=True)
    lanes: dict[str, Turnstile] = field(factory=dict, init=False, repr=False)
    stopped: KlingError | None = field(default=None, init=False)
    # Told when a lane has slots that nobody waits for there.
    on_spare: Callable[[Turnstile, int], None] | None = field(default=None, init=False, repr=False)
    _stopped_at: float = field(default=0.0, init=False, repr=False)
    _limit: Limit | None = field(default=None, init=False, repr=False)
    _learning: asyncio.Lock | None = field(default=None, init=False, repr=False)

    async def drive(
        self,
        flow: Flow[T],
        timeouts: Timeouts,
        watch: Callable[[Step], None] | None = None,
        guard: Guard | None = None,
    ) -> T:
        """Carry *flow* to its end; *watch* is told of every `Wait` and `Doubt`, *guard* lets creates through."""
        token = Sealed("")
        answer: Any = None
        try:
            step = next(flow)
            while True:
                try:
                    if isinstance(step, Send):
                        token = self._token()
                        answer = await self._send(step.request, token, timeouts, guard)
                    else:
                        answer = await self._take_step(step, token, watch)
                except KlingError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        except AuthError as error:
            name_credentials(error, self.signer.credentials)
            raise
        finally:
            flow.close()

    def _token(self) -> Sealed:
        return Sealed(self.signer.token(self._clock.now(), self._clock.wall()))

    def _send(
        self, request: Request, token: Sealed, timeouts: Timeouts, guard: Guard | None
    ) -> Awaitable[Reply]:
        if guard is None or request.body is None:
            return self._exchange(request, token, timeouts)
        limit = timeouts.for_body(request.body.length)
        return guard(limit, partial(self._exchange, request, token, timeouts))

    def _exchange(
        self, request: Request, token: Sealed, timeouts: Timeouts, not_after: float | None = None
    ) -> Awaitable[Reply]:
        # No coroutines of our own where nobody watches: each lies on the way of every wake-up.
        if not self._emitter.active:
            return self.session.send(request, token, timeouts, not_after=not_after)
        return self._observed(request, token, timeouts, not_after)

    async def _observed(
        self, request: Request, token: Sealed, timeouts: Timeouts, not_after: float | None
    ) -> Reply:
        begin = self._clock.now()
        reply: Reply | None = None
        trouble: KlingError | None = None
        try:
            reply = await self.session.send(request, token, timeouts, not_after=not_after)
        except KlingError as error:
            trouble = error
            raise
        finally:
            if reply is not None or trouble is not None:
                self._emit_requested(request, self._clock.now() - begin, reply, trouble)
        return reply

    def _emit_requested(
        self, request: Request, seconds: float, reply: Reply | None, trouble: KlingError | None
    ) -> None:
        code, request_id = glimpse(reply.body) if reply is not None else (0, "")
        self._emitter.emit(
            protocol.events.Requested(
                account=self.name,
                route=request.route,
                seconds=seconds,
                status=reply.status if reply is not None else 0,
                code=code,
                request_id=request_id,
                error=trouble,
            )
        )

    async def _take_step(self, step: Step, token: Sealed, watch: Callable[[Step], None] | None) -> object:
        if watch is not None and isinstance(step, Wait | Doubt):
            watch(step)
        if isinstance(step, Wait):
            await self._clock.sleep(step.seconds)
        if isinstance(step, Renew):
            return self._renew(step, token)
        return None

    def _renew(self, step: Renew, token: Sealed) -> bool:
        now = self._clock.now()
        if step.error.code in {1000, 1002} and not self.signer.is_stale(token.text, now):
            return False
        return self.signer.renew(token.text, now, self._clock.wall(), step.service_time)

    async def send_raw(self, request: Request, timeouts: Timeouts) -> Reply:
        """Send *request* once and return whatever comes back."""
        token = self._token()
        return await self._exchange(request, token, timeouts)

    async def packs(self, timeouts: Timeouts, patience: Patience | None = None) -> tuple[Pack, ...]:
        """Ask for the account's resource packs; free, at most once a second."""
        wall = self._clock.wall()
        request = costs_request(int((wall - _PACKS_SINCE) * 1000), int(wall * 1000))
        flow = ask(request, patience) if patience else exchange(request)
        envelope = await self.drive(flow, timeouts)
        return read_packs(envelope.data, request_id=envelope.request_id)

    async def recognise(self, timeouts: Timeouts, patience: Patience) -> None:
        """Have the session know who answers; free. Raises what keeps the service from answering."""
        if self.session.service is None and self.slots is None:
            await self._find_limit(timeouts)  # what the first create would ask, so that it is asked once
        if self.session.service is None:
            try:
                await self.packs(_briefly(timeouts), patience)
            except (ApiError, MalformedReply):
                # A refusal tells as much as any other reply.
                if self.session.service is None:
                    raise

    async def lane(self, model: str, timeouts: Timeouts) -> Turnstile:
        """Return the lane of *model*, having found out how many slots the account has."""
        turnstile = self.lanes.get(model)
        if turnstile is None:
            limit = self._limit or await self._find_limit(timeouts)
            # Another caller may have opened it while this one asked.
            turnstile = self.lanes.get(model) or self._turnstile(model, limit)
            self.lanes[model] = turnstile
        return turnstile

    def _turnstile(self, model: str, limit: Limit) -> Turnstile:
        turnstile = Turnstile(
            self.name, model, Lane(limit), self._clock, self._emitter, on_spare=self.on_spare
        )
        if self.share is not None:
            turnstile.sharing = self.share(model, limit)
            turnstile.sharing.on_limit = turnstile.set_limit
        return turnstile

    async def _find_limit(self, timeouts: Timeouts) -> Limit:
        if self.slots is not None:
            self._limit = Limit.fixed(self.slots)
            return self._limit
        self._learning = self._learning or asyncio.Lock()
        async with self._learning:
            if self._limit is None:
                self._limit = await self._read_limit(timeouts)
        return self._limit

    async def _read_limit(self, timeouts: Timeouts) -> Limit:
        # The number stands in the names of packs only. Whatever goes wrong here, the lane learns it by trying (R2);
        # what is wrong with the account itself shows at the first create.
        try:
            slots = slots_in(await self.packs(_briefly(timeouts)))
        except KlingError as error:
            fields = about(account=self.name, error=error)
            _log.info(
                "the slots of account %s cannot be read, so they are learned: %s",
                self.name,
                error,
                extra=fields,
            )
            slots = None
        return Limit.known(slots) if slots else Limit.learned()

    def stop(self, error: KlingError) -> None:
        """Send nothing more that costs on this account until `resume()`; the first *error* stays."""
        if self.stopped is None:
            self.stopped = error
            self._stopped_at = self._clock.now()
        for turnstile in self.lanes.values():
            turnstile.stop(error)

    def resume(self) -> None:
        """Let creates through again."""
        self.stopped = None
        for turnstile in self.lanes.values():
            turnstile.lane.resume()

    def relent(self) -> None:
        """Let creates through again if the stop is some time ago: somebody may have topped up the account."""
        if self.stopped is not None and self._clock.now() - self._stopped_at >= _STOPPED_FOR:
            self.resume()

    def load(self, model: str) -> float:
        """How much is asked of the account's lane for *model*, as a share of what it can hold; 0 if it has none yet."""
        turnstile = self.lanes.get(model)
        return 0.0 if turnstile is None else turnstile.load

    def dismiss(self, error: KlingError) -> None:
        """Send everybody who waits for slots, now and later, away with *error*; creates under way go on."""
        for turnstile in self.lanes.values():
            turnstile.close(error)

    async def aclose(self) -> None:
        """Close the session, having told other processes which slots are free."""
        for turnstile in self.lanes.values():
            if turnstile.sharing is not None:
                await turnstile.sharing.aclose()
        await self.session.aclose()


def _briefly(timeouts: Timeouts) -> Timeouts:
    return evolve(timeouts, request=min(timeouts.request, _PACKS_LIMIT))
