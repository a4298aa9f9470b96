"""What a program that is started again learns of jobs that were done before, without reading results itself."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path

import pytest
from socket_kit import client, creates, job

from kling_async import Outcome, Skipped, Succeeded, errors, read_manifest
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio


async def made(emulator: Emulator, jobs: object, out: Path) -> dict[str, Outcome]:
    """Run *jobs* into *out* and return the outcomes by key."""
    async with client(emulator) as kling:
        return {outcome.key: outcome async for outcome in kling.batch(jobs, out=out)}  # type: ignore[arg-type]  # rows or jobs


@pytest.mark.parametrize("kind", ["jobs", "rows"])
async def test_a_skipped_job_has_what_the_earlier_run_made(tmp_path: Path, kind: str) -> None:
    """Its files, units and task are those of the outcome then, also once the client is closed, and in another process."""
    (tmp_path / "m.jsonl").write_text(
        '{"key": "a", "n": 2, "subject_images": ["https://pictures.example/woman.png"]}\n'
        '{"key": "b", "subject_images": ["https://pictures.example/woman.png"], "prompt": "[[refuse]]"}\n'
    )

    def jobs() -> object:
        listed = [job(key="a", n=2), job(key="b", prompt="[[refuse]]")]
        return listed if kind == "jobs" else read_manifest(tmp_path / "m.jsonl")

    async with Emulator(paint="stamp") as emulator:
        before = await made(emulator, jobs(), tmp_path / "out")
        after = await made(emulator, jobs(), tmp_path / "out")
        sent = creates(emulator)

    done, again, failed = before["a"], after["a"], after["b"]
    assert isinstance(done, Succeeded)
    assert isinstance(again, Skipped)
    assert isinstance(failed, Skipped)
    assert again.files == done.files
    assert len(again.files) == 2
    assert (again.units, again.task_id) == (Decimal(32), done.task.task_id)
    assert (failed.files, failed.units, failed.task_id) == ((), None, "")
    copy = pickle.loads(pickle.dumps(again))
    assert (copy, copy.files) == (again, done.files)
    assert sent == 2


async def test_it_is_read_while_the_batch_runs_too(tmp_path: Path) -> None:
    """From the journal that is open, in the middle of the loop."""
    async with Emulator(paint="stamp") as emulator:
        before = await made(emulator, [job(key="a")], tmp_path / "out")
        async with client(emulator) as kling:
            files = [
                outcome.files
                async for outcome in kling.batch([job(key="a")], out=tmp_path / "out")
                if isinstance(outcome, Skipped)
            ]

    assert isinstance(before["a"], Succeeded)
    assert files == [before["a"].files]


async def test_a_journal_that_is_gone_is_told(tmp_path: Path) -> None:
    """Nothing is made up in its place; what needs no journal stays."""
    async with Emulator(paint="stamp") as emulator:
        await made(emulator, [job(key="a")], tmp_path / "out")
        after = await made(emulator, [job(key="a")], tmp_path / "out")
    for path in (tmp_path / "out").glob("journal.db*"):
        path.unlink()

    skipped = after["a"]

    assert isinstance(skipped, Skipped)
    assert (skipped.key, skipped.earlier) == ("a", "succeeded")
    with pytest.raises(errors.JournalError, match=r"journal\.db"):
        _ = skipped.files
    assert Skipped(key="a", reason="x").files == ()
