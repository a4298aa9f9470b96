"""Batches over real sockets: any input, all ends, every leaving; judged by the emulator's books and by the disk."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import pickle
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from socket_kit import client, collect, creates, job, leaves_nothing, logged, until

from kling_async import Batch, Failed, MultiImage, Outcome, Skipped, Succeeded
from kling_async.emulator import Emulator, Fault
from kling_async.errors import (
    BatchStopped,
    BudgetSpent,
    ConfigError,
    ContentRefusal,
    InArrears,
    InvalidJob,
    KlingError,
    OutOfUnits,
    SubmissionUnknown,
    TaskFailed,
    TaskTimeout,
)

pytestmark = pytest.mark.anyio


def jobs(count: int, **fields: Any) -> list[MultiImage]:
    """Return jobs with keys `row-1`, `row-2`, …, each with another prompt."""
    return [job(key=f"row-{number}", prompt=f"dress {number}", **fields) for number in range(1, count + 1)]


def keys(outcomes: Iterable[Any], kind: type[Any] = object) -> list[str]:
    """Return the keys of outcomes of *kind*, in their order."""
    return [outcome.key for outcome in outcomes if isinstance(outcome, kind)]


# Input.


async def _async(items: list[MultiImage]) -> AsyncIterator[MultiImage]:
    for item in items:
        await asyncio.sleep(0)
        yield item


@pytest.mark.parametrize(
    "shape", [list, tuple, iter, lambda items: (item for item in items), _async], ids=["list", "tuple", "iterator", "generator", "async"]
)  # fmt: skip
async def test_any_iterable_is_input(shape: Callable[[list[MultiImage]], Any]) -> None:
    """Lists, iterators, generators and async generators each give an outcome for every job."""
    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        outcomes = [outcome async for outcome in kling.batch(shape(jobs(12)))]

    assert sorted(keys(outcomes, Succeeded)) == sorted(f"row-{number}" for number in range(1, 13))
    assert creates(emulator) == 12


async def test_no_jobs_are_a_batch_too() -> None:
    """An empty input ends at once, without a request."""
    async with leaves_nothing(), Emulator(paint="stamp") as emulator, client(emulator) as kling:
        outcomes = [outcome async for outcome in kling.batch([])]

    assert outcomes == []
    assert emulator.requests == []


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("in_order", [False, True], ids=["as they come", "in order"])
async def test_an_endless_input_is_taken_as_there_is_room(*, asynchronous: bool, in_order: bool) -> None:
    """Of an endless input no more is taken than may wait: a bounded number of jobs ahead of the outcomes."""
    pulled = 0

    def endless() -> Iterator[MultiImage]:
        nonlocal pulled
        for number in itertools.count():
            pulled += 1
            yield job(key=f"row-{number}")

    async def endless_async() -> AsyncIterator[MultiImage]:
        for each in endless():
            yield each

    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp", slots=20) as emulator,
        client(emulator, slots=20) as kling,
    ):
        source = endless_async() if asynchronous else endless()
        async with kling.batch(source, in_order=in_order) as batch:
            taken = [await anext(batch) for _ in range(30)]
            await asyncio.sleep(0.5)
            ahead = pulled - len(taken)

    assert len(taken) == 30
    assert ahead <= 64 + 128 + 20, "outcomes that wait, workers, and tasks that run"


async def test_a_slow_consumer_stops_the_submitting() -> None:
    """While nobody takes outcomes the batch spends only so much ahead."""
    async with (
        Emulator(speed="instant", paint="stamp", slots=9) as emulator,
        client(emulator) as kling,
        kling.batch(job(key=f"{number}") for number in itertools.count()) as batch,
    ):
        await anext(batch)
        sent = -1
        while sent != len(emulator.tasks):
            sent = len(emulator.tasks)
            await asyncio.sleep(0.7)

    assert sent <= 64 + 128 + 9, "outcomes that wait, workers, and tasks that run"


async def test_what_is_no_job_is_an_outcome() -> None:
    """A stranger among the jobs and a key used twice fail by themselves; nothing is sent for them."""
    mixed: list[Any] = [job(key="a"), "a path", job(key="a"), {"prompt": "x"}, job(key="b")]

    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        outcomes = [outcome async for outcome in kling.batch(mixed)]

    assert sorted(keys(outcomes, Succeeded)) == ["a", "b"]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert len(failed) == 3
    assert all(isinstance(outcome.error, InvalidJob) for outcome in failed)
    assert creates(emulator) == 2


async def test_an_input_that_breaks_loses_nothing_paid() -> None:
    """What the input raises comes after the outcomes of all jobs that were sent."""

    def broken() -> Iterator[MultiImage]:
        yield from jobs(4)
        raise LookupError("the list is torn")

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.2, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        outcomes: list[Outcome] = []
        with pytest.raises(LookupError, match="torn"):
            await collect(kling.batch(broken()), outcomes)

    assert len(keys(outcomes, Succeeded)) == len(emulator.tasks) > 0


# The long run.


async def test_five_hundred_rows(tmp_path: Path) -> None:
    """500 jobs of mixed weight: 500 outcomes, slots kept, each accepted once, all files whole, all lines true."""
    weights = {f"row-{number}": 1 + number % 3 for number in range(500)}
    source = (job(key=key, prompt=key, n=n) for key, n in weights.items())

    async with (
        leaves_nothing(),
        Emulator(slots=30, speed=200, seed=7, paint="stamp") as emulator,
        client(emulator, slots=30) as kling,
    ):
        async with kling.batch(source, out=tmp_path) as batch:
            outcomes = [outcome async for outcome in batch]
        numbers = batch.statistics()

    assert Counter(map(type, outcomes)) == {Succeeded: 500}
    assert sorted(keys(outcomes)) == sorted(weights)
    assert emulator.peak_slots <= 30
    assert Counter(task.prompt for task in emulator.tasks) == Counter(list(weights))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(weights)
    assert all(line["status"] == "succeeded" and line["error"] is None for line in lines)
    assert {line["key"]: len(line["files"]) for line in lines} == weights
    named = [tmp_path / file for line in lines for file in line["files"]]
    assert sorted(named) == sorted((tmp_path / "images").iterdir())
    assert all(file.read_bytes().endswith(b"IEND\xaeB`\x82") for file in named)
    assert (numbers.succeeded, numbers.done, numbers.total, numbers.in_flight, numbers.queued) == (
        500,
        500,
        500,
        0,
        0,
    )
    assert numbers.images == len(named) == sum(weights.values())
    assert numbers.units == numbers.units_committed == 16 * sum(weights.values())
    assert numbers.creates == 500
    assert numbers.requests < 500 * 3


async def test_in_order_means_in_order() -> None:
    """Outcomes come in the order of the jobs although the tasks end in another."""
    faults = [Fault(action="slow-task", seconds=0.5, match_external_id="slow-*")]
    source = [
        job(key=str(number), external_task_id=f"{'slow' if number % 5 == 0 else 'fast'}-{number}")
        for number in range(20)
    ]

    async with (
        Emulator(speed=1, task_seconds=0.05, paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
    ):
        outcomes = [outcome async for outcome in kling.batch(source, in_order=True)]

    assert keys(outcomes, Succeeded) == [str(number) for number in range(20)]


# Ends.


async def test_fail_fast_cancels_and_awaits_the_rest() -> None:
    """With errors="raise" the first failure ends the batch with its error; nothing is sent after it."""
    faults = [Fault(action="refuse", code=1301, match_external_id="bad")]
    source = [job(external_task_id="bad"), *jobs(50)]

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=3, paint="stamp", faults=faults) as emulator,
        client(emulator, slots=3) as kling,
    ):
        outcomes: list[Outcome] = []
        with pytest.raises(ContentRefusal):
            await collect(kling.batch(source, errors="raise"), outcomes)
        sent = creates(emulator)
        await asyncio.sleep(0.1)
        later = creates(emulator)

    assert sent == later <= 4
    assert keys(outcomes, Succeeded) == []


async def test_more_failures_than_allowed_stop_the_batch() -> None:
    """After more than max_failures nothing more is sent; what runs is collected; the end says why."""
    faults = [Fault(action="fail-task", message="no", match_external_id="bad-*")]
    source = [job(external_task_id=f"bad-{number}") for number in range(100)]

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.05, slots=3, paint="stamp", faults=faults) as emulator,
        client(emulator, slots=3) as kling,
    ):
        outcomes: list[Outcome] = []
        with pytest.raises(BatchStopped, match="more than 5 jobs failed"):
            await collect(kling.batch(source, max_failures=5), outcomes)

    assert 6 <= len(outcomes) == len(emulator.tasks) <= 6 + 3


@pytest.mark.parametrize("how", ["stop", "account", "budget"])
async def test_an_input_that_waits_does_not_hold_up_the_end(how: str) -> None:
    """A batch that is stopped ends though its input, a queue say, has nothing to give for hours."""
    outcomes: list[Outcome] = []
    closed: list[str] = []

    async def queue() -> AsyncIterator[MultiImage]:
        try:
            yield job()
            yield job(prompt="another")
            await asyncio.sleep(3600)
        finally:
            closed.append("closed")

    async with (
        Emulator(speed="instant", paint="stamp", faults="1102:100%" if how == "account" else "") as emulator,
        client(emulator) as kling,
        asyncio.timeout(30),
    ):
        batch = kling.batch(queue(), budget=16 if how == "budget" else None)
        if how == "stop":
            _ = [await anext(batch), await anext(batch)]
            batch.stop()
            await collect(batch, outcomes)
        else:
            with pytest.raises(OutOfUnits if how == "account" else BudgetSpent):
                await collect(batch, outcomes)

    assert closed == ["closed"]


async def test_stop_drains() -> None:
    """After stop() nothing more is sent and what runs is collected."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.1, slots=3, paint="stamp") as emulator,
        client(emulator, slots=3) as kling,
        kling.batch(jobs(100)) as batch,
    ):
        outcomes = [await anext(batch)]
        batch.stop()
        reason = batch.statistics().stopped_by
        sent = creates(emulator)
        outcomes += [outcome async for outcome in batch]

    assert len(outcomes) == len(emulator.tasks) == creates(emulator)
    assert creates(emulator) <= sent + 3
    assert set(map(type, outcomes)) == {Succeeded}
    assert isinstance(reason, BatchStopped)


