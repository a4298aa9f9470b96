"""The examples do what their first lines say, against the emulator."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import aiohttp
import pytest

from kling_async.testing import RunningEmulator

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def _run(name: str, emulator: RunningEmulator, folder: Path, *words: str, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *words],
        env=os.environ | emulator.env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (code, "")
    return result.stdout


def _pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.read_bytes().startswith(b"\x89PNG"))


def test_one_picture(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The first example shows ids, ends with the status and saves one picture."""
    said = _run("01_one_picture.py", kling_emulator, tmp_path)

    (task,) = kling_emulator.tasks
    assert said.startswith(f"task {task.task_id} also known as {task.external_task_id}\n")
    assert "status succeed\nsaved " in said
    assert _pictures(tmp_path / "out") == [f"{task.external_task_id}_0.png"]


def test_ten_line_batch(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The second example makes twelve pictures of six jobs and tells how busy the slots were."""
    said = _run("02_ten_line_batch.py", kling_emulator, tmp_path)

    assert len(kling_emulator.tasks) == 6
    assert len(_pictures(tmp_path / "out" / "images")) == 12
    assert "jug-meadow out/images/jug-meadow_0.png out/images/jug-meadow_1.png\n" in said
    assert said.splitlines()[-1].startswith("slots were busy for ")


def test_catalogue(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The third example runs the four good rows, says what is wrong with the two bad ones and keeps a line for each."""
    said = _run("03_catalogue.py", kling_emulator, tmp_path)

    assert said.splitlines()[-1] == "4 done, 2 failed, 240 units spent"
    assert "aspect_ratio: expected one of" in said
    assert "coat.jpg; check the path" in said
    lines = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["status"] for line in lines) == ["failed"] * 2 + ["succeeded"] * 4


@pytest.mark.anyio
async def test_web_app(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The fourth example answers a request with a picture made for it, and ends cleanly when it is interrupted."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-u", EXAMPLES / "04_web_app.py", "0"),
        env=os.environ | kling_emulator.env,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    address = next(word for word in said.split() if word.startswith("http"))

    async with (
        aiohttp.ClientSession() as session,
        session.get(address, params={"prompt": "in the snow"}) as reply,
    ):
        body = await reply.read()
    process.terminate()
    _, complaints = await process.communicate()

    assert (reply.status, body[:4]) == (200, b"\x89PNG")
    assert [task.prompt for task in kling_emulator.tasks] == ["in the snow"]
    assert (process.returncode, complaints) == (0, b"")


def test_own_tests(pytester: pytest.Pytester) -> None:
    """The fifth example is a test file whose tests pass."""
    installed = entry_points(group="pytest11", name="kling_async")
    plugin = () if installed else ("-p", "kling_async.testing.plugin")

    result = pytester.runpytest_subprocess(*plugin, "-W", "error", EXAMPLES / "05_own_tests.py")

    result.assert_outcomes(passed=2)


def test_style_sweep(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The sixth example tells the cost first, makes each style with each prompt once, and sorts the files by style."""
    said = _run("06_style_sweep.py", kling_emulator, tmp_path).splitlines()

    assert said[0] == "8 pictures, at most 128 units"
    assert kling_emulator.tasks_created == 8
    assert len(_pictures(tmp_path / "out" / "images")) == 8
    assert said[-2].split()[:2] == ["watercolour", "out/images/robot-watercolour-dance_0.png"]
    assert len(said[-1].split()) == 5


def test_resume(kling_emulator: RunningEmulator, tmp_path: Path) -> None:
    """The seventh example is killed on purpose, continues, and has paid for each of its jobs once."""
    before = _run("07_resume.py", kling_emulator, tmp_path, "crash", code=9)
    after = _run("07_resume.py", kling_emulator, tmp_path)

    assert before.count("done jug-") == 2
    assert after.splitlines()[-1].endswith("done by this run")
    assert "failed" not in after
    # What was done and what was left: all twelve, whichever had ended at the moment of the crash.
    assert (
        len({line.split()[-1] if "before" in line else line.split()[1] for line in after.splitlines()[:-1]})
        == 12
    )
    assert kling_emulator.tasks_created == 12
    assert len(_pictures(tmp_path / "out" / "images")) == 12


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_examples_are_short(script: Path) -> None:
    """Every example has fewer than 60 lines, says first what will be seen, and is numbered without a gap."""
    text = script.read_text(encoding="utf-8")

    assert len(text.splitlines()) < 60
    assert "You will see " in text.split('"""')[1]
    assert script.name.startswith(f"{SCRIPTS.index(script) + 1:02}_")
