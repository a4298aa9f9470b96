"""Whoever watches a client can neither stall nor break it, loses detail rather than memory, and hears the whole story."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import anyio
import pytest
from socket_kit import Log, Plain, answer, client, creates, job, leaves_nothing, logged, task, until

from kling_async.client import mailbox
from kling_async.client.emitter import Emitter
from kling_async.client.mailbox import Mailbox
from kling_async.emulator import Emulator, Fault
from kling_async.errors import (
    ConfigError,
    ContentRefusal,
    DownloadError,
    NoSuchResource,
    SubmissionUnknown,
    TaskTimeout,
)
from kling_async.protocol.events import (
    Detached,
    Dropped,
    Event,
    Finished,
    LaneMoved,
    Missed,
    Polled,
    Recovered,
    Requested,
    Resumed,
    Saved,
    SaveFailed,
    Submitted,
    Waiting,
)

pytestmark = pytest.mark.anyio


def event(number: int) -> Event:
    return Polled(account="main", requests=number, waiting=0, ended=0)


# Watchers that misbehave.


async def test_a_watcher_that_blocks_gets_a_thread_of_its_own() -> None:
    """A plain function that blocks holds the loop a few times, is told in the log, and then hears the rest elsewhere."""
    heard: list[tuple[Event, str]] = []

    def watch(told: Event) -> None:
        time.sleep(0.12)
        heard.append((told, threading.current_thread().name))

    emitter, slowest = Emitter(), 0.0
    emitter.subscribe(watch)
    with logged() as log:
        for number in range(8):
            begin = time.monotonic()
            emitter.emit(event(number))
            slowest = slowest if number < 3 else max(slowest, time.monotonic() - begin)
        await emitter.aclose(grace=30)

    assert [told for told, _ in heard] == [event(number) for number in range(8)]
    assert [name for _, name in heard].count("MainThread") <= 4
    assert heard[-1][1] == "kling-on-event"
    assert any("blocks the event loop" in line for line in log.lines)
    assert not emitter.busy


async def test_a_quick_watcher_stays_on_the_loop() -> None:
    """Any number of quick calls stay in the loop's thread, where asyncio's own objects may be used."""
    names: set[str] = set()
    emitter = Emitter()
    emitter.subscribe(lambda _: names.add(threading.current_thread().name))

    for number in range(20_000):
        emitter.emit(event(number))

    assert names == {threading.current_thread().name}


async def test_a_watcher_in_a_thread_keeps_its_context() -> None:
    """Also in its own thread a watcher sees the context variables of where the event happened."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    def watch(_: Event) -> None:
        seen.append(request.get())
        time.sleep(0.12)

    emitter = Emitter()
    emitter.subscribe(watch)
    for number in range(6):
        request.set(f"request {number}")
        emitter.emit(event(number))
    await emitter.aclose(grace=30)

    assert seen == [f"request {number}" for number in range(6)]


async def test_a_watcher_that_blocks_for_ever_is_left_behind() -> None:
    """Closing does not wait for a thread that its watcher blocks; that is told."""
    free = threading.Event()
    calls: list[Event] = []

    def watch(told: Event) -> None:
        calls.append(told)
        if len(calls) <= 3:
            time.sleep(0.15)
        else:
            free.wait()

    emitter = Emitter()
    emitter.subscribe(watch)
    with logged() as log:
        for number in range(10):
            emitter.emit(event(number))
        await until(lambda: len(calls) == 4)
        begin = time.monotonic()
        await emitter.aclose(grace=0.2)
        taken = time.monotonic() - begin
    free.set()
    await until(lambda: not any(each.name == "kling-on-event" for each in threading.enumerate()))

    assert taken < 5
    assert any("still blocks" in line for line in log.errors)
    assert len(calls) == 4, "what it had not heard is not told to it later"


async def test_an_async_watcher_that_never_ends_is_left_behind() -> None:
    """An async watcher that catches its own cancellation does not keep the client from closing."""
    end = asyncio.Event()

    async def watch(_: Event) -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    emitter = Emitter()
    emitter.subscribe(watch)
    with logged() as log:
        emitter.emit(event(1))
        with anyio.fail_after(10):
            await emitter.aclose(grace=0.05)
    end.set()

    assert any("go on although they were cancelled" in line for line in log.errors)


async def _cancel(_: Event) -> None:
    raise asyncio.CancelledError


def _cancel_at_once(_: Event) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("watch", [_cancel, _cancel_at_once], ids=["async", "sync"])
async def test_a_watcher_that_raises_cancelled_error_cancels_nothing(
    watch: Callable[[Event], Awaitable[None] | None],
) -> None:
    """A CancelledError out of a watcher is its own trouble: the job whose event it was goes on."""
    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=watch) as kling,
    ):
        ended = [await kling.images.multi_image.run(job()) for _ in range(3)]

    assert len(ended) == 3