async def test_a_batch_that_went_well_was_never_stopped(tmp_path: Path) -> None:
    """Nor does it say so while it puts its things away."""
    reasons: set[object] = set()

    async def look(batch: Batch) -> None:
        while True:
            reasons.add(batch.statistics().stopped_by)
            await asyncio.sleep(0)

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
        kling.batch(jobs(3), journal=tmp_path / "run.db") as batch,
    ):
        looking = asyncio.create_task(look(batch))
        outcomes = [outcome async for outcome in batch]
        looking.cancel()

    assert len(outcomes) == 3
    assert reasons == {None}


@pytest.mark.parametrize(
    "trouble", ["", "reset-after-accept@create:x3", "1303:30%"], ids=["none", "lost answers", "refusals"]
)
async def test_a_budget_is_never_passed(trouble: str) -> None:
    """No more units are committed than the budget has, and the end says that it is spent."""
    async with (
        Emulator(speed="instant", paint="stamp", faults=trouble) as emulator,
        client(emulator) as kling,
    ):
        outcomes: list[Outcome] = []
        with pytest.raises(BudgetSpent) as caught:
            await collect(kling.batch(jobs(40, n=2), budget=10 * 32 + 31), outcomes)

    assert len(outcomes) == len(emulator.tasks) == 10
    assert (caught.value.budget, caught.value.committed) == (351, 320)


