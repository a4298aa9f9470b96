"""
Events to whoever watches: a slow, blocking or broken watcher changes nothing for anybody else.

A plain function is called at once, on the loop, in the context of what happened. One that blocks the loop is moved to
a thread of its own. An async one gets its events one after another in the background. Whoever cannot keep up loses the
oldest events and is told how many (`Missed`); memory stays bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from kling_async.client.background import Background

if TYPE_CHECKING:
    from kling_async.client.subscriptions import Subscription, Watcher
    from kling_async.protocol.events import Event

__all__ = ["Emitter"]

_log = logging.getLogger("kling_async")

# Seconds that a watcher may take to obey its cancellation.
_STUBBORN = 1.0


@define(eq=False)
class Emitter:
    """Hands every event to the watchers; `emit()` never raises and never waits."""

    _background: Background = field(factory=Background)
    _subscriptions: tuple[Subscription, ...] = field(default=(), init=False)
    # Whether anybody watches: events are not made for nobody. No property, since it is asked for at every turn.
    active: bool = field(default=False, init=False)

    @property
    def busy(self) -> bool:
        """Whether tasks or threads of watchers are open."""
        return bool(len(self._background)) or any(each.thread for each in self._subscriptions)

    def subscribe(self, watcher: Watcher) -> Callable[[], None]:
        """Add *watcher*; returns what ends the subscription, safe to call again."""
        from kling_async.client.subscriptions import Subscription

        subscription = Subscription.of(watcher, self._background)
        self._subscribe(*self._subscriptions, subscription)
        return lambda: self._end(subscription)

    def _end(self, subscription: Subscription) -> None:
        self._subscribe(*(each for each in self._subscriptions if each is not subscription))
        if subscription.thread is not None:
            subscription.thread.end()

    def _subscribe(self, *subscriptions: Subscription) -> None:
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
                _log.error("on_event %r still blocks; its thread is left behind", subscription.name)
        # A call that still fails because of the closing is told, but nothing is begun for it.
        self._subscribe(*(each for each in self._subscriptions if not each.is_async and each.thread is None))
