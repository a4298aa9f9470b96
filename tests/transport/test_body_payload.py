from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from kling_async.errors import InvalidJob
from kling_async.protocol.bodies import Body
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import ImageSource
from kling_async.transport.bodies import BodyPayload
from kling_async.transport.larder import Larder
from kling_async.transport.pictures import inspect
from kling_async.transport.turns import Step

pytestmark = pytest.mark.anyio
Make = Callable[..., bytes]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def big(tmp_path: Path, make_picture: Make) -> tuple[Path, Body]:
    """A body of a picture of 3 MB in a file and a small one in memory."""
    path = tmp_path / "big.png"
    path.write_bytes(make_picture(size=(1200, 900)).ljust(3_000_000, b"\0"))
    pictures = [
        await inspect(ImageSource.of(path), "a"),
        await inspect(ImageSource.of(make_picture("JPEG")), "b"),
    ]
    return path, Body.from_json(
        {"prompt": "a dress", "subject_image_list": [{"subject_image": one} for one in pictures]}
    )


async def test_a_body_arrives_exactly(
    server: Any, session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """The service gets the JSON with base64 in it and its exact length, each time the payload is sent."""
    path, body = big
    payload = BodyPayload(body)

    for _ in range(2):
        async with session.post(server.url, data=payload) as response:
            assert response.status == 200

    assert payload.began
    assert payload.fault is None
    for head, sent in zip(server.requests, server.bodies, strict=True):
        assert f"Content-Length: {body.length}\r\n".encode() in head
        assert b"Content-Type: application/json\r\n" in head
        assert b"Transfer-Encoding" not in head
        assert (
            json.loads(sent)["subject_image_list"][0]["subject_image"]
            == base64.b64encode(path.read_bytes()).decode()
        )
    assert server.bodies[0] == server.bodies[1]


async def test_nothing_is_sent_for_a_file_that_changed(
    server: Any, session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """A file changed since its check is noticed before the first byte, and the payload says so."""
    path, body = big
    os.utime(path, ns=(1, 1))
    payload = BodyPayload(body)

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.post(server.url, data=payload)

    assert not payload.began
    assert isinstance(payload.fault, InvalidJob)
    assert server.requests == []


async def test_a_file_cut_while_it_is_sent_breaks_the_connection(
    server: Any, session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """A file that shrinks under way leaves the service with less than announced and a closed connection."""
    path, body = big

    class Cutting(Larder):
        """One under whose hands the file shrinks."""

        async def pieces(self, picture: Picture, step: Step) -> AsyncGenerator[bytes | memoryview, None]:
            number = 0
            async for piece in super().pieces(picture, step):
                number += 1
                if number == 5:
                    os.truncate(path, 1_000_000)
                yield piece

    payload = BodyPayload(body, Cutting(budget=0))

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.post(server.url, data=payload)
    async with session.get(server.url) as response:
        assert response.status == 200

    assert payload.began
    assert isinstance(payload.fault, InvalidJob)
    assert len(server.bodies[0]) < body.length
    assert len(server.requests) == 2


async def test_a_refused_connection_did_not_begin(
    session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """Where nobody listens nothing begins, so the request may be sent again."""
    payload = BodyPayload(big[1])

    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post("http://127.0.0.1:1/", data=payload)

    assert not payload.began


async def test_a_peer_that_leaves_is_no_fault_of_ours(
    session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """A connection lost under way shows as aiohttp's error, with *began* and without *fault*."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.transport.abort()

    listening = await asyncio.start_server(leave, "127.0.0.1", 0)
    payload = BodyPayload(big[1])

    async with listening:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", data=payload)

    assert payload.began
    assert payload.fault is None


async def test_a_cancelled_request_leaves_nothing(
    session: aiohttp.ClientSession, big: tuple[Path, Body]
) -> None:
    """Cancelled while the peer does not read, the request ends at once, and its file is closed."""
    begun, leave = asyncio.Event(), asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        await leave.wait()
        writer.close()

    listening = await asyncio.start_server(stall, "127.0.0.1", 0, limit=1000)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    task = asyncio.create_task(session.post(url, data=BodyPayload(big[1])))
    await begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leave.set()
    async with listening:
        await asyncio.sleep(0)

    assert str(big[0]) not in open_files()


def open_files() -> list[str]:
    """Return what the process has open, by name."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(str(each.readlink()))
    return found


class Greedy(AbstractStreamWriter):
    """A peer so fast that writing never waits; notes the turns of the loop at each piece."""

    def __init__(self) -> None:
        self.turns = 0
        self.seen: list[int] = []
        self.size = 0

    async def count(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.seen.append(self.turns)
        self.size += len(chunk)

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Need nothing."""

    async def drain(self) -> None:
        """Need nothing."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """Need nothing."""

    def enable_chunking(self) -> None:
        """Need nothing."""

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Need nothing."""


async def test_other_work_goes_on_beside_a_body(big: tuple[Path, Body]) -> None:
    """The loop gets a turn for every piece, even when the peer takes all at once, and no piece is large."""
    writer = Greedy()
    counting = asyncio.create_task(writer.count())

    await BodyPayload(big[1]).write(writer)
    counting.cancel()

    assert writer.size == big[1].length
    assert len(set(writer.seen)) >= big[1].length // 196_608


async def test_a_payload_shows_nothing_of_its_body(big: tuple[Path, Body]) -> None:
    """The repr has the length only, and the text of a body is never built."""
    payload = BodyPayload(big[1])

    assert repr(payload) == f"<BodyPayload of {big[1].length} bytes, not begun>"
    with pytest.raises(TypeError):
        payload.decode()
