"""Fault matrix T01 to T09: tasks and lists that behave oddly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fault_kit import Log, client_of, job
from fault_server import FaultServer, Life, Listing
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within

from kling_async.errors import EmptyResult, KlingError, MalformedReply, TaskFailed, TaskTimeout
from kling_async.protocol.tasks import TaskStatus

pytestmark = pytest.mark.anyio


async def run(server: FaultServer, life: Life, **options: Any) -> Any:
    server.change(life=life)
    async with client_of(server) as kling:
        return await kling.images.multi_image.run(job("job-1", n=2), **({"wait_timeout": 5} | options))


async def test_t01_a_status_never_goes_backwards(server: FaultServer) -> None:
    """Once a task was seen to have ended it stays so, even for a look at an older state of it."""
    server.change(life=Life(script=("submitted", "processing", "succeed", "processing")))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))
        task = await handle.wait(timeout=30)
        again = await handle.wait(timeout=30)

    assert task.status == again.status == TaskStatus.SUCCEED


async def test_t01_what_is_told_of_a_task_goes_forward_only(server: FaultServer) -> None:
    """A look at an older state is not told to who watches the task."""
    server.change(life=Life(script=("submitted", "processing", "submitted", "processing", "succeed")))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))
        told = [task.status.value async for task in handle.events()]

    assert told == sorted(told, key=["submitted", "processing", "succeed"].index)
    assert told[-1] == "succeed"


async def test_t02_unknown_statuses_are_waited_through(server: FaultServer) -> None:
    """A word that nobody documented is no end and no error."""
    task = await run(server, Life(script=("queued", "reviewing", "processing", "succeed")))

    assert task.status == TaskStatus.SUCCEED
    assert_within(server.books, posts=1)


async def test_t02_unknown_statuses_end_with_the_deadline(server: FaultServer) -> None:
    """An unknown status for ever ends the wait at its bound, with the task's id to come back with."""
    with pytest.raises(TaskTimeout) as caught:
        await run(server, Life(script=("queued",)), wait_timeout=0.3)

    assert caught.value.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1)


@pytest.mark.parametrize("spelling", ["succeed", "succeeded"])
async def test_t03_both_spellings_of_success(server: FaultServer, spelling: str) -> None:
    """Old and new generation of the API spell success differently."""
    task = await run(server, Life(end=spelling))

    assert task.status == TaskStatus.SUCCEED
    assert [image.index for image in task.images] == [0, 1]


async def test_t04_success_without_pictures_is_an_error_and_not_sent_again(server: FaultServer) -> None:
    """A task that succeeded with nothing is reported with its id."""
    with pytest.raises(EmptyResult) as caught:
        await run(server, Life(images=0))

    assert caught.value.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1)


async def test_t04_pictures_that_come_late_are_waited_for(server: FaultServer) -> None:
    """An empty success is asked again before it is believed."""
    for route, path in (("get", "data.task_result"), ("list", "data.0.task_result")):
        server.break_with(go.edit({path: {}}, route, skip=0))

    task = await run(server, Life(polls=0))

    assert len(task.images) == 2
    assert_within(server.books, posts=1)


async def test_t04_fewer_pictures_than_asked_for_are_handed_over(server: FaultServer) -> None:
    """What there is, is given; nothing is sent again for the rest."""
    task = await run(server, Life(images=1))

    assert len(task.images) == 1
    assert_within(server.books, posts=1)


async def test_t04_doubled_indexes_do_not_share_a_name(server: FaultServer) -> None:
    """Two pictures with one index are two pictures."""
    task = await run(server, Life(indexes=(0, 0)))

    assert len({image.index for image in task.images}) == 2


async def test_t05_a_task_that_vanishes_for_a_while_is_waited_for(server: FaultServer) -> None:
    """Not found after it was seen is not found for now."""
    task = await run(server, Life(script=("processing", "vanish", "vanish", "succeed")))

    assert task.status == TaskStatus.SUCCEED
    assert_within(server.books, posts=1)


async def test_t05_a_task_that_vanished_is_never_sent_again(server: FaultServer) -> None:
    """A task that is gone for good ends the wait with an error, and costs nothing more."""
    with pytest.raises(KlingError):
        await run(server, Life(script=("processing", "vanish")), wait_timeout=1)

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1)


