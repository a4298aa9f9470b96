"""What all calls of one client share: accounts, the poller, the background, and the rule of where they may be used."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from kling_async import protocol
from kling_async.client.background import Background, closed_client
from kling_async.client.claims import Claims
from kling_async.client.clock import Clock
from kling_async.client.creation import Creation, Order, Rules, Workshop
from kling_async.client.emitter import Emitter
from kling_async.client.late import Late
from kling_async.client.link import Link
from kling_async.client.logs import about
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Party, Turnstile, TurnstileClosed, TurnstileMoved
from kling_async.errors import ConfigError, KlingError
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.flows import Patience
from kling_async.protocol.limits import NeverFits
from kling_async.protocol.retry import RetryQuota
from kling_async.protocol.service import Service
from kling_async.transport.stock import Stock

if TYPE_CHECKING:
    from kling_async.client.poller import Poller
    from kling_async.client.results import Downloads
    from kling_async.journal.journal import Journal

__all__ = ["Engine"]

_log = logging.getLogger("kling_async")

# Seconds that watchers have at least to hear the last events, after creates have taken the rest of the grace.
_LAST_WORDS = 0.1
# What the first create needs only after it was sent, in that order. It takes longer to load than a loop may be held.
_NEEDED_LATER = (
    "anyio.abc",
    "kling_async.client.poller",
    "kling_async.protocol.wire",
    "kling_async.client.results",
)


@define(eq=False)
class Engine:
    """Lives as long as the client; belongs to the event loop and process of its first call."""

    links: Sequence[Link]
    clock: Clock
    background: Background
    emitter: Emitter
    _poller: Late[Poller] = field(repr=False)
    _downloads: Late[Downloads] = field(repr=False)
    journal_path: Path | None = None
    stock: Stock = field(factory=Stock, repr=False)
    # Where the service is to report on tasks whose jobs name no address of their own.
    callback_url: str | None = None
    quota: RetryQuota = field(factory=RetryQuota, init=False)
    claims: Claims = field(factory=Claims, init=False, repr=False)
    _journal: Journal | None = field(default=None, init=False, repr=False)
    _opening: asyncio.Lock | None = field(default=None, init=False, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    _pid: int = field(default=0, init=False)
    closed: bool = field(default=False, init=False)
    _is_loading: bool = field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if len(self.links) > 1:
            for link in self.links:
                link.on_spare = self._share

    @property
    def poller(self) -> Poller:
        """Who asks about every task that runs."""
        return self._poller.get()

    @property
    def downloads(self) -> Downloads:
        """Who fetches result pictures."""
        return self._downloads.get()

    @property
    def watching(self) -> int:
        """How many tasks are looked after."""
        return self._poller.made.watching if self._poller.made is not None else 0

    def enter(self) -> None:
        """
        Check that the client may be used here and now.

        Raises `ConfigError` once it is closed, from another event loop, and in a forked process.
        """
        if self.closed:
            raise closed_client()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._pid = loop, os.getpid()
        elif self._pid != os.getpid():
            raise ConfigError("this client belongs to the process it was forked from; make one per process")
        elif self._loop is not loop:
            raise ConfigError("this client belongs to another event loop; make one per loop")

    async def journal(self) -> Journal | None:
        """Return the client's journal, opened at the first call; None if it has none. Raises `JournalError`."""
        if self.journal_path is None or self._journal is not None:
            return self._journal
        # Late: few clients keep one.
        from kling_async.journal.journal import Journal

        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            if self._journal is None:
                self._journal = await Journal.open(self.journal_path)
        return self._journal

    @property
    def origin(self) -> str:
        """Where requests go: scheme, host and port."""
        return self.links[0].session.origin

    @property
    def service(self) -> Service | None:
        """Who answers, as far as the address or the replies so far have told."""
        return next((who for link in self.links if (who := link.session.service) is not None), None)

    async def recognise(self, rules: Rules) -> Service:
        """Return who answers, asking for it only if nobody knows yet; raises what keeps the service from answering."""
        self.enter()
        if self.service is None:
            await self.links[0].recognise(rules.timeouts, self.patience(rules.retries, rules.timeouts))
        assert self.service is not None, "whoever has replied is known"
        return self.service

    def patience(self, retries: int, timeouts: Timeouts) -> Patience:
        """Return how long a flow goes on that may repeat *retries* times."""
        return Patience(retries=retries, settle=timeouts.settle, dice=self.clock.dice, quota=self.quota)

    async def submit(self, order: Order, rules: Rules) -> tuple[Link, Tracked]:
        """
        Make the task of *order* as soon as an account has slots for it, and have it looked after there.

        Raises what `flows.submit()` raises. A caller that is cancelled leaves at once; a create under way goes on and
        its task is looked after all the same.
        """
        self.enter()
        self._load_beside()
        tools = Workshop(
            clock=self.clock,
            background=self.background,
            emitter=self.emitter,
            watch=self._watch,
            claims=self.claims,
        )
        creation: Creation | None = None
        try:
            while True:
                link, turnstile = await self._choose(order, rules)
                # The client may have been closed in the meantime, and its new lanes do not know.
                self.enter()
                patience = self.patience(rules.retries, rules.timeouts)
                creation = Creation(tools, link, turnstile, order, rules, patience)
                try:
                    return link, await creation.run()
                except TurnstileClosed as closed:
                    fields = about(order, account=link.name, error=closed.error)
                    _log.info("account %s takes no more jobs: %s", link.name, closed.error, extra=fields)
                except TurnstileMoved:
                    fields = about(order, account=link.name)
                    _log.debug("a job leaves the queue of account %s for another", link.name, extra=fields)
        except BaseException as error:
            if self.emitter.active and not (creation is not None and creation.goes_on):
                self._emit_dropped(order, "" if creation is None else creation.account, error)
            raise

    def _load_beside(self) -> None:
        if not self._is_loading:
            self._is_loading = True
            missing = [name for name in _NEEDED_LATER if name not in sys.modules]
            if missing:
                self.background.spawn(_load(missing))

    def _watch(self, link: Link, row: Tracked) -> Tracked:
        return self.poller.watch(link, row)

    def _emit_dropped(self, order: Order, account: str, error: BaseException) -> None:
        self.emitter.emit(
            protocol.events.Dropped(
                account=account,
                key=order.key,
                external_task_id=order.external_task_id,
                error=error if isinstance(error, KlingError) else None,
            )
        )

    async def _choose(self, order: Order, rules: Rules) -> tuple[Link, Turnstile]:
        """
        Choose the account of which least is asked among those that can hold the job at all.

        Raises the trouble of the first account if none takes jobs, or none that could hold this one, and `NeverFits`
        if there is no such account.
        """
        if not rules.persistent:
            # A batch ends with that trouble and is run again; a web app stays up.
            for link in self.links:
                link.relent()
        most = 0
        for link in sorted(self._working(), key=lambda link: link.load(order.model)):
            turnstile = await link.lane(order.model, rules.timeouts)
            ceiling = turnstile.lane.ceiling
            if link.stopped is None and (ceiling is None or order.slots <= ceiling):
                return link, turnstile
            most = max(most, ceiling or 0)
        stopped = next((link.stopped for link in self.links if link.stopped is not None), None)
        if stopped is None:
            raise NeverFits.of(order.slots, most)
        # A copy each time: an error that is raised again and again would keep the frames of all who ever got it.
        raise copy(stopped) from stopped.__cause__

    def _share(self, idle: Turnstile, slots: int) -> None:
        """Let *slots* slots' worth of those who wait at other accounts come to the lane *idle*, the longest queue first."""
        lanes = [link.lanes[idle.model] for link in self._working() if idle.model in link.lanes]
        for other in sorted(lanes, key=lambda lane: -lane.load):
            if other is not idle and other.load > 1 and slots > 0:
                slots -= other.hand_over(slots)

    def _working(self) -> list[Link]:
        return [link for link in self.links if link.stopped is None]

    async def ceiling(self, model: str, timeouts: Timeouts) -> int | None:
        """Return the most slots that one job of *model* can ever have on any account; None if that is not known."""
        most = 0
        for link in self._working() or self.links:
            ceiling = (await link.lane(model, timeouts)).lane.ceiling
            if ceiling is None:
                return None
            most = max(most, ceiling)
        return most

    def resume(self) -> None:
        """Try again all accounts that could take no jobs, since somebody begins anew."""
        for link in self.links:
            link.resume()

    def dismiss(self, party: Party, error: KlingError) -> None:
        """Send away everybody of *party* who waits for slots, now and later, with *error*; creates under way go on."""
        party.dismissed = error
        for link in self.links:
            for turnstile in link.lanes.values():
                turnstile.dismiss(party)

    @property
    def is_open(self) -> bool:
        """Whether sockets or tasks of this client are open."""
        working = bool(len(self.background)) or self.emitter.busy
        return working or any(link.session.is_open for link in self.links)

    async def aclose(self, grace: float = 10.0) -> None:
        """
        Wait for creates and async watchers under way, at most *grace* seconds, then end everything; safe to call again.

        Whoever waits for a slot or a task gets a `ConfigError`, since nothing will ever come.
        """
        self.closed = True
        end = self.clock.now() + grace
        # Each of them also if the one before fails or is cancelled; the last one said is the first one done.
        async with AsyncExitStack() as ends:
            for link in self.links:
                link.dismiss(closed_client())
                ends.push_async_callback(link.aclose)
            if self._journal is not None:
                ends.push_async_callback(self._journal.aclose)
            if self._downloads.made is not None:
                ends.push_async_callback(self._downloads.made.aclose)
            ends.push_async_callback(self._tell_the_rest, end)
            if self._poller.made is not None:
                ends.callback(self._poller.made.close, closed_client())
            ends.push_async_callback(self.background.aclose, grace)

    async def _tell_the_rest(self, end: float) -> None:
        await self.emitter.aclose(max(_LAST_WORDS, end - self.clock.now()))


async def _load(modules: Iterable[str]) -> None:
    # Not anyio's threads, which would first have to be loaded themselves.
    for name in modules:
        await asyncio.to_thread(import_module, name)
