"""Where a batch takes its jobs from, one at a time and only while there is room for more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

import anyio
from attrs import define, field

__all__ = ["Intake"]

T = TypeVar("T")

# Seconds after which the loop has its turn: a source may go on for long without anything to wait for.
_BREATH = 0.002


@define(eq=False)
class Intake(Generic[T]):
    """
    Takes from *source* while *has_room* says so; whoever makes room calls `wake()`.

    *ended* says that the source is used up. Only a source that *waits* for something has to be cut short.
    """

    source: AsyncGenerator[T, None]
    _has_room: Callable[[], bool]
    _waits: bool
    ended: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    # Not anyio's, whose every turn is a pass of the loop.
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _breathed: float = field(default=0.0, init=False)
    _woken: anyio.Event = field(factory=anyio.Event, init=False)
    _reading: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    async def take(self) -> T | None:
        """Return the next job once there is room; None after the last or `stop()`. Raises what the source raises."""
        if time.monotonic() - self._breathed > _BREATH:
            await asyncio.sleep(0)
            self._breathed = time.monotonic()
        async with self._turn:
            while not self._stopped and not self._has_room():
                self._woken = anyio.Event()
                await self._woken.wait()
            if self._stopped or self.ended:
                return None
            if not self._waits:
                return self._note(await anext(self.source, None))
            with anyio.CancelScope() as self._reading:
                return self._note(await anext(self.source, None))
            return None

    def _note(self, taken: T | None) -> T | None:
        self.ended = taken is None
        return taken

    def wake(self) -> None:
        """Look again whether there is room."""
        self._woken.set()

    def stop(self) -> None:
        """Take nothing more, also if the source, a queue say, still waits for something."""
        self._stopped = True
        self.wake()
        self._reading.cancel()

    async def aclose(self) -> None:
        """Close the source."""
        await self.source.aclose()
