from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from attrs import define, field
from PIL import Image


@pytest.fixture
def anyio_backend() -> str:
    """Sockets of aiohttp need asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., bytes]:
    """Make the bytes of a noisy picture."""

    def make(format: str = "PNG", size: tuple[int, int] = (400, 300), **options: Any) -> bytes:  # noqa: A002  # Pillow's own name
        buffer = io.BytesIO()
        Image.effect_noise(size, 80).convert("RGB").save(buffer, format, **options)
        return buffer.getvalue()

    return make


@define(eq=False)
class RawServer:
    """Answers each request with bytes from *replies* by path, in one write, and keeps what it was sent."""

    url: str = ""
    replies: dict[str, bytes] = field(factory=dict)
    requests: list[bytes] = field(factory=list)
    bodies: list[bytes] = field(factory=list)
    hang: asyncio.Event = field(factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                length = next(
                    (
                        int(line[15:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                body = bytearray()
                self.bodies.append(body)  # type: ignore[arg-type]  # grows while it is read
                while len(body) < length:
                    piece = await reader.read(min(1 << 16, length - len(body)))
                    if not piece:
                        return
                    body += piece
                reply = self.replies.get(
                    head.split(b" ")[1].decode(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
                )
                writer.write(reply.removesuffix(b"<hang>").removesuffix(b"<cut>"))
                await writer.drain()
                if reply.endswith(b"<hang>"):
                    await self.hang.wait()
                if reply.endswith((b"<hang>", b"<cut>")):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    """A server on loopback that counts what reaches it."""
    raw = RawServer()
    listening = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield raw
    raw.hang.set()
    listening.close()
    await listening.wait_closed()
