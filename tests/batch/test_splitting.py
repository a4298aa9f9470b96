"""Jobs of more pictures than the account has slots, over real sockets: several tasks, one outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_kit import call, jobs, manifest, picture, results
from socket_kit import client, creates, job, leaves_nothing, until

from kling_async import Account, Failed, Kling, MultiImage, Skipped, Succeeded
from kling_async.batch.upkeep import read_status, retry_failed
from kling_async.emulator import EmulatedAccount, Emulator, Fault, Faults
from kling_async.errors import BudgetSpent, ContentRefusal, OutOfUnits, TaskFailed
from kling_async.protocol.lifecycle import JobState

pytestmark = pytest.mark.anyio


async def run(kling: Kling, jobs: list[MultiImage], **options: Any) -> list[Any]:
    return [outcome async for outcome in kling.batch(jobs, **{"split": True, **options})]


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kept", [True, False], ids=["with journal", "without"])
async def test_a_job_that_never_fits_is_made_in_parts(tmp_path: Path, *, kept: bool) -> None:
    """Nine pictures on four slots are three tasks and one outcome, numbered through, with units added up."""
    out = tmp_path if kept else None

    async with leaves_nothing(), Emulator(slots=4, speed=100, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling, kling.batch(
            [job(n=9, key="big"), job(key="small")], split=True, out=out
        ) as batch:  # fmt: skip
            found = {outcome.key: outcome async for outcome in batch}
            statistics = batch.statistics()

    big = found["big"]
    assert isinstance(big, Succeeded)
    assert isinstance(found["small"], Succeeded)
    assert [image.index for image in big.task.images] == list(range(9))
    assert len({image.url for image in big.task.images}) == 9
    assert big.units == 144
    assert [task.task_id for task in big.parts] == big.task.task_id.split(",")
    assert found["small"].parts == ()
    assert sorted(task.n for task in emulator.tasks) == [1, 3, 3, 3]
    assert emulator.peak_slots <= 4
    assert (statistics.succeeded, statistics.creates, statistics.units_committed) == (2, 4, 160)
    assert (statistics.queued, statistics.in_flight, statistics.saving) == (0, 0, 0)
    if kept:
        assert [Path(file).name for file in big.files] == [f"big_{index}.png" for index in range(9)]
        rows = {row["key"]: row for row in lines(tmp_path)}
        assert len(lines(tmp_path)) == 2
        assert rows["big"]["units"] == 144
        assert len(rows["big"]["files"]) == 9


async def test_what_fits_is_not_split() -> None:
    """A job that some account can hold stays one task, also when another account is too small for it."""
    accounts = [
        EmulatedAccount(name=name, access_key=f"a-{name}", secret_key=f"secret-{name}-" * 4, api_key=f"key-{name}", slots=slots)
        for name, slots in (("small", 2), ("large", 9))
    ]  # fmt: skip
    known = [Account(each.name, api_key=each.api_key, slots=each.slots) for each in accounts]

    async with Emulator(accounts=accounts, speed="instant", paint="stamp") as emulator:
        async with client(emulator, accounts=known) as kling:
            outcomes = await run(kling, [job(n=9, prompt=f"{number}") for number in range(4)])
            single = await kling.images.multi_image.run(job(n=8))

    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    assert {(task.account, task.n) for task in emulator.tasks} == {("large", 9), ("large", 8)}
    assert len(single.images) == 8


async def test_where_the_limit_is_learned_nothing_is_split() -> None:
    """Without a known limit nobody can say that a job never fits."""
    async with Emulator(slots=9, speed="instant", paint="stamp") as emulator:
        async with client(emulator, slots="auto") as kling:
            outcomes = await run(kling, [job(n=9)])

    assert isinstance(outcomes[0], Succeeded)
    assert [task.n for task in emulator.tasks] == [9]


async def test_links_of_parts_are_renewed(tmp_path: Path) -> None:
    """A picture of a split job whose link has expired is fetched by a fresh one, of its own task."""
    fault = Fault(action="expired-link", times=1)
    async with Emulator(slots=4, speed=1000, expire_after=3600, paint="stamp", faults=[fault]) as emulator:
        async with client(emulator, slots=4) as kling:
            (outcome,) = await run(kling, [job(n=8, key="big")], out=tmp_path)

    assert isinstance(outcome, Succeeded), outcome
    assert len(outcome.files) == 8
    # The emulator's stamps differ by the place in their own task.
    stamps = list(outcome.sha256.values())
    assert stamps[:4] == stamps[4:]
    assert len(set(stamps)) == 4


async def test_a_failed_part_fails_the_job_and_keeps_what_was_made(tmp_path: Path) -> None:
    """When the second of three tasks fails the outcome has both tasks, the third is not sent, and a retry makes only what lacks."""
    async with Emulator(slots=4, speed=1, task_seconds=0.05, paint="stamp") as emulator:
        emulator.faults = Faults.of([Fault(action="fail-task", after=1, times=1)])
        async with client(emulator, slots=4) as kling:
            (outcome,) = await run(kling, [job(n=9, key="big")], out=tmp_path)
            before = len(emulator.tasks)
            again = await run(kling, [job(n=9, key="big")], out=tmp_path)
        status = await read_status(tmp_path / "journal.db")
        reopened = await retry_failed(tmp_path / "journal.db")
        async with client(emulator, slots=4) as kling:
            (last,) = await run(kling, [job(n=9, key="big")], out=tmp_path)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TaskFailed)
    assert len(outcome.parts) == before == 2
    assert outcome.task is not None
    assert len(outcome.task.images) == 3
    assert [type(each) for each in again] == [Skipped]
    assert status.totals == {JobState.FAILED: 1}
    assert status.failures == {"TaskFailed": 1}
    assert reopened == 1
    assert isinstance(last, Succeeded), last
    assert [Path(file).name for file in last.files] == [f"big_{index}.png" for index in range(9)]
    assert len(emulator.tasks) == 4, "the part that had succeeded was not made again"
    assert len({task.external_task_id for task in emulator.tasks}) == 4


async def test_a_refused_part_fails_the_job_at_once(tmp_path: Path) -> None:
    """A job whose content is refused is tried with its first part only, and has failed for good."""
    async with Emulator(slots=4, speed="instant", paint="stamp") as emulator:
        emulator.faults = Faults.of([Fault(action="refuse", code=1301, route="create")])
        async with client(emulator, slots=4) as kling:
            (outcome,) = await run(kling, [job(n=9, key="big")], out=tmp_path)
            again = await run(kling, [job(n=9, key="big")], out=tmp_path)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ContentRefusal)
    assert (outcome.task, outcome.parts) == (None, ())
    assert creates(emulator) == 1
    assert [type(each) for each in again] == [Skipped]
    assert [line["status"] for line in lines(tmp_path)] == ["failed"]


async def test_a_budget_is_committed_for_all_parts_or_none(tmp_path: Path) -> None:
    """A job whose parts are more than the budget allows is not begun."""
    async with Emulator(slots=4, speed="instant", paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling, kling.batch(
            [job(n=9, key="big")], split=True, budget=100, out=tmp_path
        ) as batch:  # fmt: skip
            with pytest.raises(BudgetSpent):
                async for outcome in batch:
                    raise AssertionError(outcome)
            committed = batch.statistics().units_committed

    assert creates(emulator) == 0
    assert committed == 0


async def test_an_account_that_stops_between_parts_leaves_the_job_to_be_continued(tmp_path: Path) -> None:
    """Out of units after the first part: it is collected, the job stays undone, and a later run makes only the rest."""
    async with Emulator(slots=4, speed=1, task_seconds=0.05, paint="stamp") as emulator:
        emulator.faults = Faults.of([Fault(action="refuse", code=1102, route="create", after=1)])
        async with client(emulator, slots=4) as kling:
            batch = kling.batch([job(n=9, key="big")], split=True, out=tmp_path)
            first = await anext(batch)
            with pytest.raises(OutOfUnits):
                await anext(batch)
        emulator.faults = Faults()
        status = await read_status(tmp_path / "journal.db")
        async with client(emulator, slots=4) as kling:
            (last,) = await run(kling, [job(n=9, key="big")], out=tmp_path, split=False)

    assert isinstance(first, Failed)
    assert len(first.parts) == 1
    assert status.totals == {JobState.SUBMITTED: 1}
    assert isinstance(last, Succeeded)
    assert len(last.files) == 9
    assert [task.n for task in emulator.tasks] == [3, 3, 3]
    assert [line["status"] for line in lines(tmp_path)] == ["succeeded"]


async def test_a_row_that_is_gone_leaves_its_parts_as_outcomes(tmp_path: Path) -> None:
    """Parts under way of a job that the input no longer has are paid for, so they are brought in by themselves."""
    async with Emulator(slots=4, speed=1, task_seconds=0.3, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling, kling.batch(
            [job(n=5, key="big")], split=True, out=tmp_path
        ) as batch:  # fmt: skip
            aiter(batch)
            await until(lambda: emulator.tasks)
        async with client(emulator, slots=4) as kling:
            outcomes = await run(kling, [job(key="other")], out=tmp_path)

    found = {outcome.key: outcome for outcome in outcomes}
    assert set(found) == {"other", "big (part 1 of 2)"}
    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    assert len(emulator.tasks) == 2


def lose(out: Path) -> None:
    for path in out.glob("journal.db*"):
        path.unlink()


async def test_a_lost_journal_is_rebuilt_with_its_parts(tmp_path: Path) -> None:
    """After `recover()` a run continues with the parts that there are, under any number of slots, and pays for none again."""
    jobs = [job(n=9, key="big"), job(key="small")]
    async with Emulator(slots=4, speed="instant", paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling:
            await run(kling, jobs, out=tmp_path)
            lose(tmp_path)
            recovered = await kling.recover(jobs, out=tmp_path)
        async with client(emulator, slots=3) as kling:
            outcomes = await run(kling, jobs, out=tmp_path)

    assert (recovered.found, recovered.absent) == (2, 0)
    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    assert len(emulator.tasks) == 4


def test_the_command_line_splits_too(tmp_path: Path) -> None:
    """`kling-async run --split` makes a job of nine pictures on four slots; its parts are one job to `status`."""
    rows = manifest(tmp_path / "jobs.jsonl", jobs(2, n=9))
    picture(tmp_path / "a.png")

    refused = call("run", rows, "-o", tmp_path / "a", "--emulator", "--slots", "4", "--json", cwd=tmp_path)
    made = call(
        "run", rows, "-o", tmp_path / "b", "--emulator", "--slots", "4", "--split", "--json", cwd=tmp_path
    )
    status = call("status", tmp_path / "b", "--json", cwd=tmp_path)

    assert refused.code == 1
    assert made.code == 0, made.err
    assert [len(row["files"]) for row in results(tmp_path / "b")] == [9, 9]
    assert status.json()["totals"] == {"done": 2}
    assert status.json()["units"] == 288