async def test_t06_a_task_that_never_ends_keeps_its_slots(server: FaultServer) -> None:
    """The wait ends at its bound, but the slots stay taken, since the service still counts them."""
    server.change(life=Life.endless(), slots=2)

    async with client_of(server, slots=2) as kling:
        with pytest.raises(TaskTimeout):
            await kling.images.multi_image.run(job("job-1", n=2), wait_timeout=0.2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                _ = await kling.images.multi_image.create(job("job-2"))

    assert server.books.codes[1303] == 0
    assert_within(server.books, slots=2, posts=1)


async def test_t06_a_wait_can_be_taken_up_again(server: FaultServer) -> None:
    """A wait that timed out detaches; another client gets the same task by its external id."""
    server.change(life=Life.endless())
    async with client_of(server) as kling:
        with pytest.raises(TaskTimeout):
            await kling.images.multi_image.run(job("job-1"), wait_timeout=0.2)

    server.service.tasks.end_all()
    async with client_of(server) as kling:
        task = await kling.images.multi_image.handle("job-1").wait(timeout=30)

    assert task.images
    assert_within(server.books, posts=1)


async def test_t07_a_failed_task_is_an_outcome(server: FaultServer) -> None:
    """`failed` ends the wait with the service's reason and is not sent again."""
    with pytest.raises(TaskFailed) as caught:
        await run(server, Life(end="failed", reason="Image pixel is invalid"))

    assert caught.value.reason == "Image pixel is invalid"
    assert caught.value.task.units == 0
    assert_within(server.books, posts=1)


ODD_LISTS = {
    "misses": Listing(miss=0.3),
    "misses all": Listing(miss=1.0),
    "repeats": Listing(repeat=0.5),
    "shifts": Listing(shift=1),
    "shuffled": Listing(order="shuffled"),
    "oldest first": Listing(order="oldest"),
}


@pytest.mark.parametrize("listing", ODD_LISTS.values(), ids=ODD_LISTS)
async def test_t08_odd_lists_change_no_result(server: FaultServer, listing: Listing) -> None:
    """Whatever a list leaves out, repeats or mixes up, every waiter gets its own task, and none is sent again."""
    server.change(listing=listing, slots=50, life=Life(seconds=0.1))
    names = [f"job-{number}" for number in range(40)]

    async with client_of(server, slots=50) as kling:
        runs = (kling.images.multi_image.run(job(name), wait_timeout=20) for name in names)
        tasks = await asyncio.gather(*runs)

    assert [task.external_task_id for task in tasks] == names
    assert_paid_once(server.books, names)
    assert_within(server.books, posts=40, slots=50)


@pytest.mark.parametrize(
    "listing", [Listing(), Listing(repeat=1.0), Listing(shift=-2)], ids=["plain", "twice", "shift"]
)
async def test_t08_iter_gives_each_task_once(server: FaultServer, listing: Listing) -> None:
    """Pages that overlap or repeat show each task once."""
    server.change(slots=None)
    async with client_of(server, slots=50) as kling:
        for number in range(25):
            _ = await kling.images.multi_image.create(job(f"job-{number}"))
        server.change(listing=listing)
        found = [task.external_task_id async for task in kling.images.multi_image.iter(page_size=10)]

    assert len(found) == len(set(found)) == 25


async def test_t09_another_tasks_data_is_not_believed(server: FaultServer) -> None:
    """An answer about another task is an error of the service's and no answer to the question."""
    wrong = {"data.task_id": "1", "data.task_info.external_task_id": "somebody-else"}

    async with client_of(server, max_retries=0) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))
        server.break_with(go.edit(wrong, "get", times=2))
        with pytest.raises(MalformedReply):
            await kling.images.multi_image.retrieve(handle.task_id)
        with pytest.raises(MalformedReply):
            await kling.images.multi_image.retrieve("job-1")


async def test_t09_a_wait_ignores_another_tasks_data(server: FaultServer) -> None:
    """A waiter is not served with somebody else's pictures."""
    wrong = {
        "data.task_id": "1",
        "data.task_info.external_task_id": "somebody-else",
        "data.task_status": "failed",
    }
    server.break_with(go.edit(wrong, "get", times=1))

    task = await run(server, Life(polls=2))

    assert task.external_task_id == "job-1"
    assert task.task_id == server.books.charges[0].task_id


async def test_t09_a_look_up_does_not_adopt_another_task(server: FaultServer) -> None:
    """When the answer to a create is lost, a task of somebody else is not taken for it."""
    wrong = {"data.task_id": "1", "data.task_info.external_task_id": "somebody-else"}
    server.break_with(go.cut("rst", "accepted"), go.edit(wrong, "get", times=1))
    log = Log()

    async with client_of(server, log) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1)
