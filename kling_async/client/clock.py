"""Time and chance, in one place, so that everything else can be told what they are."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from math import inf

import anyio
from attrs import frozen

__all__ = ["Clock"]


@frozen(kw_only=True)
class Clock:
    """
    *now* is monotonic seconds, *wall* Unix time, *dice* a number in [0, 1).

    All pauses of a client are its clock's, and *pace* is how many of its seconds pass in a real one. Time limits of
    connections and requests are the real ones of their sockets.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    dice: Callable[[], float] = random.random
    pace: float = 1.0

    @classmethod
    def hurried(cls, pace: float) -> Clock:
        """Return a clock that goes *pace* times as fast as others; for tests, whose pauses are then as much shorter."""
        return cls(now=lambda: time.monotonic() * pace, pace=pace)

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass."""
        await anyio.sleep(seconds / self.pace)

    def later(self, seconds: float, call: Callable[[], object]) -> asyncio.TimerHandle | None:
        """Have *call* called in *seconds*; None, and it never is, for an infinite number."""
        if seconds == inf:
            return None
        return asyncio.get_running_loop().call_later(max(0.0, seconds) / self.pace, call)

    def limit(self, seconds: float) -> anyio.CancelScope:
        """Return a scope whose block is left after *seconds*."""
        return anyio.move_on_after(seconds / self.pace)
