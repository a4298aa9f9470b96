"""The receiver of callbacks mounted in real frameworks, served by uvicorn, called over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from callback_kit import MOUNT, SECRET, Shop, listening, service, signed
from fastapi import FastAPI
from hypercorn.middleware import DispatcherMiddleware
from litestar import Litestar, asgi
from quart import Quart
from socket_kit import client, job, leaves_nothing, logged, until
from starlette.applications import Starlette
from starlette.routing import Mount

from kling_async import Kling
from kling_async.emulator import Emulator
from kling_async.integrations.asgi import callbacks

pytestmark = pytest.mark.anyio


def starlette(hook: Any) -> Any:
    return Starlette(routes=[Mount(MOUNT, app=hook)])


def nested(hook: Any) -> Any:
    """Two mounts, one in the other."""
    outer, inner = MOUNT.rsplit("/", 1)
    return Starlette(routes=[Mount(outer, routes=[Mount(f"/{inner}", app=hook)])])


def fastapi(hook: Any) -> Any:
    app = FastAPI()
    app.mount(MOUNT, hook)
    return app


def litestar(hook: Any) -> Any:
    return Litestar([asgi(MOUNT, is_mount=True, copy_scope=True)(hook)])


def quart(hook: Any) -> Any:
    return DispatcherMiddleware({MOUNT: hook, "": Quart("shop")})


def alone(hook: Any) -> Any:
    return hook


MAKERS: dict[str, Callable[[Any], Any]] = {
    maker.__name__: maker for maker in (starlette, nested, fastapi, litestar, quart, alone)
}


@asynccontextmanager
async def serving(app: Any, sock: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve *app* with uvicorn, which demands that it knows of lifespans."""
    config = uvicorn.Config(app, lifespan="on", log_level="warning", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started or task.done())
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def open_shop(
    make: Callable[[Any], Any], server: Any, *, patience: float = 10.0, root_path: str = "", **options: Any
) -> AsyncIterator[Shop]:
    """Serve a client's receiver in what *make* makes of it."""
    sock, port = listening()
    usual = {"callback_url": f"http://127.0.0.1:{port}{MOUNT}", "min_poll_interval": 50.0}
    async with client(server, **{**usual, **options}) as kling, aiohttp.ClientSession() as session:
        app = make(callbacks(kling, patience=patience))
        async with serving(app, sock, root_path=root_path):
            yield Shop(kling, port, session)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_task_is_seen_by_its_callback(name: str, secret: str | None) -> None:
    """In each framework, signed and unsigned: a task's end is in hand long before polling would have looked."""
    async with (
        leaves_nothing(),
        Emulator(speed=100, task_seconds=20.0, paint="stamp", webhook_secret=secret) as emulator,
        open_shop(MAKERS[name], emulator, webhook_secret=secret) as shop,
    ):
        done = await shop.kling.images.multi_image.run(job(), wait_timeout=30)
        await until(lambda: len(emulator.callbacks) == 3)

    assert done.status.value == "succeed"
    assert {record.answer for record in emulator.callbacks} == {200}


@pytest.mark.parametrize("name", MAKERS)
async def test_strangers_get_the_same_answers_everywhere(name: str) -> None:
    """Forged, misdirected, oversized, packed and slow requests are refused, and nothing is logged as a defect."""
    big = b"x" * 100_000
    async with service() as books, open_shop(MAKERS[name], books.server, patience=0.3) as shop:
        with logged() as log:
            found = {
                "known": await shop.post(b'{"task_id": "1"}'),
                "empty": await shop.post(b""),
                "guessed": await shop.post(b'{"task_id": "1"}', to=shop.address[:-1]),
                "large": await shop.post(big),
                "packed": await shop.post(gzip.compress(big), {"Content-Encoding": "gzip"}),
                "slow": await shop.say(
                    f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc".encode()
                ),
            }
            async with shop.session.get(shop.address) as reply:
                found["get"] = reply.status

    assert found == {
        "known": 200, "empty": 400, "guessed": 404, "large": 413, "packed": 413, "slow": 408, "get": 405
    }  # fmt: skip
    assert log.errors == []
    assert books.server.asked == []


@pytest.mark.parametrize("name", MAKERS)
async def test_signatures_count_everywhere(name: str) -> None:
    """With a secret a genuine callback is 200, and one with a header of odd bytes is 401 or refused by the server."""
    body = b'{"task_id": "1"}'
    odd = b"webhook-id: \xff\xfe\r\nwebhook-signature: v1,\xc3\r\nwebhook-timestamp: nan\r\n"
    async with service() as books, open_shop(MAKERS[name], books.server, webhook_secret=SECRET) as shop:
        head = f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()

        answers = [
            await shop.post(body, signed(body)),
            await shop.post(body, signed(body, "m-2", secret="whsec_b3RoZXItb3RoZXItb3RoZXI=")),
            await shop.post(body),
        ]
        strange = await shop.say(head + odd + b"\r\n" + body)

    assert answers == [200, 401, 401]
    assert strange in {400, 401}


def shown_in_the_docs() -> list[str]:
    page = Path(__file__).resolve().parents[2] / "docs" / "callbacks.md"
    return re.findall(r"^```py\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", shown_in_the_docs())
async def test_the_lines_of_the_docs_mount_it(code: str) -> None:
    """Each framework's lines in docs/callbacks.md, as they stand, make an application that takes callbacks in."""

    def documented(hook: Any) -> Any:
        names: dict[str, Any] = {"kling": None, "callbacks": lambda _: hook}
        exec(compile(code, "docs/callbacks.md", "exec"), names)
        return names["app"]

    async with service() as books, open_shop(documented, books.server) as shop:
        assert await shop.post(b'{"task_id": "1"}') == 200


async def test_a_root_path_does_not_matter() -> None:
    """Behind a proxy that takes a prefix off, and a server that is told so, callbacks are found."""
    async with service() as books, open_shop(starlette, books.server, root_path="/api") as shop:
        assert await shop.post(b'{"task_id": "1"}') == 200


async def test_a_sender_that_goes_away_is_counted() -> None:
    """A connection that ends in the middle of a body leaves nothing behind."""
    async with service() as books, open_shop(starlette, books.server) as shop:
        _, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        writer.write(f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc".encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

        await until(lambda: shop.kling.callbacks.statistics().refused)

    assert shop.kling.callbacks._receiver._held == 0


async def test_a_websocket_is_closed() -> None:
    """A websocket at the address is turned down politely."""
    kling = Kling(api_key="some-api-key", callback_url="https://shop.example/hook")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await callbacks(kling)({"type": "websocket"}, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]
