"""Who gets slots when several want them, over real sockets; judged by the emulator's books."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import cycle, islice

import anyio
import pytest
from socket_kit import client, creates, job, leaves_nothing, until

from kling_async import Kling, MultiImage, Succeeded
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio


def lane_of(kling: Kling) -> object:
    return kling._engine.links[0].lanes["kling-v2-1"].lane


async def test_an_interactive_create_passes_the_queue_of_a_batch() -> None:
    """With a hundred rows waiting, a single create gets the very next slots that come free, each time."""
    ranks = []
    async with Emulator(slots=4, speed=1, task_seconds=0.15, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling:
            async with kling.batch(job(key=f"{number}") for number in range(100)):
                await until(lambda: len(emulator.tasks) >= 4)
                for number in range(4):
                    before = len(emulator.tasks)
                    handle = await kling.images.multi_image.create(
                        job(external_task_id=f"single-{number}", n=1 + number)
                    )
                    names = [task.external_task_id for task in emulator.tasks]
                    ranks.append(names.index(handle.external_task_id) - before)

    assert max(ranks) <= 4, f"at most those that were under way came before: {ranks}"


async def test_a_create_without_priority_shares_with_the_batch() -> None:
    """Single creates of a batch's own priority take turns with it as one more party, they do not wait for its end."""
    async with Emulator(slots=4, speed=1, task_seconds=0.1, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling:
            async with kling.batch(job(key=f"{number}") for number in range(60)):
                await until(lambda: len(emulator.tasks) >= 4)
                await kling.images.multi_image.run(
                    job(external_task_id="single"), priority=0, wait_timeout=30
                )
            seen = len(emulator.tasks)

    assert seen < 40


@pytest.mark.parametrize("weights", [(1,), (1, 4, 2)], ids=["n is 1", "n is mixed"])
async def test_two_batches_share_evenly(weights: tuple[int, ...]) -> None:
    """Two batches of the same mix, one begun later, get the same slots from the moment on that both are there."""

    def jobs(name: str, count: int) -> list[MultiImage]:
        return [
            job(external_task_id=f"{name}-{number}", n=n)
            for number, n in enumerate(islice(cycle(weights), count))
        ]

    async with Emulator(slots=8, speed=1, task_seconds=0.08, paint="stamp") as emulator:
        async with client(emulator, slots=8) as kling:
            async with kling.batch(jobs("first", 400)):
                await until(lambda: len(emulator.tasks) >= 16)
                skip = len(emulator.tasks) + 8
                async with kling.batch(jobs("second", 400)):
                    await until(lambda: len(emulator.tasks) >= skip + 160, patience=20)

    got = Counter[str]()
    for task in emulator.tasks[skip : skip + 160]:
        got[task.external_task_id.partition("-")[0]] += task.n
    assert got["first"] == pytest.approx(got["second"], rel=0.1), got
    assert emulator.peak_slots <= 8


async def test_cancelled_waiters_leave_no_trace() -> None:
    """Two hundred creates cancelled in the queue send nothing, and the lane knows none of them any more."""
    async with leaves_nothing(), Emulator(slots=1, speed=1, task_seconds=3600.0, paint="stamp") as emulator:
        async with client(emulator, slots=1) as kling:
            await _hold(kling)
            before = repr(lane_of(kling))
            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(_wait_in_vain, kling, number % 3)
                await until(lambda: "200 waiting" in repr(lane_of(kling)))
                group.cancel_scope.cancel()
            after = repr(lane_of(kling))
            parties = [level.parties for level in lane_of(kling)._lines._levels.values()]  # type: ignore[attr-defined]  # a look inside

    assert before == after
    assert creates(emulator) == 1
    assert sum(map(len, parties)) == 1, "only who holds a slot is known"


async def _hold(kling: Kling) -> None:
    handle = await kling.images.multi_image.create(job())
    assert handle.task_id


async def _wait_in_vain(kling: Kling, priority: int) -> None:
    handle = await kling.images.multi_image.create(job(), priority=priority)
    raise AssertionError(handle)


async def test_a_batch_that_is_left_gives_its_place_to_the_other() -> None:
    """When one of two batches is left, the other has all slots at once."""
    async with Emulator(slots=4, speed=1, task_seconds=0.1, paint="stamp") as emulator:
        async with client(emulator, slots=4) as kling:
            async with kling.batch(job(external_task_id=f"left-{number}") for number in range(100)):
                await until(lambda: len(emulator.tasks) >= 4)
            outcomes = await asyncio.wait_for(_run(kling), 10)
            left = [task for task in emulator.tasks if task.external_task_id.startswith("left")]

    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    assert len(left) <= 8


async def _run(kling: Kling) -> list[object]:
    return [outcome async for outcome in kling.batch(job(key=f"{number}") for number in range(12))]
