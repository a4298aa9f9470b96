"""Large bodies to peers that are slow, and to peers that have gone away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from kling_async.errors import RequestTimeout
from kling_async.protocol.auth import Sealed
from kling_async.protocol.bodies import Body
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.requests import create_request
from kling_async.protocol.sources import ImageSource
from kling_async.transport.pictures import inspect
from kling_async.transport.sessions import Connection, Session

pytestmark = pytest.mark.anyio
Make = Callable[..., bytes]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Serve with a small buffer in the kernel, so that what is not read is soon felt."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.bind(("127.0.0.1", 0))
    over: list[asyncio.Event] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.Event())
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        over[-1].set()

    server = await asyncio.start_server(one, sock=sock, limit=10_000)
    async with server:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        for each in over:
            await each.wait()


async def send(url: str, data: bytes, timeouts: Timeouts) -> RequestTimeout:
    picture = await inspect(ImageSource.of(data), "style_image")
    request = create_request("/v1/images/multi-image2image", Body.from_json([picture, picture]))
    session = Session(Connection(base_url=url, trust_env=False))
    try:
        with pytest.raises(RequestTimeout) as caught:
            await session.send(request, Sealed("token"), timeouts)
    finally:
        await session.aclose()
    assert caught.value.sent
    return caught.value


async def test_a_stuck_connection_is_given_up_early(make_picture: Make) -> None:
    """A peer that takes nothing any more is told from a slow one, long before the time that the body would have."""
    done = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        await done.wait()

    async with listening(stall) as url:
        error = await send(
            url, make_picture().ljust(9_900_000, b"\0"), Timeouts(request=0.4, per_megabyte=100.0)
        )
        done.set()

    assert "stuck" in str(error)
    assert "of 26.4 MB" in str(error)


async def test_a_slow_connection_has_its_time(make_picture: Make) -> None:
    """A peer that goes on taking a little is not stuck; when the time for the body is over the error says how far it came."""

    async def trickle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(100_000):  # noqa: ASYNC110  # to be slow is the point
            await asyncio.sleep(0.05)

    async with listening(trickle) as url:
        error = await send(
            url, make_picture().ljust(9_900_000, b"\0"), Timeouts(request=2.0, per_megabyte=0.02)
        )

    assert "too slow" in str(error)
    assert "per_megabyte" in str(error)
