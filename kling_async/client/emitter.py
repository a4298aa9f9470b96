"""Events to whoever watches: a slow or broken watcher changes nothing for anybody else."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from attrs import define, field

from kling_async.client.background import Background
from kling_async.protocol.events import Event

__all__ = ["Emitter", "Watcher"]

Watcher: TypeAlias = Callable[[Event], Awaitable[None] | None]

_log = logging.getLogger("kling_async")

# A watcher that cannot keep up loses the oldest events; memory stays bounded.
_LONGEST_QUEUE = 10_000


@define(eq=False)
class _Subscription:
    watcher: Watcher
    queue: deque[Event] = field(factory=lambda: deque(maxlen=_LONGEST_QUEUE))
    running: bool = False


@define(eq=False)
class Emitter:
    """Hands every event to the watchers, sync ones at once and async ones one after another in the background."""

    _background: Background
    _subscriptions: list[_Subscription] = field(factory=list, init=False)

    @property
    def active(self) -> bool:
        """Whether anybody watches; events need not be made for nobody."""
        return bool(self._subscriptions)

    def subscribe(self, watcher: Watcher) -> Callable[[], None]:
        """Add *watcher*; returns what ends the subscription."""
        subscription = _Subscription(watcher)
        self._subscriptions.append(subscription)
        return lambda: self._subscriptions.remove(subscription)

    def emit(self, event: Event) -> None:
        """Tell all watchers of *event*; never raises, never waits."""
        for subscription in tuple(self._subscriptions):
            if inspect.iscoroutinefunction(subscription.watcher) or subscription.running:
                self._queue(subscription, event)
            else:
                self._tell(subscription, event)

    def _tell(self, subscription: _Subscription, event: Event) -> None:
        try:
            result = subscription.watcher(event)
        except Exception:  # noqa: BLE001  # a watcher may raise anything
            _log.exception("on_event raised; the run goes on")
            return
        if inspect.isawaitable(result):
            # A plain callable that returns an awaitable, such as a partial of a coroutine function.
            subscription.running = True
            self._background.spawn(self._finish(subscription, result), precious=True)

    def _queue(self, subscription: _Subscription, event: Event) -> None:
        subscription.queue.append(event)
        if not subscription.running:
            subscription.running = True
            self._background.spawn(self._finish(subscription, None), precious=True)

    async def _finish(self, subscription: _Subscription, first: Awaitable[None] | None) -> None:
        try:
            await self._await_quietly(first)
            while subscription.queue:
                await self._await_quietly(subscription.watcher(subscription.queue.popleft()))
        finally:
            subscription.running = False

    async def _await_quietly(self, result: Awaitable[None] | None) -> None:
        if result is None:
            return
        try:
            await result
        except Exception:  # noqa: BLE001  # a watcher may raise anything
            _log.exception("on_event raised; the run goes on")