async def test_a_batch_that_was_stopped_before_its_budget_is_not_ended_by_it() -> None:
    """Jobs within the budget that wait for slots are not sent after stop(), so there is room in it and no error."""
    async with (
        Emulator(speed=1, task_seconds=0.3, slots=2, paint="stamp") as emulator,
        client(emulator, slots=2) as kling,
        kling.batch(jobs(40), budget=8 * 16) as batch,
    ):
        outcomes = [await anext(batch)]
        await until(lambda: isinstance(batch.statistics().stopped_by, BudgetSpent))
        batch.stop()
        outcomes += [outcome async for outcome in batch]

    assert len(outcomes) == len(emulator.tasks) < 8
    assert batch.statistics().units_committed == 16 * len(outcomes)


async def test_an_account_that_cannot_pay_goes_before_a_budget() -> None:
    """What stops a batch before its budget is used is the error it ends with."""
    faults = [Fault(action="refuse", code=1102, after=3)]

    async with (
        Emulator(speed=1, task_seconds=0.3, slots=2, paint="stamp", faults=faults) as emulator,
        client(emulator, slots=2) as kling,
    ):
        outcomes: list[Outcome] = []
        with pytest.raises(OutOfUnits):
            await collect(kling.batch(jobs(40), budget=8 * 16), outcomes)

    assert len(outcomes) == len(emulator.tasks) == 3


