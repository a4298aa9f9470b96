"""
Turns between bodies that are sent at once, and how much each sends in a turn.

A peer that takes everything at once never makes a writer wait, so that one body would keep the loop to itself; and a
thousand bodies that each yield after a piece still keep it for a thousand pieces. So in one pass of the loop no more than
some bytes are handed over, to whoever has waited longest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from attrs import define, field

__all__ = ["Step", "Turns"]

# What one pass of the loop hands over: reading, encoding and sending it takes about a millisecond.
_BYTES_A_PASS: Final = 2 << 20
# Below this, giving way once is as fair and costs less.
_FEW: Final = 8


@define(eq=False)
class Turns:
    """Lets bodies send one after the other; belongs to one event loop."""

    active: int = field(default=0, init=False)
    _waiting: deque[tuple[asyncio.Future[None], int]] = field(factory=deque, init=False, repr=False)
    _giving: bool = field(default=False, init=False)

    async def take(self, size: int) -> None:
        """Give way to the others; returns when it is this one's turn to hand over *size* bytes."""
        if self.active <= _FEW:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((turn, size))
        if not self._giving:
            self._giving = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        left = _BYTES_A_PASS
        while self._waiting and left > 0:
            turn, size = self._waiting.popleft()
            if not turn.done():  # it is when its body was cancelled
                turn.set_result(None)
                left -= size
        self._giving = bool(self._waiting)
        if self._giving:
            asyncio.get_running_loop().call_soon(self._give)


@define(eq=False)
class Step:
    """
    How much of a body is sent in a turn: more while the peer takes all at once, less when it does not.

    Small pieces cost CPU and large ones memory, since what a slow peer does not take lies in a buffer.
    """

    now: int = field(default=0, init=False)
    _least: int = field(default=0, init=False)
    _most: int = field(default=0, init=False)

    def bound(self, least: int, most: int) -> None:
        """Send from *least* to *most* bytes in a turn from now on."""
        self._least, self._most = least, most
        self.now = max(least, min(most, self.now))

    def heard(self, left: int) -> None:
        """Take note that *left* bytes of what was sent are still in the buffer."""
        self.now = max(self._least, self.now // 2) if left else min(self._most, self.now * 2)
