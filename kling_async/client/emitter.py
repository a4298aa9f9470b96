"""
Events to whoever watches: a slow, blocking or broken watcher changes nothing for anybody else.

A plain function is called at once, on the loop, in the context of what happened. One that blocks the loop is moved to
a thread of its own. An async one gets its events one after another in the background. Whoever cannot keep up loses the
oldest events and is told how many (`Missed`); memory stays bounded.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TypeAlias

from attrs import define, field

from kling_async.client.background import Background
from kling_async.client.mailbox import Mailbox, MailThread
from kling_async.protocol.events import Event

__all__ = ["Emitter", "Watcher"]

Watcher: TypeAlias = Callable[[Event], Awaitable[None] | None]

_log = logging.getLogger("kling_async")

# Seconds a call that a watcher may hold the loop; what is beyond adds up, and at most so much of one call: a machine
# that stands still for a moment is not the watcher's doing.
_ALLOWED = 0.001
_MOST_OF_ONE = 0.1
_TOO_LONG = 0.25
# Seconds that a watcher may take to obey its cancellation.
_STUBBORN = 1.0


@define(eq=False)
class _Subscription:
    watcher: Watcher
    background: Background
    mailbox: Mailbox = field(factory=Mailbox)
    is_async: bool = False
    failures: int = 0
    _busy: bool = False
    _debt: float = 0.0
    thread: MailThread | None = None

    def tell(self, event: Event) -> None:
        if self.thread is not None:
            self.mailbox.put((event, copy_context()))
        elif self.is_async:
            self.mailbox.put((event, None))
            self._drain_soon(None)
        else:
            self._call(event)

    def _call(self, event: Event) -> None:
        begin = time.monotonic()
        try:
            result = self.watcher(event)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a watcher may raise anything
            self.failed(error)
            result = None
        if result is not None and inspect.isawaitable(result):
            # A plain callable that returns an awaitable, such as a partial of a coroutine function.
            self.is_async = True
            self._drain_soon(result)
        else:
            self._charge(time.monotonic() - begin)

    def _charge(self, seconds: float) -> None:
        self._debt = max(0.0, self._debt + min(seconds, _MOST_OF_ONE) - _ALLOWED)
        if self._debt > _TOO_LONG and self.thread is None:
            _log.warning(
                "on_event %r blocks the event loop and is called in a thread of its own from now on; make it quick or async",
                _named(self.watcher),
            )
            self.thread = MailThread(self.mailbox, self.watcher, self.failed)

    def failed(self, error: BaseException) -> None:
        """Log what the watcher raised, every time at first and then ever more seldom."""
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:
            _log.error(
                "on_event raised, %d times so far; the run goes on",
                self.failures,
                exc_info=(type(error), error, error.__traceback__),
            )

    def _drain_soon(self, first: Awaitable[None] | None) -> None:
        if not self._busy:
            self._busy = True
            self.background.spawn(self._drain(first), precious=True)

    async def _drain(self, first: Awaitable[None] | None) -> None:
        try:
            if first is not None:
                await self._finish(first)
            while (letter := self.mailbox.take()) is not None:
                result = self.watcher(letter[0])
                if result is not None:
                    await self._finish(result)
        finally:
            self._busy = False

    async def _finish(self, result: Awaitable[None]) -> None:
        try:
            await result
        except Exception as error:  # noqa: BLE001  # a watcher may raise anything
            self.failed(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.failed(error)


@define(eq=False)
class Emitter:
    """Hands every event to the watchers; `emit()` never raises and never waits."""

    _background: Background = field(factory=Background)
    _subscriptions: tuple[_Subscription, ...] = field(default=(), init=False)
    # Whether anybody watches: events are not made for nobody. No property, since it is asked for at every turn.
    active: bool = field(default=False, init=False)

    @property
    def busy(self) -> bool:
        """Whether tasks or threads of watchers are open."""
        return bool(len(self._background)) or any(each.thread for each in self._subscriptions)

    def subscribe(self, watcher: Watcher) -> Callable[[], None]:
        """Add *watcher*; returns what ends the subscription, safe to call again."""
        call = getattr(watcher, "__call__", None)  # noqa: B004  # an object may have an async one
        is_async = inspect.iscoroutinefunction(watcher) or inspect.iscoroutinefunction(call)
        subscription = _Subscription(watcher, self._background, is_async=is_async)
        self._subscribe(*self._subscriptions, subscription)
        return lambda: self._end(subscription)

    def _end(self, subscription: _Subscription) -> None:
        self._subscribe(*(each for each in self._subscriptions if each is not subscription))
        if subscription.thread is not None:
            subscription.thread.end()

    def _subscribe(self, *subscriptions: _Subscription) -> None:
        self._subscriptions, self.active = subscriptions, bool(subscriptions)

    def emit(self, event: Event) -> None:
        """Tell all watchers of *event*."""
        for subscription in self._subscriptions:
            subscription.tell(event)

    async def aclose(self, grace: float) -> None:
        """
        Give watchers up to *grace* seconds to hear what they have not heard yet, then end them.

        An async watcher that does not obey its cancellation, or a thread that a watcher blocks for ever, is left behind
        with a line in the log.
        """
        await self._background.aclose(grace, stubborn=_STUBBORN)
        for subscription in self._subscriptions:
            if subscription.thread is not None and not await subscription.thread.aclose(grace):
                _log.error(
                    "on_event %r still blocks; its thread is left behind", _named(subscription.watcher)
                )
        # A call that still fails because of the closing is told, but nothing is begun for it.
        self._subscribe(*(each for each in self._subscriptions if not each.is_async and each.thread is None))


def _named(watcher: Watcher) -> str:
    return getattr(watcher, "__qualname__", type(watcher).__qualname__)
