"""The first web application of the tutorial, as it grows on docs/first-app.md, behind the server that the page names."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import anyio
import pytest
from web_kit import EXAMPLES, free_port, served

from kling_async.testing import RunningEmulator, running_emulator

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first-app.md"
TOO_LONG = {"field": "prompt", "expected": "at most 2500 characters", "remedy": "shorten it"}
SERVER = ("-m", "uvicorn", "app:app", "--port")


def blocks() -> list[str]:
    """Return the blocks of Python on the page."""
    return re.findall(r"^```python web\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def emulator() -> object:
    """Run a Kling whose tasks end at once."""
    with running_emulator() as emulator:
        yield emulator


def prepare(folder: Path, code: str) -> None:
    """Put the application into *folder*, with the picture that it uses."""
    (folder / "app.py").write_text(code, encoding="utf-8")
    (folder / "robot.jpg").write_bytes((EXAMPLES / "pictures" / "robot.jpg").read_bytes())


async def test_a_picture_in_the_answer(emulator: RunningEmulator, tmp_path: Path) -> None:
    """The first half answers with a picture, and with what to do when the prompt is refused."""
    prepare(tmp_path, blocks()[0])
    port = free_port()

    with served((*SERVER, str(port)), port, folder=tmp_path, env=emulator.env):
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/picture") as reply:
                picture = (reply.status, await reply.read())
            async with session.get("/picture", params={"prompt": "[[refuse]]"}) as reply:
                refused = (reply.status, await reply.text())
            async with session.get("/picture", params={"prompt": "x" * 3000}) as reply:
                invalid = (reply.status, await reply.json())

    assert picture[0] == 200
    assert picture[1].startswith(b"\x89PNG")
    assert refused[0] == 502
    assert "1301" in refused[1]
    assert invalid == (422, TOO_LONG)


async def test_an_answer_at_once(emulator: RunningEmulator, tmp_path: Path) -> None:
    """The second half accepts a job, tells where it stands, and keeps it over a restart of the server."""
    prepare(tmp_path, blocks()[1])
    port = free_port()

    with served((*SERVER, str(port)), port, folder=tmp_path, env=emulator.env) as server:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            session.post("/jobs", params={"prompt": "A robot at sea"}) as reply,
        ):
            accepted = (reply.status, await reply.json())
            async with session.post("/jobs", params={"prompt": "x" * 3000}) as refusal:
                invalid = (refusal.status, await refusal.json())
        server.kill()
    with served((*SERVER, str(port)), port, folder=tmp_path, env=emulator.env):
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            with anyio.fail_after(60):
                report = await _ended(session, accepted[1]["id"])
            async with session.get("/jobs/none") as reply:
                unknown = reply.status

    assert accepted[0] == 202
    assert invalid == (422, TOO_LONG)
    assert (report["status"], report["pictures"]) == ("succeeded", 1)
    assert emulator.accepted(accepted[1]["id"]) == 1
    assert unknown == 404


async def _ended(session: aiohttp.ClientSession, job_id: str) -> dict[str, object]:
    while True:
        async with session.get(f"/jobs/{job_id}") as reply:
            report: dict[str, object] = await reply.json()
        if report["status"] in {"succeeded", "failed"}:
            return report
        await anyio.sleep(0.05)


def test_the_page_starts_it_so() -> None:
    """The command of the page is the one that is tried here."""
    assert f"\n{SERVER[1]} {SERVER[2]}\n" in PAGE.read_text("utf-8")
