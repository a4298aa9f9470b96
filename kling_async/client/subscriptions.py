"""
One watcher, and how he is told: at once, in the background, or in a thread of its own.

Loaded with the first watcher: a client that nobody watches makes no events.
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

__all__ = ["Subscription", "Watcher"]

Watcher: TypeAlias = Callable[[Event], Awaitable[None] | None]

_log = logging.getLogger("kling_async")

# Seconds a call that a watcher may hold the loop; what is beyond adds up, and at most so much of one call: a machine
# that stands still for a moment is not the watcher's doing.
_ALLOWED = 0.001
_MOST_OF_ONE = 0.1
_TOO_LONG = 0.25


@define(eq=False)
class Subscription:
    """Tells *watcher* of events, in their order."""

    watcher: Watcher
    background: Background
    mailbox: Mailbox = field(factory=Mailbox)
    is_async: bool = False
    failures: int = 0
    _busy: bool = False
    _debt: float = 0.0
    thread: MailThread | None = None

    @classmethod
    def of(cls, watcher: Watcher, background: Background) -> Subscription:
        """Find out what kind of watcher it is."""
        call = getattr(watcher, "__call__", None)  # noqa: B004  # an object may have an async one
        is_async = inspect.iscoroutinefunction(watcher) or inspect.iscoroutinefunction(call)
        return cls(watcher, background, is_async=is_async)

    @property
    def name(self) -> str:
        """What the watcher is called in the log."""
        return getattr(self.watcher, "__qualname__", type(self.watcher).__qualname__)

    def tell(self, event: Event) -> None:
        """Hand *event* over; never raises and never waits."""
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
                self.name,
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
