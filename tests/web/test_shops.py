"""The three shops, each in a process of its own, driven as a browser drives them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from attrs import frozen
from web_kit import EXAMPLES, events, free_port, path_with, served
from yarl import URL

from kling_async.testing import RunningEmulator, running_emulator

pytestmark = pytest.mark.anyio

SHOPS = ["fastapi_shop", "aiohttp_shop", "litestar_shop"]
SECRET = "whsec_c2hvcC1zaG9wLXNob3Atc2hvcC1zaG9wLTEyMzQ="
PHOTO = EXAMPLES / "pictures" / "jug.jpg"


@frozen
class Open:
    """A shop that is open: where, and in which process."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path


@contextmanager
def opened(name: str, emulator: RunningEmulator, folder: Path, **env: str) -> Iterator[Open]:
    """Open a shop whose Kling is *emulator*, and which that calls back."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {**emulator.env, "SHOP_URL": url, "KLING_WEBHOOK_SECRET": SECRET, **path_with(EXAMPLES)} | env
    command = ["-W", "error", "-m", f"{name}.app", str(port)]
    with served(command, port, folder=folder, env=env) as process:
        yield Open(url, process, folder)


@asynccontextmanager
async def visiting(shop: Open) -> AsyncIterator[aiohttp.ClientSession]:
    """Be a browser at *shop*."""
    async with aiohttp.ClientSession(shop.url, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def ordered(
    session: aiohttp.ClientSession, photo: bytes | None = None, **fields: str
) -> dict[str, Any]:
    """Order pictures and return what the shop says, with the address of the order."""
    form = aiohttp.FormData({"scene": "meadow", "style": "watercolour", "count": "2", **fields})
    if photo is not None:
        form.add_field("photo", photo, filename="photo.jpg", content_type="image/jpeg")
    async with session.post("/orders", data=form) as reply:
        said: dict[str, Any] = await reply.json()
        return said | {"http": reply.status, "location": reply.headers.get("Location", "")}


async def followed(session: aiohttp.ClientSession, order_id: str) -> list[Mapping[str, Any]]:
    """Follow an order live until it has ended."""
    async with session.get("/live/", params={"task": order_id}) as reply:
        assert reply.status == 200
        return [sent.data async for sent in events(reply.content) if sent.name == "task"]


async def told(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    """Ask where an order stands."""
    async with session.get(address) as reply:
        assert reply.status == 200
        found: dict[str, Any] = await reply.json()
        return found


@pytest.mark.parametrize("callbacks", ["callbacks arrive", "callbacks are lost"])
@pytest.mark.parametrize("name", SHOPS)
async def test_an_order(name: str, callbacks: str, tmp_path: Path) -> None:
    """A photo is uploaded, followed live, and comes back as pictures; with callbacks and without."""
    faults = "" if callbacks == "callbacks arrive" else "lost-callback:100%"
    with running_emulator(speed=20, task_seconds=20, webhook_secret=SECRET, faults=faults) as emulator:
        with opened(name, emulator, tmp_path) as shop:
            async with visiting(shop) as session:
                order = await ordered(session, PHOTO.read_bytes(), wish="On a warm evening")
                states = await followed(session, order["id"])
                ended = await told(session, order["location"])
                pictures = [await _bytes(session, url) for url in ended["pictures"]]
            posted, tasks = emulator.callbacks, emulator.tasks

    assert (order["http"], order["status"], order["location"]) == (202, "accepted", f"/orders/{order['id']}")
    assert (states[-1]["status"], states[-1]["ended"]) == ("succeeded", True)
    assert (ended["id"], ended["status"], ended["ended"], ended["error"]) == (
        order["id"],
        "succeeded",
        True,
        None,
    )
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 2
    assert {record.answer for record in posted} == (set() if faults else {200})
    assert [task.external_task_id for task in tasks] == [order["id"]]


async def _bytes(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as reply:
        assert (reply.status, reply.content_type) == (200, "image/png")
        return await reply.read()


@pytest.mark.parametrize("name", SHOPS)
async def test_a_shop_that_is_killed_loses_no_order(name: str, tmp_path: Path) -> None:
    """After kill -9 the shop that is started again makes every order that was accepted, each once."""
    with running_emulator(speed=20, task_seconds=40, slots=4) as emulator:
        with opened(name, emulator, tmp_path, KLING_SLOTS="4") as shop:
            async with visiting(shop) as session:
                orders = [await ordered(session, sample="robot") for _ in range(5)]
                await anyio.sleep(0.5)
            shop.process.send_signal(signal.SIGKILL)
            shop.process.wait()
        with opened(name, emulator, tmp_path, KLING_SLOTS="4") as shop:
            async with visiting(shop) as session, asyncio.timeout(60):
                for order in orders:
                    states = await followed(session, order["id"])
                    assert states[-1]["status"] == "succeeded"
        tasks = [emulator.accepted(order["id"]) for order in orders]

    assert tasks == [1] * 5


@pytest.mark.parametrize("name", SHOPS)
async def test_what_a_shop_refuses(name: str, tmp_path: Path) -> None:
    """Orders that cannot be made are 422 with a reason, unknown orders 404, too large photos 413 or 422; nothing is sent."""
    with running_emulator() as emulator, opened(name, emulator, tmp_path) as shop:
        async with visiting(shop) as session:
            refused = [
                await ordered(session),
                await ordered(session, b"no picture"),
                await ordered(session, sample="robot", scene="moon"),
                await ordered(session, sample="../../core.py"),
                await ordered(session, sample="robot", count="5"),
            ]
            large = await _status_of_a_photo(session, b"\xff\xd8" + bytes(11_000_000))
            lost = []
            for path in ("/orders/unknown", "/orders/unknown/pictures/0", "/orders/..%2F..%2Fjob/pictures/0"):
                async with session.get(URL(path, encoded=True)) as reply:
                    lost.append(reply.status)
            async with session.get("/") as reply:
                page = await reply.text()
            async with session.get("/static/shop.js") as script, session.get("/samples/jug.jpg") as sample:
                served_too = (script.status, sample.status)
        requests = emulator.requests

    assert {said["http"] for said in refused} == {422}
    assert "a whole PNG or JPEG picture" in refused[1]["detail"]
    assert large in {413, 422}
    assert lost == [404] * 3
    assert "<title>Studio" in page
    assert served_too == (200, 200)
    assert requests == []


async def _status_of_a_photo(session: aiohttp.ClientSession, photo: bytes) -> int:
    form = aiohttp.FormData()
    form.add_field("photo", BytesIO(photo), filename="photo.jpg", content_type="image/jpeg")
    try:
        async with session.post("/orders", data=form) as reply:
            return reply.status
    except aiohttp.ClientError:
        return 413  # closed in the middle, as a server may that reads no more


@pytest.mark.parametrize("name", SHOPS)
async def test_a_shop_ends_though_somebody_watches(name: str, tmp_path: Path) -> None:
    """A shop that is told to end does so within seconds, with a stream open and an order running, and without a trace."""
    with running_emulator(speed=1, task_seconds=3600.0) as emulator:
        with opened(name, emulator, tmp_path) as shop:
            async with visiting(shop) as session:
                order = await ordered(session, sample="dress")
                async with session.get("/live/", params={"task": order["id"]}) as reply:
                    await reply.content.readline()
                    shop.process.terminate()
                    code = await anyio.to_thread.run_sync(shop.process.wait, 30)

    log = await anyio.Path(tmp_path / "server.log").read_text(encoding="utf-8")
    # uvicorn cancels streams that are open after its grace, and shows where.
    assert log.count("Traceback") == log.count("CancelledError: Task cancelled, timeout graceful"), log
    assert code in {0, -signal.SIGTERM}
    assert "Warning" not in log, log
