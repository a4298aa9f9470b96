"""Reading: retrieve, list, iter, handles of tasks that exist already, views, raw replies and packs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from socket_kit import PATH, Asked, Plain, answer, client, creates, job, leaves_nothing, task

from kling_async import Account, TaskStatus
from kling_async.emulator import EmulatedAccount, Emulator, Fault
from kling_async.errors import (
    AuthError,
    ConfigError,
    MalformedReply,
    RequestTimeout,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)
from kling_async.protocol.endpoints import Timeouts

pytestmark = pytest.mark.anyio


async def test_a_task_is_found_by_both_ids() -> None:
    """`retrieve()` takes the service's id and ours, and tells the same of both."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        mi = kling.images.multi_image
        handle = await mi.create(job(external_task_id="order-1"))
        by_task, by_external = await mi.retrieve(handle.task_id), await mi.retrieve("order-1")

    assert by_task.raw == by_external.raw
    assert (by_task.external_task_id, by_task.ended) == ("order-1", True)


@pytest.mark.parametrize("dialect", ["observed", "documented"])
async def test_an_unknown_task_is_not_found(dialect: str) -> None:
    """Both dialects of "not found" are `TaskNotFound`, for reads and for waits."""
    async with Emulator(dialect=dialect, paint="stamp") as emulator, client(emulator) as kling:
        with pytest.raises(TaskNotFound):
            await kling.images.multi_image.retrieve("nobody")
        with pytest.raises(TaskNotFound):
            await kling.images.multi_image.handle("nobody")


async def test_ids_with_odd_characters_stay_one_segment() -> None:
    """An id is sent as one path segment, whatever is in it."""
    async with Plain(lambda _: answer(task("t-1"))) as server, client(server) as kling:
        await kling.images.multi_image.with_raw_response.retrieve("a/../b?c=ä#d")

    assert server.asked[0].target == f"{PATH}/a%2F..%2Fb%3Fc%3D%C3%A4%23d"


@pytest.mark.parametrize("bad", ["", " ", ".", ".."])
async def test_an_empty_id_is_refused_here(bad: str) -> None:
    """An id that would ask for something else is an error before anything is sent."""
    async with Plain(lambda _: answer(None)) as server, client(server) as kling:
        with pytest.raises(ConfigError, match="expected a task id"):
            _ = kling.images.multi_image.handle(bad)
        with pytest.raises(ConfigError, match="expected a task id"):
            await kling.images.multi_image.retrieve(bad)

    assert server.asked == []


@pytest.mark.parametrize(("page", "page_size"), [(0, 30), (1001, 30), (1, 0), (1, 501)])
async def test_pages_beyond_the_bounds_are_refused_here(page: int, page_size: int) -> None:
    """Page numbers and sizes that the seed forbids are an error before anything is sent."""
    async with Plain(lambda _: answer([])) as server, client(server) as kling:
        with pytest.raises(ConfigError, match="page"):
            await kling.images.multi_image.list(page=page, page_size=page_size)

    assert server.asked == []