@pytest.mark.parametrize(("code", "kind"), [(1101, InArrears), (1102, OutOfUnits)])
async def test_an_account_that_cannot_pay_ends_the_batch(code: int, kind: type[KlingError]) -> None:
    """After the refusal no more is sent, what runs is collected, no row fails by it, and the error comes last."""
    faults = [Fault(action="refuse", code=code, after=5)]

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.3, slots=20, paint="stamp", faults=faults) as emulator,
        client(emulator, slots=20) as kling,
    ):
        outcomes: list[Outcome] = []
        batch = kling.batch(jobs(200))
        with pytest.raises(kind):
            await collect(batch, outcomes)

    assert len(keys(outcomes, Succeeded)) == len(outcomes) == len(emulator.tasks) == 5
    assert creates(emulator) <= 5 + 20


async def test_each_trouble_is_the_outcome_of_its_row() -> None:
    """A failed task, a refusal, an unknown fate and a task that takes too long each fail their row and no other."""
    faults = [
        Fault(action="fail-task", message="Image pixel is invalid", match_external_id="failed"),
        Fault(action="refuse", code=1301, match_external_id="refused"),
        Fault(action="stuck-task", match_external_id="stuck"),
        Fault(action="html-502-after-accept", match_external_id="unknown"),
        Fault(action="refuse", route="get", code=1002, match_external_id="unknown"),
    ]
    names = ["failed", "refused", "stuck", "unknown", "fine-1", "fine-2"]

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.1, paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
    ):
        source = [job(key=name, external_task_id=name) for name in names]
        async with kling.batch(source, task_timeout=1.0) as batch:
            found = {outcome.key: outcome async for outcome in batch}
        numbers = batch.statistics()

    errors = {key: outcome.error for key, outcome in found.items() if isinstance(outcome, Failed)}
    assert {key: type(error) for key, error in errors.items()} == {
        "failed": TaskFailed,
        "refused": ContentRefusal,
        "stuck": TaskTimeout,
        "unknown": SubmissionUnknown,
    }
    assert sorted(keys(found.values(), Succeeded)) == ["fine-1", "fine-2"]
    assert emulator.accepted("unknown") == 1
    assert (numbers.succeeded, numbers.failed, numbers.in_flight) == (2, 4, 0)
    for outcome in found.values():
        again = pickle.loads(pickle.dumps(outcome))
        assert (again.key, type(again)) == (outcome.key, type(outcome))
        if isinstance(outcome, Failed):
            with pytest.raises(type(outcome.error)):
                again.unwrap()


async def test_statistics_add_up_at_every_moment() -> None:
    """Whenever it is asked, each job taken from the input is counted in exactly one place."""
    faults = [Fault(action="fail-task", match_external_id="*3", message="no")]
    source = [job(external_task_id=f"row-{number}") for number in range(60)]

    async with (
        Emulator(speed=1, task_seconds=0.05, paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
        kling.batch(source) as batch,
    ):
        seen = 0
        async for _ in batch:
            now = batch.statistics()
            counted = now.queued + now.in_flight + now.saving + now.done
            seen += 1
            assert counted <= 60
            assert min(now.queued, now.in_flight, now.saving) >= 0
            assert now.done >= seen
            assert now.slots_held <= now.slots == 9
        last = batch.statistics()

    assert (last.succeeded, last.failed, last.queued, last.in_flight, last.saving) == (54, 6, 0, 0, 0)
    assert last.slot_utilisation is not None
    assert 0 < last.slot_utilisation <= 1


# Leaving.


@pytest.mark.parametrize("out", [False, True], ids=["no folder", "folder"])
async def test_leaving_early_by_break(tmp_path: Path, *, out: bool) -> None:
    """A loop inside `async with` that is left early has ended everything on the way out; the other tasks go on."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.3, slots=5, paint="stamp") as emulator,
        client(emulator, slots=5) as kling,
    ):
        async with kling.batch(jobs(100), out=tmp_path if out else None) as batch:
            async for _ in batch:
                break
        left = creates(emulator)
        # Who else waits at this client must not suffer from the end of the batch.
        task = await kling.images.multi_image.run(job(), wait_timeout=10)
        later = creates(emulator)
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane
        await until(lambda: lane.held == 0)

    assert task.images
    assert later == left + 1
    assert len(emulator.tasks) == later


async def test_leaving_early_without_async_with() -> None:
    """A bare loop that is left by break sends nothing more once the batch is dropped."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.1, slots=5, paint="stamp") as emulator,
        client(emulator, slots=5) as kling,
    ):
        async for _ in kling.batch(jobs(100)):
            break
        gc.collect()
        await asyncio.sleep(0.05)
        # A create under way is carried to its end.
        await until(lambda: not kling._engine.background._precious)
        left = creates(emulator)
        await asyncio.sleep(0.3)

    assert creates(emulator) == left <= 15


