"""
Bodies sent while they are read: base64 is spliced into the JSON in pieces, with an exact Content-Length.

Nothing is ever padded. If a picture cannot be read to its end as it was checked, writing stops, aiohttp breaks the
connection, and the service has a request shorter than announced, which it cannot take for whole.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from kling_async._crash import crash_point
from kling_async.errors import KlingError, TransportError
from kling_async.protocol.bodies import Body
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import megabytes
from kling_async.transport.larder import Larder
from kling_async.transport.opening import check_unchanged
from kling_async.transport.pieces import PIECE
from kling_async.transport.turns import Step, Turns

__all__ = ["BodyPayload"]


class BodyPayload(Payload):
    """
    Streams a Body; make one for each attempt, so that *began* speaks of that attempt.

    *began* turns true just before the first byte, headers included, is handed to the connection: until then nothing
    was sent. *fault* is the reason of our own, such as a changed file, for which writing stopped; aiohttp shows it
    only as a ClientConnectionError, so look here first. A request that stopped so did not arrive whole.

    *taken* counts the bytes that the connection has taken. After *stall_after* seconds in which it took none, the connection
    is broken and *stalled* is true: a slow peer is one thing, one that has gone away is another.
    """

    _autoclose = True  # files are open only while they are written

    def __init__(
        self,
        body: Body,
        larder: Larder | None = None,
        turns: Turns | None = None,
        *,
        stall_after: float | None = None,
        not_after: float | None = None,
    ) -> None:
        super().__init__(body, content_type="application/json")
        self._size = body.length
        self._body = body
        self._larder = larder or Larder(budget=0)
        self._turns = turns or Turns()
        self._stall_after = stall_after
        self._not_after = not_after
        self.began = False
        self.taken = 0
        self.stalled = False
        self.fault: KlingError | None = None

    def __repr__(self) -> str:
        return f"<BodyPayload of {self._size} bytes, {'begun' if self.began else 'not begun'}>"

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # the signature is aiohttp's
        """Refuse: the text of a body with pictures is never built."""
        raise TypeError("a streamed body cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body; may be called again, and starts from the beginning each time."""
        self._turns.active += 1
        self.taken = 0
        watching = self._watch(writer)
        try:
            if pictures := tuple(part for part in self._body.parts if isinstance(part, Picture)):
                await check_unchanged(pictures)
            step = Step()
            for part in self._body.parts:
                await self._write_part(writer, part, step)
            crash_point("after-post")
        except KlingError as fault:
            self.fault = fault
            raise
        finally:
            self._turns.active -= 1
            if watching is not None:
                watching.cancel()

    @property
    def progress(self) -> str:
        """How much was taken, in words."""
        return f"{megabytes(self.taken)} of {megabytes(self._size or 0)}"

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the whole body, which is always as long as announced."""
        assert content_length in {None, self._size}, "the Content-Length of a streamed body is its own"
        await self.write(writer)

    def _watch(self, writer: AbstractStreamWriter) -> _Watch | None:
        if self._stall_after is None:
            return None
        watch = _Watch(self, writer)
        watch.start(self._stall_after)
        return watch

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes | Picture, step: Step) -> None:
        if isinstance(part, bytes):
            for start in range(0, len(part), PIECE):
                self._begin()
                text = part[start : start + PIECE]
                await writer.write(text)
                self.taken += len(text)
            return
        async with aclosing(self._larder.pieces(part, step)) as stream:
            async for piece in stream:
                self._begin()
                await writer.write(piece)
                self.taken += len(piece)
                step.heard(_left(writer))
                await self._turns.take(len(piece))

    def _begin(self) -> None:
        if self._not_after is not None and time.monotonic() > self._not_after:
            raise TransportError("the time in which this create could be sent is over", sent=False)
        self.began = True


class _Watch:
    """Looks now and then whether *payload* gets on; one timer a body, since one a piece would cost more than the piece."""

    def __init__(self, payload: BodyPayload, writer: AbstractStreamWriter) -> None:
        self._payload = payload
        self._writer = writer
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        loop, taken = asyncio.get_running_loop(), self._payload.taken
        self._timer = loop.call_later(seconds, self._look, seconds, taken)

    def _look(self, seconds: float, before: int) -> None:
        transport = getattr(self._writer, "transport", None)
        if self._payload.taken != before or transport is None:
            self.start(seconds)
            return
        self._payload.stalled = True
        transport.abort()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _left(writer: AbstractStreamWriter) -> int:
    """Return how many bytes the connection could not pass on at once."""
    transport = getattr(writer, "transport", None)
    return transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0