async def test_iter_ends_at_the_short_page() -> None:
    """All tasks come once, and no page is asked for after one that is not full."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        mi = kling.images.multi_image
        made = [(await mi.run(job())).task_id for _ in range(7)]
        seen = [each.task_id async for each in mi.iter(page_size=3)]
        pages = [await mi.list(page=number, page_size=3) for number in (1, 2, 3, 4)]

    assert sorted(seen) == sorted(made)
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert sum(record.route == "list" for record in emulator.requests) == 3 + 4, (
        "the poller asked for no list"
    )


async def test_iter_gives_each_task_once_while_pages_shift() -> None:
    """Tasks made while one pages push others to the next page; nobody is told twice and nobody is left out."""
    tasks = [f"t-{number}" for number in range(10)]

    def say(asked: Asked) -> bytes:
        query = parse_qs(asked.target.partition("?")[2])
        page, size = int(query["pageNum"][0]), int(query["pageSize"][0])
        found = tasks[(page - 1) * size : page * size]
        tasks.insert(0, f"new-{page}")
        return answer([task(name, "processing") for name in found])

    async with Plain(say) as server, client(server) as kling:
        seen = [each.task_id async for each in kling.images.multi_image.iter(page_size=4)]

    assert len(seen) == len(set(seen))
    assert set(seen) >= {f"t-{number}" for number in range(10)}


async def test_iter_asks_no_further_than_it_is_read() -> None:
    """A loop that is left early has asked for one page."""
    async with (
        Plain(lambda _: answer([task(f"t-{number}") for number in range(2)])) as server,
        client(server) as kling,
    ):
        async for _ in kling.images.multi_image.iter(page_size=2):
            break

    assert len(server.asked) == 1


@pytest.mark.parametrize("by", ["task id", "external id"])
async def test_another_client_attaches_to_a_running_task(by: str) -> None:
    """A handle made from either id waits for the task of a client that is gone, and creates nothing."""
    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator:
        async with client(emulator) as first:
            made = await first.images.multi_image.create(job(external_task_id="order-1"))
        async with client(emulator) as second:
            handle = second.images.multi_image.handle(made.task_id if by == "task id" else "order-1")
            asked = len(emulator.requests)
            before = await handle.refresh()
            await emulator.advance(4000)
            ended = await handle.wait(timeout=30)

    assert asked == 1, "making a handle asks nothing"
    assert (before.status.ended, ended.status) == (False, TaskStatus.SUCCEED)
    assert handle.task_id == ended.task_id == made.task_id
    assert creates(emulator) == 1


async def test_events_tell_each_status_once() -> None:
    """`events()` yields the task at every change of status, the end included, and then stops."""
    async with Emulator(speed=100, paint="stamp", task_seconds=40.0) as emulator, client(emulator) as kling:
        handle = await kling.images.multi_image.create(job())
        told = [now.status.value async for now in handle.events()]

    assert told[-1] == "succeed"
    assert told == sorted(set(told), key=["submitted", "processing", "succeed"].index)


async def test_events_end_with_a_failure_as_a_status() -> None:
    """A failed task is the last thing told; only a wait makes an error of it."""
    faults = [Fault(action="fail-task", message="Image pixel is invalid")]

    async with Emulator(speed=100, paint="stamp", faults=faults) as emulator, client(emulator) as kling:
        handle = await kling.images.multi_image.create(job())
        told = [now async for now in handle.events()]
        with pytest.raises(TaskFailed, match="Image pixel is invalid") as caught:
            await handle

    assert told[-1].status == TaskStatus.FAILED
    assert (caught.value.task.task_id, caught.value.reason) == (handle.task_id, "Image pixel is invalid")


async def test_a_wait_that_takes_too_long_detaches() -> None:
    """`TaskTimeout` has the id, the task goes on at the service, and the same handle can wait again."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        handle = await kling.images.multi_image.create(job())
        with pytest.raises(TaskTimeout, match=handle.task_id) as caught:
            await handle.wait(timeout=0.1)
        await emulator.advance(4000)
        ended = await handle.wait(timeout=30)

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.task_id == ended.task_id


async def test_many_waiters_of_one_task_are_one_question() -> None:
    """A hundred waits for one task cost no more requests than one."""
    async with Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator, client(emulator) as kling:
        handle = await kling.images.multi_image.create(job())
        ended = []

        async def wait() -> None:
            ended.append(await handle)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(wait)

    assert len({each.task_id for each in ended}) == 1
    assert sum(record.method == "GET" for record in emulator.requests) < 60


# Views and raw replies.


async def test_a_view_shares_everything_but_its_options() -> None:
    """`with_options()` uses the same sessions and slots, keeps the client's own options as they are, and closes nothing."""
    async with (
        Emulator(speed=1, task_seconds=3600.0, slots=1, paint="stamp") as emulator,
        client(emulator, slots=1) as kling,
    ):
        view = kling.with_options(max_retries=0)
        _ = await view.images.multi_image.create(job(), priority=1)
        waiting = kling._engine.links[0].lanes["kling-v2-1"].lane.held
        emulator.faults = emulator.faults.of("html-502@get:x1")
        with pytest.raises(Exception, match="502"):
            await view.images.multi_image.retrieve("any")
        emulator.faults = emulator.faults.of("html-502@get:x1")
        with pytest.raises(TaskNotFound):
            await kling.images.multi_image.retrieve("any")

    assert waiting == 1
    assert view._engine is kling._engine


async def test_a_view_has_its_own_time_limit() -> None:
    """A shorter limit on a view ends its request, and only its own."""

    async with Plain(lambda _: Plain.HANG) as server, client(server, max_retries=0) as kling:
        view = kling.with_options(timeout=Timeouts(request=0.1))
        with pytest.raises(RequestTimeout) as caught:
            await view.images.multi_image.retrieve("t-1")

    assert isinstance(caught.value, TimeoutError)
    assert "0.1" in str(caught.value)