async def test_an_exception_in_the_loop_ends_the_batch() -> None:
    """What the loop's body raises comes out as it is, and the batch has ended by then."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.1, slots=5, paint="stamp") as emulator,
        client(emulator, slots=5) as kling,
    ):
        with pytest.raises(ZeroDivisionError):
            await _break_in(kling.batch(jobs(100)))
        left = creates(emulator)
        await asyncio.sleep(0.2)

    assert creates(emulator) == left


async def _break_in(batch: Batch) -> None:
    async with batch:
        async for _ in batch:
            raise ZeroDivisionError


async def test_cancelling_the_loop_ends_the_batch() -> None:
    """A consumer that is cancelled from outside leaves nothing running, within a moment."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=5, paint="stamp") as emulator,
        client(emulator, slots=5) as kling,
    ):
        with anyio.move_on_after(0.2) as scope:
            async with kling.batch(jobs(100)) as batch:
                async for _ in batch:
                    pass
        assert scope.cancelled_caught
        assert batch.statistics().in_flight == 5

    assert creates(emulator) == 5


@pytest.mark.parametrize("way", ["never iterated", "left at once"])
async def test_a_batch_that_is_not_wanted_leaves_no_warning(way: str, tmp_path: Path) -> None:
    """Made and dropped, or entered and left at once, a batch sends nothing and warns of nothing."""
    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            batch = kling.batch(jobs(3), out=tmp_path / "out")
            if way == "left at once":
                async with batch:
                    pass
            del batch
            gc.collect()

    assert [str(each.message) for each in told] == []
    assert emulator.tasks == []


async def test_a_batch_left_at_any_step_of_its_start_leaves_no_warning() -> None:
    """However many passes of the loop a batch has had, leaving it warns of nothing and leaves nothing."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=50, paint="stamp") as emulator,
        client(emulator, slots=50) as kling,
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for passes in range(20):
                async with kling.batch(jobs(1)):
                    for _ in range(passes):
                        await asyncio.sleep(0)
                gc.collect()

    assert [str(each.message) for each in told] == []


async def test_closing_the_client_first_is_told(tmp_path: Path) -> None:
    """A loop whose client is closed in the middle gets a ConfigError and not a quiet end."""
    async with leaves_nothing(), Emulator(speed=1, task_seconds=3600.0, slots=5, paint="stamp") as emulator:
        kling = client(emulator, slots=5)
        batch = kling.batch(jobs(5), out=tmp_path)
        waiting = asyncio.ensure_future(anext(batch))
        await until(lambda: len(emulator.tasks) == 5)
        await kling.aclose()
        with pytest.raises(ConfigError, match="closed"):
            async with asyncio.timeout(30):
                await waiting


async def test_two_batches_share_the_slots() -> None:
    """Two batches on one client both go forward, and together they keep the limit."""
    ends: list[str] = []

    async with (
        Emulator(speed=1, task_seconds=0.05, slots=4, paint="stamp") as emulator,
        client(emulator, slots=4) as kling,
    ):

        async def run(name: str) -> None:
            async for outcome in kling.batch([job(key=f"{name}-{number}") for number in range(20)]):
                ends.extend(outcome.key[0])

        async with anyio.create_task_group() as group:
            group.start_soon(run, "a")
            group.start_soon(run, "b")

    assert Counter(ends) == {"a": 20, "b": 20}
    assert {"a", "b"} == set(ends[:10])
    assert emulator.peak_slots <= 4
    assert creates(emulator) == 40


async def test_a_second_run_skips_what_is_done(tmp_path: Path) -> None:
    """The same jobs into the same folder are not made again."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        first = [outcome async for outcome in kling.batch(jobs(5), out=tmp_path)]
        second = [outcome async for outcome in kling.batch(jobs(5), out=tmp_path)]

    assert (len(keys(first, Succeeded)), len(keys(second, Skipped))) == (5, 5)
    assert creates(emulator) == 5


async def test_a_folder_that_cannot_be_written_to_costs_nothing(tmp_path: Path) -> None:
    """An OUT that is a file is a ConfigError, and not one request is sent."""
    (tmp_path / "out").write_text("a file")

    with logged() as log:
        async with Emulator(paint="stamp") as emulator, client(emulator) as kling:
            with pytest.raises(ConfigError, match="out"):
                async for _ in kling.batch(jobs(3), out=tmp_path / "out"):
                    pass

    assert emulator.requests == []
    assert log.errors == []