async def test_errors_do_not_flood_the_log() -> None:
    """A watcher that always raises is logged ever more seldom, with how often it did."""

    def watch(_: Event) -> None:
        raise ZeroDivisionError("the watcher's own mistake")

    emitter = Emitter()
    emitter.subscribe(watch)
    with logged() as log:
        for number in range(1000):
            emitter.emit(event(number))

    assert len(log.errors) == 10
    assert "512 times" in log.errors[-1]


async def test_a_slow_watcher_loses_detail_and_is_told() -> None:
    """Of more events than a watcher can take the oldest are dropped; what it hears begins with how many."""
    gate, heard = asyncio.Event(), []

    async def watch(told: Event) -> None:
        heard.append(told)
        await gate.wait()

    emitter = Emitter()
    emitter.subscribe(watch)
    emitter.emit(event(0))
    await until(lambda: heard)
    for number in range(1, mailbox._LONGEST + 8):
        emitter.emit(event(number))
    gate.set()
    await emitter.aclose(grace=60)

    assert heard[1] == Missed(count=7)
    assert heard[2:] == [event(number) for number in range(8, mailbox._LONGEST + 8)]


def test_a_mailbox_is_bounded() -> None:
    """However much is put in, no more than the bound is kept, and the count of the rest is exact."""
    box = Mailbox(longest=3)

    for number in range(10):
        box.put((event(number), None))
    taken = [letter[0] for letter in iter(box.take, None)]

    assert taken == [Missed(count=7), event(7), event(8), event(9)]


# Who may watch.


async def test_several_may_watch() -> None:
    """A list of watchers, sync and async mixed, is told the same; one that raises takes nothing from the others."""
    sync: list[Event] = []
    later: list[Event] = []

    async def watch(told: Event) -> None:
        later.append(told)

    def broken(_: Event) -> None:
        raise ZeroDivisionError("the watcher's own mistake")

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=[sync.append, broken, watch]) as kling,
    ):
        await kling.images.multi_image.run(job())

    assert sync
    assert later == sync


