"""
HTTP/1.1 by hand on asyncio streams: heads in, answers out, and every way of breaking off or dawdling.

A FIN is sent as a half close followed by reading to the end: closing a socket with unread bytes in it would send a
reset instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Literal, NoReturn

from attrs import define, field

from .bodies import Squeezer
from .script import Fault

__all__ = ["Head", "Line", "Reader", "Reply", "Settled", "listen"]

_PIECE = 65_536
_TICK = 0.02
_LINGER = 5.0


class Settled(Exception):
    """The connection was cut on purpose; nothing more can be said on it."""


class Reader(asyncio.StreamReader):
    """A stream that tells of its end also to who does not read from it."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        """Note the other side's FIN."""
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        """Note the other side's reset."""
        super().set_exception(exc)
        self.ended.set()


@define(eq=False)
class Head:
    """A request's head; header names are in lower case, in their order."""

    method: str
    target: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """Return the first header of this *name*."""
        return next((value for key, value in self.headers if key == name), None)

    def names(self) -> tuple[str, ...]:
        """Return the headers' names."""
        return tuple(name for name, _ in self.headers)


@define(eq=False)
class Reply:
    """An answer about to be sent."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(factory=list)
    content_type: str = "application/json; charset=utf-8"
    framing: Literal["length", "chunked", "none"] = "length"
    code: int = 0
    close: bool = False

    def head(self, lie: int = 0) -> bytes:
        """Encode status line and headers, with a Content-Length that is wrong by *lie*."""
        phrase = HTTPStatus(self.status).phrase if self.status in _STATUSES else "Odd"
        lines = [f"HTTP/1.1 {self.status} {phrase}", f"Content-Type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.framing == "length":
            lines.append(f"Content-Length: {len(self.body) + lie}")
        elif self.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        if self.close or self.framing == "none":
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def payload(self) -> bytes:
        """Encode the body in its framing."""
        if self.framing != "chunked":
            return self.body
        pieces = (self.body[at : at + _PIECE] for at in range(0, len(self.body), _PIECE))
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


_STATUSES = frozenset(HTTPStatus)


@define(eq=False)
class Line:
    """One connection: reads requests, sends answers, can break off in each known way."""

    reader: Reader
    writer: asyncio.StreamWriter
    number: int = 0
    answered: int = 0

    async def read_head(self) -> Head | None:
        """Return the next request's head, or None at the connection's end. Raises ValueError for nonsense."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except asyncio.LimitOverrunError as error:
            raise ValueError("a head of over 64 KiB") from error
        first, *rest = raw[:-4].decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"version {version}")
        headers = []
        for line in rest:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise ValueError("a header without a colon, or with blanks in its name")
            headers.append((name.lower(), value.strip()))
        return Head(method, target, headers)

    async def read_body(self, length: int, into: Squeezer) -> bool:
        """Feed a body of *length* bytes to *into*; False if the client went away in the middle."""
        left = length
        while left:
            try:
                piece = await self.reader.read(min(left, _PIECE * 4))
            except ConnectionError:
                return False
            if not piece:
                return False
            into.feed(piece)
            left -= len(piece)
        return True

    async def cut(self, how: str, seconds: float | None = None, *, deaf: bool = False) -> NoReturn:
        """
        End the connection by `rst`, by `fin`, or by `hang`: say nothing until the client goes, or for *seconds*.

        A *deaf* hang does not read either, so that a large body gets stuck on its way; then the end of the client is
        not noticed. Always raises Settled.
        """
        if how == "hang":
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    await (self.reader.ended.wait() if deaf else self._swallow())
            self.reset()
        elif how == "rst":
            self.reset()
        else:
            await self.finish()
        raise Settled

    def reset(self) -> None:
        """Send a reset."""
        connection = self.writer.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def finish(self) -> None:
        """Send a FIN and wait a little for the other side's."""
        try:
            async with asyncio.timeout(_LINGER):
                await self.writer.drain()
                if self.writer.can_write_eof():
                    self.writer.write_eof()
                    await self._swallow()
        except (TimeoutError, ConnectionError):
            self.writer.transport.abort()
        self.writer.close()

    async def _swallow(self) -> None:
        while await self.reader.read(_PIECE):
            continue

    async def send(self, reply: Reply, on_head: list[Fault], on_body: list[Fault]) -> None:
        """Send *reply* as the faults of the phases `status` and `body` will have it."""
        if not on_head and not on_body:
            self.writer.write(reply.head() + reply.payload())
            await self.writer.drain()
            return
        slow = next((fault for fault in on_body if fault.action in {"drip", "throttle"}), None)
        cut = next((fault for fault in on_body if fault.action == "truncate"), None)
        if cut is not None:
            reply.framing = cut.framing
        await self._send_head(reply, on_head, sum(fault.size for fault in on_body if fault.action == "lie"))
        payload = reply.payload()
        await self._write(payload[: cut.size or len(payload) // 2] if cut else payload, slow)
        if cut is not None:
            await self.cut(cut.then, cut.seconds)

    async def _send_head(self, reply: Reply, faults: list[Fault], lie: int) -> None:
        for fault in faults:
            if fault.action == "headers":
                reply.headers += fault.headers
        head = reply.head(lie)
        for fault in faults:
            if fault.action == "garbage":
                await self._write(fault.text.encode("latin-1") or b"\x16\x03\x01 SSH-2.0 +OK ready\r\n\r\n")
                await self.cut("fin")
            if fault.action in {"rst", "fin", "hang"}:
                await self._write(head[: fault.size or len(head) // 2])
                # A reset overtakes bytes that the client has not read yet; let them arrive first.
                await asyncio.sleep(_TICK)
                await self.cut(fault.action, fault.seconds)
        await self._write(head, next((fault for fault in faults if fault.action == "drip"), None))

    async def _write(self, content: bytes, slow: Fault | None = None) -> None:
        if slow is None:
            self.writer.write(content)
            await self.writer.drain()
            return
        for piece, pause in _pieces(content, slow):
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)


def _pieces(content: bytes, slow: Fault) -> Iterator[tuple[bytes, float]]:
    pause = _TICK if slow.action == "throttle" else slow.seconds or 0.0
    size = max(1, int(slow.size * _TICK)) if slow.action == "throttle" else slow.size or 1
    for at in range(0, len(content), size):
        yield content[at : at + size], pause


async def listen(
    talk: Callable[[Reader, asyncio.StreamWriter], Awaitable[None]],
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Open a listening socket of which each connection runs *talk*, as a task."""
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.StreamReaderProtocol:
        reader = Reader(_PIECE, loop)

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
            return talk(reader, writer)

        return asyncio.StreamReaderProtocol(reader, connected, loop=loop)

    return await loop.create_server(protocol, host, port, ssl=tls, backlog=4096)
