"""
A lane's dealings with a store that shares slots between processes.

The lane stays the scheduler of this process; a job that it grants asks the store for a lease before anything is sent.
One loop a lane talks to the store, one exchange at a time, and takes along whatever has come up meanwhile; so the
number of waiting jobs changes neither the number of connections nor that of exchanges.

A store that does not answer grants nothing and opens no window, so nothing is sent (fail closed). What runs is not
touched: it is polled on, and what ended meanwhile is told when the store is back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from attrs import define, field

from kling_async.client.background import Background
from kling_async.client.clock import Clock
from kling_async.client.shares import Meter, News, Share
from kling_async.errors import KlingError, LeaseLost, SlotStoreError, TransportError
from kling_async.protocol.claims import GONE, LOST, OPEN, Opening, Refusal, Ruling
from kling_async.protocol.limits import Limit
from kling_async.slots.store import SlotStore

__all__ = ["Share", "Sharing"]

T = TypeVar("T")

_log = logging.getLogger("kling_async")

# Seconds between exchanges while jobs wait: so short while few processes share the lane, longer with many, so that
# all together make at most about 500 a second.
_POLL = 0.05
_POLL_PER_OWNER = 0.002
# Seconds between attempts to reach a store that is away: the first, and the longest.
_RETRY, _LONGEST_RETRY = 0.1, 2.0
# Seconds after which who waits for a store that is away is told so.
_PATIENCE = 60.0
# Part of a window that is left unused, for what passes between opening it and learning so.
_MARGIN = 2.0
# Seconds after which another's create is asked about again; its answer may have come.
_LOOK_AGAIN = 0.5
# Seconds for telling what ended when the client closes.
_LAST_WORDS = 2.0


@define(eq=False)
class Sharing:
    """The shared side of one lane; *on_limit* is told when the limit is another."""

    lane: str
    # What the caller or a pack says of the lane's slots, until somebody else says something newer.
    limit: Limit
    _store: SlotStore = field(repr=False)
    _clock: Clock = field(repr=False)
    _background: Background = field(repr=False)
    on_limit: Callable[[Limit], None] = field(default=lambda _: None, repr=False)
    _owner: str = field(factory=lambda: secrets.token_hex(8), init=False)
    _numbers: count[int] = field(factory=count, init=False, repr=False)
    _shares: dict[str, Share] = field(factory=dict, init=False, repr=False)
    _waiting: dict[str, Share] = field(factory=dict, init=False, repr=False)
    # The slots that are waited for here, though the lane has granted them.
    awaited: Meter = field(factory=Meter, init=False, repr=False)
    _windows: dict[str, asyncio.Future[float]] = field(factory=dict, init=False, repr=False)
    _news: News = field(factory=News, init=False, repr=False)
    _known: Ruling | None = field(default=None, init=False, repr=False)
    _away_since: float | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _running: bool = field(default=False, init=False)
    _kicked: asyncio.Event = field(factory=asyncio.Event, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._say_limit()

    def _say_limit(self) -> None:
        if self.limit.kind == "fixed":
            self._news.limit = self.limit.slots
        elif self.limit.kind == "known":
            self._news.guess = self.limit.slots

    @property
    def waiting(self) -> int:
        """How many jobs wait for a lease."""
        return len(self._waiting)

    # What the lane tells.

    def ask(self, job: str, slots: int, told: Callable[[KlingError | None], None]) -> Share:
        """Claim *slots* for *job*; *told* is called once, without an error when the job may be sent."""
        share = self._new(job, slots)
        share.told = told
        self._ask(share)
        return share

    def adopt(self, job: str, slots: int) -> Share:
        """Claim the slots of a task that exists."""
        share = self._new(job, slots)
        self._hold(share)
        return share

    def accepted(self, share: Share) -> None:
        """Note that the task of *share* exists."""
        if not share.ended:
            # Who has taken the job over meanwhile finds this task, and keeps the lease.
            share.firm = False
            self._hold(share)

    def end(self, share: Share) -> None:
        """Give the slots of *share* back, or its place in the queue; safe to call again."""
        if self._forget(share):
            self._news.ends[share.token] = share
            self._kick()

    def refused(self, share: Share, pause: float | None) -> None:
        """Give the slots back and tell everybody that the service had no slot for them."""
        if self._forget(share):
            self._news.refusals[share.token] = Refusal(share.job, share.token, pause or 0.0)
            self._kick()

    async def send(self, share: Share, seconds: float, send: Callable[[float], Awaitable[T]]) -> T:
        """
        Call *send* in a window of which nobody else has one for the same job.

        *seconds* is how long the create may take; *send* is given the moment (of the clock) after which nothing may
        leave any more. Raises `LeaseLost` if another process has the job, `TransportError` with *sent* if somebody's
        create may have arrived before, so that the task is looked for, and `SlotStoreError` if the store stays away.
        """
        opened_at = await self._open(share, seconds + _MARGIN)
        share.sending, share.window_ends = True, opened_at + seconds + _MARGIN
        answer = await send(opened_at + seconds)
        # Without an answer it may still arrive, and the window stays open until its end.
        share.sending = False
        # A wish to open it again that was not told yet would leave it open.
        self._news.opens.pop(share.token, None)
        self._news.closes[share.token] = share
        return answer

    async def _open(self, share: Share, seconds: float) -> float:
        opened_at = self._clock.now()
        answer = await self._wish(share, seconds)
        if answer == OPEN:
            return opened_at
        if answer == LOST:
            raise _lost(share)
        if answer == GONE:
            # We were silent for long; somebody else may have done anything meanwhile.
            await self._ask_again(share)
        while answer > 0:
            _log.info("job %s may be under way from another process for %.1f s", share.job, answer)
            await self._clock.sleep(min(answer, _LOOK_AGAIN))
            answer = await self._wish(share, seconds)
        raise TransportError(f"another process may have sent {share.job}", sent=True)

    async def _wish(self, share: Share, seconds: float) -> float:
        window: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._windows[share.token] = window
        self._news.opens[share.token] = Opening(share.job, share.token, seconds)
        self._kick()
        try:
            return await window
        finally:
            self._windows.pop(share.token, None)
            self._news.opens.pop(share.token, None)

    async def _ask_again(self, share: Share) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(error: KlingError | None) -> None:
            if not answer.done():
                answer.set_result(None) if error is None else answer.set_exception(error)

        share.told, share.firm = told, False
        self._ask(share)
        await answer

    # The claims of this process.

    def _new(self, job: str, slots: int) -> Share:
        share = Share(job, f"{self._owner}.{next(self._numbers)}", slots)
        self._shares[share.token] = share
        return share

    def _ask(self, share: Share) -> None:
        share.granted = False
        self._waiting[share.token] = share
        self.awaited.add(share.slots, self._clock.now())
        self._news.asks[share.token] = share
        self._kick()

    def _stop_waiting(self, token: str) -> Share | None:
        share = self._waiting.pop(token, None)
        if share is not None:
            self.awaited.add(-share.slots, self._clock.now())
        return share

    def _hold(self, share: Share) -> None:
        share.running = True
        share.sending = False
        self._news.holds[share.token] = share
        self._kick()

    def _forget(self, share: Share) -> bool:
        if share.ended:
            return False
        share.ended = True
        self._shares.pop(share.token, None)
        self._stop_waiting(share.token)
        for news in (self._news.asks, self._news.holds, self._news.opens, self._news.closes):
            news.pop(share.token, None)
        return True

    # The loop.

    def _kick(self) -> None:
        self._kicked.set()
        if not self._running:
            self._running = True
            self._background.spawn(self._run())

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            # A driver of a store may turn our cancellation into an error of its own.
            while (self._shares or self._news) and not (me is not None and me.cancelling()):
                self._kicked.clear()
                await self._exchange()
                pause = self._pause()
                if pause and not (self._news and self._away_since is None):
                    await self._nap(pause)
        finally:
            self._running = False

    async def _nap(self, seconds: float) -> None:
        if self._away_since is not None:
            await self._clock.sleep(seconds)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._kicked.set)
        try:
            await self._kicked.wait()
        finally:
            timer.cancel()

    def _pause(self) -> float:
        if self._away_since is not None:
            return min(_LONGEST_RETRY, _RETRY * 2.0 ** min(self._failures, 8)) * (
                0.5 + self._clock.dice() / 2
            )
        known = self._known
        beat = max(_POLL, self._store.heal / 3) if self._store.heal else 1.0
        if not self._waiting or known is None:
            return beat
        return min(beat, max(_POLL, _POLL_PER_OWNER * known.owners, min(known.pause, beat)))

    async def _exchange(self) -> None:
        news, self._news = self._news, News()
        try:
            ruling = await self._store.exchange(self.lane, news.report(self._owner, self._known))
        except SlotStoreError as error:
            self._news = news.before(self._news, self._wanted())
            self._stay_away(error)
        except BaseException:
            self._news = news.before(self._news, self._wanted())
            raise
        else:
            self._heed(ruling)

    def _wanted(self) -> set[str]:
        sending = (token for token, share in self._shares.items() if share.sending)
        return {*self._windows, *sending}

    def _stay_away(self, error: SlotStoreError) -> None:
        now = self._clock.now()
        if self._away_since is None:
            self._away_since = now
            _log.warning("lane %s: %s; nothing is sent until it is back", self.lane, error)
        self._failures += 1
        # A grant may have been made whose answer is lost, so everybody who waits asks again.
        self._news.asks |= self._waiting
        if now - self._away_since > _PATIENCE:
            for share in tuple(self._waiting.values()):
                self._tell(share, error)
                self.end(share)
            for window in self._windows.values():
                if not window.done():
                    window.set_exception(error)

    def _heed(self, ruling: Ruling) -> None:
        if self._away_since is not None:
            _log.warning("lane %s: the store of slots is back", self.lane)
            self._away_since, self._failures = None, 0
        known, self._known = self._known, ruling
        if known is not None and (ruling.forgotten or ruling.generation != known.generation):
            self._tell_anew()
        for grant in ruling.granted:
            share = self._stop_waiting(grant.token)
            if share is not None:
                share.granted, share.inherited = True, grant.inherited
                self._tell(share, None)
        for token in ruling.lost:
            self._lose(token)
        for token, answer in ruling.opened.items():
            window = self._windows.get(token)
            if window is not None and not window.done():
                window.set_result(answer)
        if ruling.limit and ruling.limit != self.limit.ceiling:
            self.limit = Limit.fixed(ruling.limit)
            self.on_limit(self.limit)

    def _tell_anew(self) -> None:
        """Tell a store that has forgotten us everything, without taking anything from those who came meanwhile."""
        _log.info(
            "lane %s: the store of slots has forgotten this process, which tells it everything again",
            self.lane,
        )
        if self._news.limit is None:
            self._say_limit()
        for share in self._shares.values():
            share.firm = False
            if share.running or share.sending:
                self._news.holds[share.token] = share
                self._keep_open(share)
            elif not share.granted:
                self._news.asks[share.token] = share
            # A lease that is granted and not used yet is asked for again when its window is.

    def _keep_open(self, share: Share) -> None:
        left = share.window_ends - self._clock.now()
        if share.sending and left > 0:
            self._news.opens[share.token] = Opening(share.job, share.token, left)

    def _lose(self, token: str) -> None:
        share = self._shares.get(token)
        if share is None or share.running:
            # Its task is waited for all the same; its slots are the other's business.
            return
        if self._stop_waiting(token) is not None:
            self._forget(share)
            self._tell(share, _lost(share))

    def _tell(self, share: Share, error: KlingError | None) -> None:
        told, share.told = share.told, None
        if told is not None:
            told(error)

    async def aclose(self) -> None:
        """Tell what ended, if the store can be reached now; what runs keeps its slots as long as the store allows."""
        ends = News(ends=self._news.ends, refusals=self._news.refusals, closes=self._news.closes)
        if not ends:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._store.exchange(self.lane, ends.report(self._owner, self._known))
        except (SlotStoreError, TimeoutError) as error:
            _log.info("lane %s: what ended last could not be told (%s)", self.lane, error)


def _lost(share: Share) -> LeaseLost:
    return LeaseLost(
        f"another process has taken over {share.job}; nothing was sent from here: look it up by its external id",
        share.job,
    )
