"""The programs of docs/frameworks, as they stand there, each behind the server that its page names."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest
from web_kit import EXAMPLES, events, free_port, served

from kling_async.testing import RunningEmulator, running_emulator

pytestmark = pytest.mark.anyio

PAGES = Path(__file__).resolve().parents[2] / "docs" / "frameworks"
_UVICORN = ("-m", "uvicorn", "--factory", "app:application", "--timeout-graceful-shutdown", "3", "--port")
TOO_LONG = {"field": "prompt", "expected": "at most 2500 characters", "remedy": "shorten it"}
SERVERS: dict[str, tuple[str, ...]] = {
    "aiohttp-web": ("app.py",),
    "fastapi": _UVICORN,
    "litestar": _UVICORN,
    "quart": ("-m", "hypercorn", "app:application()", "--bind"),
    "starlette": _UVICORN,
}


def command(name: str, port: int) -> list[str]:
    """Return how the program of a page is started."""
    where = f"127.0.0.1:{port}" if name == "quart" else str(port)
    return [*SERVERS[name], where]


def program(name: str) -> str:
    """Return the one block of Python on a page."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (PAGES / f"{name}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(code)


def prepare(name: str, folder: Path) -> None:
    """Put the program of a page into *folder*, with the picture that it uses."""
    (folder / "app.py").write_text(program(name), encoding="utf-8")
    (folder / "robot.jpg").write_bytes((EXAMPLES / "pictures" / "robot.jpg").read_bytes())


def test_every_page_is_run() -> None:
    """There is a server for each page, and its command is what the page says."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(SERVERS)
    for name, words in SERVERS.items():
        for word in words:
            assert word in program(name).splitlines()[0] or word in {"-m", "--port", "--bind"}


@pytest.fixture
def emulator() -> object:
    """Run a Kling whose tasks take a second."""
    with running_emulator(speed=20, task_seconds=20) as emulator:
        yield emulator


@pytest.mark.parametrize("name", SERVERS)
async def test_a_page(name: str, emulator: RunningEmulator, tmp_path: Path) -> None:
    """A picture is awaited in a request, a job is accepted, followed and found, and the server ends cleanly."""
    await anyio.to_thread.run_sync(prepare, name, tmp_path)
    port = free_port()
    limit = aiohttp.ClientTimeout(total=60)
    with served(command(name, port), port, folder=tmp_path, env=emulator.env) as process:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=limit) as session:
            awaited = asyncio.ensure_future(picture(session))
            async with session.post("/jobs", json={"prompt": "in the snow"}) as reply:
                accepted, where = await reply.json(), reply.headers["Location"]
                status = (reply.status, reply.headers["Retry-After"])
            async with session.get("/live/", params={"task": accepted["id"]}) as stream:
                told = [sent.data["status"] async for sent in events(stream.content) if sent.name == "task"]
            async with session.get(where) as reply:
                ended = await reply.json()
            async with session.get("/jobs/none") as reply:
                unknown = reply.status
            async with session.post("/jobs", json={"prompt": "x" * 3000}) as reply:
                invalid = (reply.status, await reply.json())
            async with session.get("/picture", params={"prompt": "x" * 3000}) as reply:
                invalid_too = (reply.status, await reply.json())
            image = await awaited
        process.terminate()
        code = await anyio.to_thread.run_sync(process.wait, 30)

    log = await anyio.Path(tmp_path / "server.log").read_text("utf-8")
    assert status == (202, "2")
    assert told[-1] == "succeeded"
    assert (ended["status"], ended["pictures"], unknown) == ("succeeded", 1, 404)
    assert image == b"\x89PNG"
    assert invalid == invalid_too == (422, TOO_LONG)
    assert (code in {0, -15}, "Traceback" in log, "ResourceWarning" in log) == (True, False, False), log


async def picture(session: aiohttp.ClientSession) -> bytes:
    """Ask for a picture and return how it begins."""
    async with session.get("/picture", params={"prompt": "in the rain"}) as reply:
        assert (reply.status, reply.content_type) == (200, "image/png")
        return (await reply.read())[:4]
