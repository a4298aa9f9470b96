"""Tasks of an earlier run whose rows are gone or have changed, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from socket_kit import client, job, until

from kling_async import Failed, Succeeded
from kling_async.emulator import Emulator
from kling_async.errors import InvalidJob

pytestmark = pytest.mark.anyio


async def test_a_task_whose_row_is_gone_is_brought_in(tmp_path: Path) -> None:
    """A run that was left continues with other rows: the task that it had made is saved all the same, under its key."""
    async with Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator:
        async with client(emulator) as kling, kling.batch([job(key="gone", n=2)], out=tmp_path) as batch:
            aiter(batch)
            await until(lambda: emulator.tasks)
        async with client(emulator) as kling:
            outcomes = [outcome async for outcome in kling.batch([job(key="here")], out=tmp_path)]

    found = {outcome.key: outcome for outcome in outcomes}
    gone = found["gone"]
    assert set(found) == {"gone", "here"}
    assert isinstance(gone, Succeeded)
    assert gone.job is None
    assert [Path(file).name for file in gone.files] == ["gone_0.png", "gone_1.png"]
    lines = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == ["gone", "here"]
    assert len(emulator.tasks) == 2


async def test_a_row_that_changed_while_its_task_runs_is_refused(tmp_path: Path) -> None:
    """The changed row is an error that says so, the batch ends well, and the row as it was is taken up later."""
    async with Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator:
        async with client(emulator) as kling, kling.batch([job(key="row")], out=tmp_path) as batch:
            aiter(batch)
            await until(lambda: emulator.tasks)
        async with client(emulator) as kling:
            changed = [one async for one in kling.batch([job(key="row", prompt="another")], out=tmp_path)]
            same = [one async for one in kling.batch([job(key="row")], out=tmp_path)]

    assert [type(outcome) for outcome in changed] == [Failed]
    assert isinstance(changed[0], Failed)
    assert isinstance(changed[0].error, InvalidJob)
    assert "still runs" in str(changed[0].error)
    assert [type(outcome) for outcome in same] == [Succeeded]
    assert len(emulator.tasks) == 1