class Watcher:
    """An object with an async call."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    async def __call__(self, told: Event) -> None:
        await asyncio.sleep(0)
        self.heard.append(told)


async def test_an_object_may_watch() -> None:
    """An object whose `__call__` is async is an async watcher."""
    watcher = Watcher()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=watcher) as kling,
    ):
        await kling.images.multi_image.run(job())

    assert {type(each) for each in watcher.heard} >= {Waiting, Submitted, Finished}


@pytest.mark.parametrize("wrong", [7, "print", [None]])
def test_what_cannot_be_called_cannot_watch(wrong: Any) -> None:
    """Anything but functions is a ConfigError at once."""
    from kling_async import Kling

    with pytest.raises(ConfigError, match="on_event"):
        Kling(api_key="some-key", on_event=wrong)


async def test_a_subscription_ends_once_and_for_all() -> None:
    """After its end a watcher hears nothing; ending it twice is ending it once."""
    heard: list[Event] = []
    emitter = Emitter()
    stop = emitter.subscribe(heard.append)

    emitter.emit(event(1))
    stop()
    stop()
    emitter.emit(event(2))

    assert heard == [event(1)]
    assert not emitter.active


# The whole story.


async def test_every_way_of_a_job_has_an_end() -> None:
    """Refused, left in the queue, cut off or found again: what has begun to wait is told to have ended."""
    log = Log()
    faults = [
        Fault(action="refuse", code=1301, match_external_id="bad"),
        Fault(action="reset-after-accept", match_external_id="lost"),
    ]

    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp", faults=faults) as emulator:
        async with client(emulator, on_event=log.events.append, slots=2) as kling:
            create = kling.images.multi_image.create
            with pytest.raises(ContentRefusal):
                _ = await create(job(external_task_id="bad"))
            _ = await create(job(external_task_id="lost"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    _ = await create(job(external_task_id="queued", n=2))

    begun = {each.external_task_id for each in log.of(Waiting)}
    dropped = {each.external_task_id: type(each.error) for each in log.of(Dropped)}
    detached = {each.external_task_id: type(each.error) for each in log.of(Detached)}
    assert begun == {"bad", "lost", "queued"}
    assert dropped == {"bad": ContentRefusal, "queued": type(None)}
    assert detached == {"lost": ConfigError}
    assert [each.external_task_id for each in log.of(Recovered)] == ["lost"]


async def test_a_task_found_again_is_told() -> None:
    """A handle made of an id tells that the task is looked after again, and its end."""
    log = Log()

    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator:
        async with client(emulator) as kling:
            made = await kling.images.multi_image.create(job())
        async with client(emulator, on_event=log.events.append) as kling:
            again = kling.images.multi_image.handle(made.task_id)
            with pytest.raises(TaskTimeout):
                await again.wait(timeout=0.3)
            await emulator.advance(4000)
            await again.wait(timeout=5)

    (resumed,), (finished,) = log.of(Resumed), log.of(Finished)
    assert resumed.task_id == finished.task_id == made.task_id
    assert resumed.external_task_id == made.external_task_id


async def test_a_task_that_is_gone_is_told() -> None:
    """A task that the service no longer knows is detached, with its ids."""
    log, known = Log(), [True]

    def say(asked: Any) -> bytes:
        if asked.method == "POST":
            return answer(task())
        return answer(task()) if known[0] else answer(None, code=1203, status=404)

    async with Plain(say) as server, client(server, on_event=log.events.append) as kling:
        handle = await kling.images.multi_image.create(job(key="row"))
        for desk in kling._engine.poller._desks.values():
            desk.book.grace = 0.05
        known[0] = False
        with pytest.raises(NoSuchResource):
            await handle

    (gone,) = log.of(Detached)
    assert (gone.task_id, gone.key, type(gone.error)) == ("t-1", "row", NoSuchResource)


async def test_requests_are_told_with_their_outcome() -> None:
    """Each request is told with route, status, code, request id and time; one without an answer with its error."""
    log = Log()
    faults = [
        Fault(action="refuse", code=1303, times=1),
        Fault(action="reset", times=1, match_external_id="lost"),
    ]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=log.events.append) as kling,
    ):
        await kling.images.multi_image.run(job())
        await kling.images.multi_image.run(job(external_task_id="lost"))
        await kling.images.multi_image.list()

    told = [(each.route, each.status, each.code) for each in log.of(Requested)]
    assert told[:2] == [("create", 429, 1303), ("create", 200, 0)]
    assert {"get", "list"} <= {route for route, _, _ in told}
    assert [type(each.error).__name__ for each in log.of(Requested) if each.error] == ["TransportError"]
    assert all(each.request_id and each.seconds > 0 for each in log.of(Requested) if not each.error)
    assert log.of(Finished)[0].lag is not None
    assert creates(emulator) == [route for route, _, _ in told].count("create")


async def test_a_lane_tells_its_slots() -> None:
    """What a lane holds and how many wait is told as it changes, and again when all is given back."""
    log = Log()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=log.events.append, slots=2) as kling,
    ):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(kling.images.multi_image.run, job())
        await until(lambda: log.of(LaneMoved)[-1].held == 0)

    moved = log.of(LaneMoved)
    assert {each.limit for each in moved} == {2}
    assert max(each.held for each in moved) == 2
    assert max(each.waiting for each in moved) >= 2
    assert all(before != after for before, after in pairwise(moved))


async def test_single_pictures_are_told(tmp_path: Any) -> None:
    """`image.save()` tells what was saved or why it was not, with the time it took."""
    log = Log()
    faults = [Fault(action="truncate", route="result", times=9)]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=log.events.append) as kling,
    ):
        done = await kling.images.multi_image.run(job())
        with pytest.raises(DownloadError):
            await done.images[0].save(tmp_path)

    (failed,) = log.of(SaveFailed)
    assert (failed.task_id, type(failed.error)) == (done.task_id, DownloadError)
    assert failed.seconds > 0
    assert log.of(Saved) == []


async def test_nobody_watching_costs_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a watcher not one event is made, so that watching costs nothing to those who do not."""
    made: list[object] = []
    monkeypatch.setattr(Emitter, "emit", lambda _, told: made.append(told))

    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        await kling.images.multi_image.run(job())

    assert made == []


async def test_a_create_cut_off_by_the_end_of_the_client_is_of_unknown_fate() -> None:
    """A create still unanswered when the client's grace is over is a SubmissionUnknown with its id, not a cancellation."""
    log = Log()

    def say(asked: Any) -> bytes:
        return Plain.HANG if asked.method == "POST" else answer(None, code=1203, status=404)

    async with leaves_nothing(), Plain(say) as server:
        kling = client(server, on_event=log.events.append)
        work = asyncio.ensure_future(kling.images.multi_image.create(job(external_task_id="order-1")))
        await until(lambda: server.asked)
        await kling._engine.aclose(grace=0.05)
        with pytest.raises(SubmissionUnknown, match="retrieve") as caught:
            _ = await work
        await kling.aclose()

    assert caught.value.external_task_id == "order-1"
    assert [type(each.error) for each in log.of(Dropped)] == [SubmissionUnknown]
