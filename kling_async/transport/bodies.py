"""
Bodies sent while they are read: base64 is spliced into the JSON in pieces, with an exact Content-Length.

Nothing is ever padded. If a picture cannot be read to its end as it was checked, writing stops, aiohttp breaks the
connection, and the service has a request shorter than announced, which it cannot take for whole.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from kling_async._crash import crash_point
from kling_async.errors import KlingError
from kling_async.protocol.bodies import Body
from kling_async.protocol.pictures import Picture
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
    """

    _autoclose = True  # files are open only while they are written

    def __init__(self, body: Body, larder: Larder | None = None, turns: Turns | None = None) -> None:
        super().__init__(body, content_type="application/json")
        self._size = body.length
        self._body = body
        self._larder = larder or Larder(budget=0)
        self._turns = turns or Turns()
        self.began = False
        self.fault: KlingError | None = None

    def __repr__(self) -> str:
        return f"<BodyPayload of {self._size} bytes, {'begun' if self.began else 'not begun'}>"

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # the signature is aiohttp's
        """Refuse: the text of a body with pictures is never built."""
        raise TypeError("a streamed body cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body; may be called again, and starts from the beginning each time."""
        self._turns.active += 1
        try:
            await check_unchanged(tuple(part for part in self._body.parts if isinstance(part, Picture)))
            step = Step()
            for part in self._body.parts:
                await self._write_part(writer, part, step)
            crash_point("after-post")
        except KlingError as fault:
            self.fault = fault
            raise
        finally:
            self._turns.active -= 1

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the whole body, which is always as long as announced."""
        assert content_length in {None, self._size}, "the Content-Length of a streamed body is its own"
        await self.write(writer)

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes | Picture, step: Step) -> None:
        if isinstance(part, bytes):
            for start in range(0, len(part), PIECE):
                self.began = True
                await writer.write(part[start : start + PIECE])
            return
        async with aclosing(self._larder.pieces(part, step)) as stream:
            async for piece in stream:
                self.began = True
                await writer.write(piece)
                step.heard(_left(writer))
                await self._turns.take(len(piece))


def _left(writer: AbstractStreamWriter) -> int:
    """Return how many bytes the connection could not pass on at once."""
    transport = getattr(writer, "transport", None)
    return transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0
