"""Where a batch takes its jobs from, one at a time and only while there is room for more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

import anyio
from attrs import define, field

__all__ = ["Intake"]

T = TypeVar("T")


@define(eq=False)
class Intake(Generic[T]):
    """
    Takes from *source* while *has_room* says so; whoever makes room calls `wake()`.

    *ended* says that the source is used up.
    """

    source: AsyncGenerator[T, None]
    _has_room: Callable[[], bool]
    ended: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _turn: anyio.Lock = field(factory=anyio.Lock, init=False)
    _woken: anyio.Event = field(factory=anyio.Event, init=False)
    _reading: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    async def take(self) -> T | None:
        """Return the next job once there is room; None after the last or `stop()`. Raises what the source raises."""
        async with self._turn:
            while not self._stopped and not self._has_room():
                self._woken = anyio.Event()
                await self._woken.wait()
            if self._stopped or self.ended:
                return None
            with anyio.CancelScope() as self._reading:
                taken = await anext(self.source, None)
                self.ended = taken is None
                return taken
            return None

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
