"""Many faults at once, and callers who leave in the middle; the books must balance all the same."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from attrs import evolve
from fault_kit import QUICK, Log, client_of, job
from fault_server import Fault, FaultServer, Life, Script
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within

from kling_async.client.handles import TaskHandle
from kling_async.errors import ConfigError, KlingError

pytestmark = pytest.mark.anyio

SEEDS = range(4)
JOBS = 24


def storm() -> list[Fault]:
    """Return one of each kind of trouble, each striking one request in forty, for ever."""
    kinds = [
        go.cut("rst", "head"),
        go.cut("rst", "read"),
        go.cut("fin", "accepted"),
        go.cut("hang", "accepted"),
        go.cut("rst", "status"),
        go.html(502),
        go.html(504, accepted=True),
        go.refuse(5000, accepted=True),
        go.refuse(1303),
        go.edit({"data": None}),
        go.truncate("none"),
        go.garbage(),
        go.html(502, "get"),
        go.html(502, "list"),
        go.cut("rst", "read", "get"),
        go.truncate("length", "list"),
        go.captive_portal("get"),
    ]
    return [evolve(fault, probability=1 / 40, times=None) for fault in kinds]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("unique", [True, False], ids=["unique", "not unique"])
async def test_a_storm_of_faults_is_paid_once(seed: int, *, unique: bool) -> None:
    """Whatever strikes, no job is billed twice, the slots are never passed, and every call ends."""
    server = FaultServer(script=Script(seed))
    server.change(unique=unique, slots=12, enforce=False, life=Life(seconds=0.05))
    server.break_with(*storm())
    names = [f"seed-{seed}-job-{number}" for number in range(JOBS)]
    ends: dict[str, object] = {}

    async with server, client_of(server, slots=12, max_retries=5, timeout=QUICK) as kling:

        async def one(number: int, name: str) -> None:
            try:
                task = await kling.images.multi_image.run(job(name, n=1 + number % 4), wait_timeout=30)
            except KlingError as error:
                ends[name] = error
            else:
                ends[name] = task

        async with anyio.create_task_group() as group:
            for number, name in enumerate(names):
                group.start_soon(one, number, name)

    failed = {name: end for name, end in ends.items() if isinstance(end, KlingError)}
    assert server.books.paid_twice == {}
    assert set(ends) == set(names)
    assert set(names) - set(failed) <= set(server.books.accepted)
    assert len(failed) <= JOBS // 10, failed
    assert_within(server.books, slots=12, posts=2 * JOBS)


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
async def test_a01_a_caller_who_leaves_in_mid_create(
    server_in_two_modes: FaultServer, *, accepted: bool
) -> None:
    """Cancelled in the middle of a create the call ends at once, and the same id finds its task later."""
    server = server_in_two_modes
    server.break_with(go.cut("hang", "accepted" if accepted else "read"))

    limits = evolve(QUICK, request=2.0)

    async with client_of(server, timeout=limits) as kling:
        creating = asyncio.ensure_future(kling.images.multi_image.create(job("job-1")))
        async with asyncio.timeout(30):
            while not server.books.log or not server.books.log[-1].faults:  # noqa: ASYNC110 - the server's books
                await asyncio.sleep(0.005)
        begin = time.monotonic()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = await creating
        taken = time.monotonic() - begin
        while not server.books.charges:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
        task = await kling.images.multi_image.handle("job-1").wait(timeout=30)

    # Sooner than the create could have ended by itself.
    assert taken < limits.request / 2
    assert task.task_id == server.books.charges[0].task_id
    assert_paid_once(server.books, ["job-1"])


async def test_a01_a_caller_who_leaves_before_the_create_has_sent_nothing(server: FaultServer) -> None:
    """Cancelled while it waits for a slot, a call leaves no request and no claim behind."""
    server.change(slots=1, life=Life.endless())

    async with client_of(server, slots=1) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                _ = await kling.images.multi_image.create(job("job-2"))
        server.service.tasks.end_all()
        async with asyncio.timeout(30):
            _ = await kling.images.multi_image.create(job("job-3"))

    assert_paid_once(server.books, ["job-1", "job-3"])
    assert_within(server.books, slots=1)


async def test_a02_a_caller_who_leaves_in_mid_wait(server: FaultServer) -> None:
    """Cancelling a wait leaves the task alone; it can be waited for again."""
    server.change(life=Life.endless())

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await handle
        server.service.tasks.end_all()
        task = await handle.wait(timeout=30)

    assert task.images
    assert_within(server.books, posts=1)


async def test_a02_leaving_the_client_with_everything_under_way(server: FaultServer) -> None:
    """Closing in the middle of creates and waits leaves no task, socket or double payment behind."""
    server.change(slots=50, life=Life.endless())
    server.break_with(go.delay(0.1, times=None))
    names = [f"job-{number}" for number in range(20)]

    async with client_of(server, slots=50) as kling:
        creating = [asyncio.ensure_future(kling.images.multi_image.create(job(name))) for name in names]
        await asyncio.sleep(0.05)
        for each in creating[::2]:
            each.cancel()
    ends = await asyncio.gather(*creating, return_exceptions=True)

    assert {type(end) for end in ends[::2]} == {asyncio.CancelledError}
    assert all(isinstance(end, TaskHandle | KlingError) for end in ends[1::2])
    assert {end.external_task_id for end in ends if isinstance(end, TaskHandle)} <= set(server.books.accepted)
    assert server.books.paid_twice == {}


async def test_a03_a_closed_client_says_so(server: FaultServer) -> None:
    """A call on a closed client is an error at once, and nothing is sent."""
    async with client_of(server) as kling:
        pass

    with pytest.raises(ConfigError, match="closed"):
        _ = await kling.images.multi_image.create(job("job-1"))
    assert server.books.connections == 0


async def test_a04_a_watcher_that_raises_stops_nothing(server: FaultServer) -> None:
    """An error in the caller's own hook is logged, and the job goes on."""
    log = Log()

    async with client_of(server, log, on_event=_broken) as kling:
        task = await kling.images.multi_image.run(job("job-1"), wait_timeout=30)

    assert task.images
    assert any("on_event" in line for line in log.lines)


def _broken(_: object) -> None:
    raise ZeroDivisionError("the caller's own mistake")
