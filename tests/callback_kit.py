"""What the tests of callbacks share: a client whose callbacks arrive over a real socket, and who posts them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field
from socket_kit import PATH, Plain, answer, client, job, task
from yarl import URL

from kling_async import Kling
from kling_async.emulator import Emulator
from kling_async.integrations.aiohttp_web import callback_app
from kling_async.protocol.callbacks import sign

__all__ = ["MOUNT", "SECRET", "Books", "Shop", "listening", "open_shop", "service", "serving", "signed"]

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
MOUNT = "/kling/hook"


def listening() -> tuple[socket.socket, int]:
    """Return a socket that listens on a free port of this machine."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    return sock, sock.getsockname()[1]


@define(eq=False)
class Books:
    """A service with one task, which ends when *ended* is set; it counts who asks."""

    task_id: str = "1234567890"
    ended: bool = False
    server: Plain = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.server = Plain(
            lambda asked: answer(
                self.shown() if asked.method == "POST" or asked.path != PATH else [self.shown()]
            )
        )

    def shown(self) -> dict[str, Any]:
        if not self.ended:
            return task(self.task_id, "processing")
        picture = {"index": 0, "url": f"{self.server.url}/result.png"}
        return task(self.task_id, "succeed", task_result={"images": [picture]})

    @property
    def looks(self) -> int:
        """How often the task was asked for."""
        return sum(asked.path == f"{PATH}/{self.task_id}" for asked in self.server.of("GET"))


@asynccontextmanager
async def service() -> AsyncIterator[Books]:
    """Serve one task."""
    books = Books()
    async with books.server:
        yield books


@define(eq=False)
class Shop:
    """An application of aiohttp.web with the receiver in it, and a way to post to it."""

    kling: Kling
    port: int
    session: aiohttp.ClientSession

    @property
    def address(self) -> str:
        """Where callbacks of this client go."""
        assert self.kling.callbacks.address is not None
        return self.kling.callbacks.address

    async def post(self, body: object, headers: Mapping[str, str] | None = None, *, to: str = "") -> int:
        """Post *body*, as JSON if it is no bytes yet, and return the status of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(to or self.address, data=data, headers=headers) as reply:
            await reply.read()
            return reply.status

    async def make(self, **fields: Any) -> str:
        """Create a task that nobody waits for, and return its id."""
        handle = await self.kling.images.multi_image.create(job(**fields))
        return handle.task_id

    async def say(self, raw: bytes) -> int:
        """Send *raw* as it is on a connection of its own and return the status of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n")
        finally:
            writer.close()
        return int(head.split()[1])

    @property
    def path(self) -> str:
        """The path of the address."""
        return URL(self.address).raw_path_qs


def signed(
    body: bytes, message_id: str = "m-1", *, secret: str = SECRET, at: float | None = None
) -> dict[str, str]:
    """Return the headers of a signed callback."""
    stamp = int(time.time() if at is None else at)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret, message_id, stamp, body),
    }


@asynccontextmanager
async def serving(app: web.Application, sock: socket.socket) -> AsyncIterator[None]:
    """Serve *app* on *sock*."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_shop(
    server: Emulator | Plain, *, patience: float = 10.0, **options: Any
) -> AsyncIterator[Shop]:
    """Serve a client's receiver with aiohttp.web; without other *options* its own polling is too slow to be seen."""
    sock, port = listening()
    usual = {"callback_url": f"http://127.0.0.1:{port}{MOUNT}", "min_poll_interval": 50.0}
    app = web.Application()
    async with client(server, **{**usual, **options}) as kling, aiohttp.ClientSession() as session:
        app.add_subapp(MOUNT, callback_app(kling, patience=patience))
        async with serving(app, sock):
            yield Shop(kling, port, session)
