"""`Kling.fetch()`: pictures that are missing come back, and nothing is paid for, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from socket_kit import client, job

from kling_async import Succeeded, errors
from kling_async.batch.fetching import Fetched
from kling_async.batch.upkeep import read_status
from kling_async.emulator import Emulator, Fault
from kling_async.protocol.lifecycle import JobState

pytestmark = pytest.mark.anyio

JOBS = [job(key="one", n=2), job(key="marked", watermark=True), job(key="plain")]
# The service has deleted its tasks.
FORGOTTEN = Fault(action="refuse", route="get", code=1201, message="Task not found by id/external id: x")
NAMES = {"images/one_0.png", "images/one_1.png", "images/marked_0.png", "images/plain_0.png"}


async def finished(emulator: Emulator, out: Path, **options: Any) -> None:
    async with client(emulator) as kling:
        outcomes = [outcome async for outcome in kling.batch(JOBS, out=out, **options)]
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)


async def fetched(emulator: Emulator, out: Path, **options: Any) -> Fetched:
    async with client(emulator) as kling:
        return await kling.fetch(out=out, **options)


def pictures(out: Path) -> dict[str, bytes]:
    found = (path for kind in ("images", "watermarked") for path in (out / kind).glob("*.png"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


async def test_what_is_missing_or_damaged_comes_back(tmp_path: Path) -> None:
    """Files that were deleted, cut or exchanged are fetched anew, the spoilt ones kept aside; whole ones are left alone."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        await finished(emulator, tmp_path)
        before = pictures(tmp_path)
        (tmp_path / "images" / "one_0.png").unlink()
        (tmp_path / "images" / "one_1.png").write_bytes(before["images/one_1.png"][:-9])
        (tmp_path / "watermarked" / "marked_0.png").unlink()
        (tmp_path / "images" / "plain_0.png").unlink()
        (tmp_path / "images" / "plain_0.png").symlink_to(tmp_path / "results.jsonl")
        found = await fetched(emulator, tmp_path)
        again = await fetched(emulator, tmp_path)

    assert set(before) == NAMES | {"watermarked/marked_0.png"}
    assert pictures(tmp_path) == before
    assert not (tmp_path / "images" / "plain_0.png").is_symlink()
    assert found.fetched == (
        "images/one_0.png", "images/one_1.png", "images/plain_0.png", "watermarked/marked_0.png",
    )  # fmt: skip
    assert (found.whole, found.failed, found.unfinished) == (1, (), 0)
    assert (again.whole, again.fetched) == (5, ())
    aside = {path.name for path in (tmp_path / "images" / "earlier").iterdir()}
    assert aside == {"damaged-one_1.png", "damaged-plain_0.png"}
    assert len(emulator.tasks) == 3


async def test_what_was_never_saved_is_saved_without_the_rows(tmp_path: Path) -> None:
    """Jobs whose downloads failed are brought to their end: files, lines and journal are as if the run had done it."""
    dead = Fault(action="expired-link", times=None)
    async with Emulator(speed=1000, paint="stamp", faults=[dead]) as emulator:
        async with client(emulator) as kling:
            failed = [outcome async for outcome in kling.batch(JOBS, out=tmp_path)]
        emulator.faults = ()
        found = await fetched(emulator, tmp_path)
    status = await read_status(tmp_path / "journal.db")
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").splitlines()]

    assert not any(isinstance(outcome, Succeeded) for outcome in failed)
    assert set(found.fetched) == NAMES | {"watermarked/marked_0.png"} == set(pictures(tmp_path))
    assert status.totals == {JobState.DONE: 3}
    assert sorted(line["key"] for line in lines) == ["marked", "one", "plain"]
    assert len(emulator.tasks) == 3


async def test_pictures_of_a_split_job_come_back(tmp_path: Path) -> None:
    """A picture of a job that was made as several tasks is fetched from the task that made it."""
    async with Emulator(slots=4, speed=1000, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling:
            jobs = kling.batch([job(key="big", n=9)], out=tmp_path, split=True)
            assert all([isinstance(outcome, Succeeded) async for outcome in jobs])
        before = pictures(tmp_path)
        for index in (0, 4, 8):
            (tmp_path / "images" / f"big_{index}.png").unlink()
        async with client(emulator, slots=4) as kling:
            found = await kling.fetch(out=tmp_path)

    assert pictures(tmp_path) == before
    assert (found.whole, len(found.fetched)) == (6, 3)


async def test_what_the_service_has_no_more_is_told(tmp_path: Path) -> None:
    """A damaged file whose task is gone stays where it is, and the job is named with the reason."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        await finished(emulator, tmp_path)
        (tmp_path / "images" / "plain_0.png").write_bytes(b"spoilt")
        emulator.faults = [FORGOTTEN]
        found = await fetched(emulator, tmp_path)

    (failed,) = found.failed
    assert failed.key == "plain"
    assert isinstance(failed.error, errors.LinkExpired)
    assert failed.error.gone
    assert (tmp_path / "images" / "plain_0.png").read_bytes() == b"spoilt"


async def test_a_job_whose_pictures_are_gone_before_they_were_saved_ends(tmp_path: Path) -> None:
    """A job that had succeeded, and whose task the service has deleted since, is lost; `retry` may make it anew."""
    dead = Fault(action="expired-link", times=None)
    async with Emulator(speed=1000, paint="stamp", faults=[dead]) as emulator:
        async with client(emulator) as kling:
            _ = [outcome async for outcome in kling.batch([job(key="late")], out=tmp_path)]
        emulator.faults = [FORGOTTEN]
        found = await fetched(emulator, tmp_path)
    status = await read_status(tmp_path / "journal.db")

    assert [failed.key for failed in found.failed] == ["late"]
    assert "'retry'" in str(found.failed[0].error)
    assert status.totals == {JobState.LOST: 1}


async def test_names_of_the_run_are_kept(tmp_path: Path) -> None:
    """Files that a template named come back under the same names."""
    async with Emulator(speed=1000, paint="stamp") as emulator:
        await finished(emulator, tmp_path, name="{index:03}-{key}")
        before = pictures(tmp_path)
        for name in before:
            (tmp_path / name).unlink()
        await fetched(emulator, tmp_path)

    assert "images/001-one.png" in before
    assert pictures(tmp_path) == before


async def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """A folder that has no journal is named, and not made into one."""
    async with Emulator() as emulator:
        with pytest.raises(errors.ConfigError, match="found none"):
            await fetched(emulator, tmp_path / "none")

    assert not (tmp_path / "none").exists()
