"""Runs whose folder is moved: pictures are known as the manifest writes them, as long as the same ones are meant."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_kit import client_of
from fault_server import FaultServer
from fault_server.checks import assert_paid_once
from socket_kit import png

from kling_async import Failed, Skipped, Succeeded, read_manifest
from kling_async.errors import BudgetSpent, InvalidJob

pytestmark = pytest.mark.anyio

ROWS = 4


def project(folder: Path) -> Path:
    """Make a folder with a manifest and the picture that its rows name."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "dress.png").write_bytes(png())
    rows = [
        {"key": f"row-{number}", "prompt": f"job {number}.", "subject_images": ["pictures/dress.png"]}
        for number in range(ROWS)
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


async def run(server: FaultServer, folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Run the manifest in *folder*; return its outcomes by key."""
    async with client_of(server) as kling:
        outcomes = {}
        with suppress(BudgetSpent):
            async for outcome in kling.batch(read_manifest(folder / "jobs.jsonl"), out=out, **options):
                outcomes[outcome.key] = outcome
        return outcomes


def kinds(outcomes: dict[str, Any]) -> list[type[Any]]:
    return [type(outcome) for outcome in outcomes.values()]


@pytest.mark.parametrize("reformatted", [False, True])
async def test_a_project_that_was_moved_goes_on(
    server: FaultServer, tmp_path: Path, *, reformatted: bool
) -> None:
    """Jobs, pictures and results that lie elsewhere now are the same run, also where the lines were written anew."""
    first = await run(server, project(tmp_path / "here"), tmp_path / "here" / "out", budget=16 * 2)
    (tmp_path / "here").rename(tmp_path / "there")
    if reformatted:
        manifest = tmp_path / "there" / "jobs.jsonl"
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        manifest.write_text(
            "\n".join(json.dumps(row, separators=(",", ":"), sort_keys=True) for row in rows),
            encoding="utf-8",
        )

    second = await run(server, tmp_path / "there", tmp_path / "there" / "out")
    shutil.move(tmp_path / "there", tmp_path / "again" / "there")
    third = await run(server, tmp_path / "again" / "there", tmp_path / "again" / "there" / "out")

    assert kinds(first) == [Succeeded] * 2
    assert sorted(map(str, kinds(second))) == sorted(map(str, [Skipped] * 2 + [Succeeded] * 2))
    assert kinds(third) == [Skipped] * ROWS
    assert_paid_once(server.books, ROWS)


async def test_a_moved_project_that_lost_its_journal_pays_nothing(
    server: FaultServer, tmp_path: Path
) -> None:
    """External ids name pictures as the manifest does, so the tasks are found from another place too."""
    server.change(unique=False)
    await run(server, project(tmp_path / "here"), tmp_path / "here" / "out")
    (tmp_path / "here").rename(tmp_path / "there")
    for file in (tmp_path / "there" / "out").glob("journal.db*"):
        file.unlink()

    again = await run(server, tmp_path / "there", tmp_path / "there" / "out")

    assert kinds(again) == [Succeeded] * ROWS
    assert_paid_once(server.books, ROWS)


async def test_the_same_words_in_another_folder_are_other_pictures(
    server: FaultServer, tmp_path: Path
) -> None:
    """Where the first project is still there, a second one with the same results is told apart, and the first goes on."""
    first = await run(server, project(tmp_path / "here"), tmp_path / "out")

    second = await run(server, project(tmp_path / "there"), tmp_path / "out")
    third = await run(server, tmp_path / "here", tmp_path / "out")

    assert kinds(first) == [Succeeded] * ROWS
    assert kinds(second) == [Failed] * ROWS
    assert {type(outcome.error) for outcome in second.values()} == {InvalidJob}
    assert kinds(third) == [Skipped] * ROWS
    assert_paid_once(server.books, ROWS)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_run_of_an_earlier_version_goes_on_as_it_began(
    server: FaultServer, tmp_path: Path, *, lost: bool
) -> None:
    """A journal that knows pictures by where they lie still does; without it, the file of the run's name says so."""
    server.change(unique=False)
    folder, out = project(tmp_path / "here"), tmp_path / "out"
    out.mkdir()
    # As the earlier version left it.
    (out / "run.json").write_text('{"run": "run-of-old"}', encoding="utf-8")
    first = await run(server, folder, out)
    ids = {outcome.external_task_id for outcome in first.values()}
    if lost:
        for file in out.glob("journal.db*"):
            file.unlink()

    second = await run(server, folder, out)
    moved = project(tmp_path / "there")
    shutil.rmtree(folder)
    third = await run(server, moved, out)

    assert kinds(first) == [Succeeded] * ROWS
    assert kinds(second) == [Succeeded if lost else Skipped] * ROWS
    assert kinds(third) == [Failed] * ROWS
    assert len(ids) == ROWS
    assert_paid_once(server.books, ROWS)