async def test_a_raw_reply_has_all_that_came() -> None:
    """Status, headers, request id and bytes are there, and `parse()` is what the plain call returns."""
    sent = answer(task("t-1", "succeed"), X_Trace="abc")

    async with Plain(lambda _: sent) as server, client(server) as kling:
        mi = kling.images.multi_image
        raw = await mi.with_raw_response.retrieve("t-1")
        plain = await mi.retrieve("t-1")

    assert (raw.status, raw.headers["x-trace"], raw.request_id) == (200, "abc", "plain-1")
    assert sent.endswith(raw.body)
    assert raw.parse() == plain


async def test_a_raw_list_parses_into_tasks() -> None:
    """A raw page parses into the tasks of `list()`."""
    async with Plain(lambda _: answer([task("t-1"), task("t-2")])) as server, client(server) as kling:
        raw = await kling.images.multi_image.with_raw_response.list(page=2, page_size=10)

    assert [each.task_id for each in raw.parse()] == ["t-1", "t-2"]
    assert server.asked[0].target == f"{PATH}?pageNum=2&pageSize=10"


async def test_the_account_tells_its_packs() -> None:
    """`account.packs()` names packs with what is left in them and the slots in their names."""
    async with Emulator(slots=7, units=500, paint="stamp") as emulator, client(emulator) as kling:
        packs = await kling.account.packs()

    (pack,) = packs
    assert (pack.slots, pack.remaining, pack.status) == (7, Decimal(500), "online")


# Answers that are none.


async def test_an_answer_about_another_task_is_none() -> None:
    """A reply with somebody else's task is an error and not the answer."""
    strange = task("t-2", task_info={"external_task_id": "theirs"})

    async with Plain(lambda _: answer(strange)) as server, client(server, max_retries=0) as kling:
        with pytest.raises(MalformedReply, match="expected task t-1, found t-2"):
            await kling.images.multi_image.retrieve("t-1")


async def test_a_reply_without_external_id_still_answers() -> None:
    """A task found by its external id may be shown without it, since `task_info` has been seen empty."""
    async with Plain(lambda _: answer(task("t-1", "succeed"))) as server, client(server) as kling:
        found = await kling.images.multi_image.retrieve("order-1")

    assert found.task_id == "t-1"


# Several accounts.


def two(**first: Any) -> list[Account]:
    return [
        Account("a", **dict[str, Any]({"api_key": "key-of-account-a", "slots": 2} | first)),
        Account("b", api_key="key-of-account-b", slots=2),
    ]


def accounts() -> list[EmulatedAccount]:
    """Return two accounts of two slots."""
    return [
        EmulatedAccount(
            name=name,
            access_key=f"access-{name}",
            secret_key=f"secret-{name}-" * 4,
            api_key=f"key-of-account-{name}",
            slots=2,
        )
        for name in ("a", "b")
    ]


async def test_a_task_is_found_in_whichever_account_has_it() -> None:
    """`retrieve()`, `list()` and handles look into all accounts."""
    async with (
        Emulator(accounts=accounts(), speed="instant", paint="stamp") as emulator,
        client(emulator, accounts=two()) as kling,
    ):
        mi = kling.images.multi_image
        made = [await mi.create(job(external_task_id=f"order-{number}")) for number in range(4)]
        found = [await mi.retrieve(handle.external_task_id) for handle in made]
        listed = await mi.list()
        ended = await mi.handle(made[-1].external_task_id).wait(timeout=30)

    assert {each.account for each in emulator.tasks} == {"a", "b"}
    assert [each.task_id for each in found] == [handle.task_id for handle in made]
    assert {each.task_id for each in listed} == {handle.task_id for handle in made}
    assert ended.task_id == made[-1].task_id


async def test_an_account_that_cannot_answer_hides_no_others_task() -> None:
    """With one account locked out a task of the other is still found; a task of neither is not called absent."""
    async with Emulator(accounts=accounts(), speed="instant", paint="stamp") as emulator:
        async with client(emulator, api_key="key-of-account-b") as alone:
            made = await alone.images.multi_image.create(job())
        async with client(emulator, accounts=two(api_key="no-such-key")) as kling:
            found = await kling.images.multi_image.retrieve(made.task_id)
            with pytest.raises(AuthError):
                await kling.images.multi_image.retrieve("nobody")

    assert found.task_id == made.task_id
