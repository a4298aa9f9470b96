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
from kling_async.transport.pictures import PIECE, check_unchanged, pieces

__all__ = ["BodyPayload"]


class BodyPayload(Payload):
    """
    Streams a Body; make one for each attempt, so that *began* speaks of that attempt.

    *began* turns true just before the first byte, headers included, is handed to the connection: until then nothing
    was sent. *fault* is the reason of our own, such as a changed file, for which writing stopped; aiohttp shows it
    only as a ClientConnectionError, so look here first. A request that stopped so did not arrive whole.
    """

    _autoclose = True  # files are open only while they are written

    def __init__(self, body: Body, not_after: float | None = None) -> None:
        super().__init__(body, content_type="application/json")
        self._size = body.length
        self._body = body
        self._not_after = not_after
        self.began = False
        self.fault: KlingError | None = None

    def __repr__(self) -> str:
        return f"<BodyPayload of {self._size} bytes, {'begun' if self.began else 'not begun'}>"

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # the signature is aiohttp's
        """Refuse: the text of a body with pictures is never built."""
        raise TypeError("a streamed body cannot be decoded")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body; may be called again, and starts from the beginning each time."""
        try:
            await check_unchanged(tuple(part for part in self._body.parts if isinstance(part, Picture)))
            for part in self._body.parts:
                await self._write_part(writer, part)
            crash_point("after-post")
        except KlingError as fault:
            self.fault = fault
            raise

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the whole body, which is always as long as announced."""
        assert content_length in {None, self._size}, "the Content-Length of a streamed body is its own"
        await self.write(writer)

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes | Picture) -> None:
        if isinstance(part, bytes):
            for start in range(0, len(part), PIECE):
                self._begin()
                await writer.write(part[start : start + PIECE])
            return
        async with aclosing(pieces(part)) as stream:
            async for piece in stream:
                self._begin()
                await writer.write(piece)
                # A fast peer never makes write() wait; without this one body would keep the loop to itself.
                await asyncio.sleep(0)

    def _begin(self) -> None:
        if self._not_after is not None and time.monotonic() > self._not_after:
            raise TransportError("the time in which this create could be sent is over", sent=False)
        self.began = True
