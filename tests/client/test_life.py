"""Where and how long a client may be used, who closes what, and what is left when somebody leaves in the middle."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from socket_kit import (
    PATH,
    Asked,
    Plain,
    answer,
    client,
    creates,
    job,
    leaves_nothing,
    png,
    reply,
    task,
    until,
)

from kling_async import Kling, Task, TaskHandle
from kling_async.emulator import Emulator, Fault
from kling_async.errors import ConfigError, KlingError
from kling_async.protocol.events import Refused

pytestmark = pytest.mark.anyio

Call = Callable[[Kling], Awaitable[object]]

CALLS: dict[str, Call] = {
    "create": lambda kling: kling.images.multi_image.create(job()),
    "retrieve": lambda kling: kling.images.multi_image.retrieve("t-1"),
    "list": lambda kling: kling.images.multi_image.list(),
    "iter": lambda kling: anext(kling.images.multi_image.iter()),
    "raw": lambda kling: kling.images.multi_image.with_raw_response.retrieve("t-1"),
    "wait": lambda kling: kling.images.multi_image.handle("t-1").wait(),
    "refresh": lambda kling: kling.images.multi_image.handle("t-1").refresh(),
    "events": lambda kling: anext(kling.images.multi_image.handle("t-1").events()),
    "packs": lambda kling: kling.account.packs(),
    "batch": lambda kling: anext(kling.batch([job()])),
    "a view": lambda kling: kling.with_options(max_retries=0).images.multi_image.create(job()),
    "async with": lambda kling: kling.__aenter__(),
}


# One loop, one process, open.


@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_client_says_so(name: str) -> None:
    """Each call on a closed client is a ConfigError, and nothing is sent."""
    async with Plain(lambda _: answer(task())) as server:
        async with client(server) as kling:
            pass
        with pytest.raises(ConfigError, match="closed"):
            await CALLS[name](kling)

    assert server.asked == []


@pytest.mark.parametrize("name", CALLS)
def test_a_client_belongs_to_one_loop(name: str) -> None:
    """Each call from another loop than the first one's is a ConfigError that says so."""
    kling = Kling(api_key="some-api-key", base_url="http://127.0.0.1:9")

    async def enter() -> None:
        await kling.__aenter__()

    asyncio.run(enter())

    with pytest.raises(ConfigError, match="another event loop"):
        asyncio.run(_call(CALLS[name], kling))


async def _call(call: Call, kling: Kling) -> None:
    await call(kling)


def test_a_client_is_made_without_a_loop() -> None:
    """Made before any loop runs, a client works in the first one it is used in."""
    found: list[Task] = []

    async def main(port: int) -> None:
        server = Plain(lambda _: answer(task()), port=port)
        async with server, kling:
            found.append(await kling.images.multi_image.retrieve("t-1"))

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kling = Kling(api_key="some-api-key", base_url=f"http://127.0.0.1:{port}", trust_env=False)
    asyncio.run(main(port))

    assert [each.task_id for each in found] == ["t-1"]


SCRIPT = """
    import asyncio, os, sys, warnings
    warnings.simplefilter("error")
    from kling_async import Kling
    from kling_async.errors import ConfigError

    kling = Kling(api_key="some-api-key", base_url="http://127.0.0.1:9")

    async def enter():
        await kling.__aenter__()

    async def call():
        try:
            await kling.images.multi_image.retrieve("t-1")
        except ConfigError as error:
            print(error)

    asyncio.run(enter())
    child = os.fork()
    if child == 0:
        asyncio.run(call())
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def python(script: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a Python of its own."""
    command = [sys.executable, "-X", "dev", "-c", dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="processes fork on POSIX only")
def test_a_forked_process_has_no_client() -> None:
    """In a forked child a call says that the client belongs to the parent."""
    ended = python(SCRIPT)

    assert "the process it was forked from" in ended.stdout, ended.stderr


# Who closes what.


async def test_a_client_left_open_names_its_line() -> None:
    """A client that was used and dropped warns with the line that made it."""
    async with Plain(lambda _: answer(task())) as server:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            here = sys._getframe()
            kling = Kling(api_key="plain-api-key", base_url=server.url)
            line = here.f_lineno - 1
            await kling.images.multi_image.retrieve("t-1")
            # The connection is closed by hand: what is tried here is the warning.
            await kling._engine.links[0].session._own.connector.close()  # type: ignore[union-attr]  # it is open
            del kling
            gc.collect()

    ours = [str(each.message) for each in told if "not closed" in str(each.message)]
    assert len(ours) == 1
    assert f"{__file__}:{line}" in ours[0]


async def test_a_client_that_was_never_used_needs_no_closing() -> None:
    """A client that opened nothing is dropped without a word; so is a view of an open one."""
    async with Plain(lambda _: answer(task())) as server, client(server) as kling:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            client(server)
            await kling.with_options(max_retries=0).images.multi_image.retrieve("t-1")
            gc.collect()

    assert told == []


async def test_a_borrowed_session_is_never_closed() -> None:
    """Closing the client leaves the caller's session as it was."""
    async with Plain(lambda _: answer(task())) as server, aiohttp.ClientSession() as session:
        async with client(server, session=session) as kling:
            await kling.images.multi_image.retrieve("t-1")
        async with client(server, session=session) as kling:
            await kling.images.multi_image.retrieve("t-1")

        assert not session.closed
    assert len(server.asked) == 2


async def test_a_borrowed_session_that_is_closed_is_named() -> None:
    """Where the owner closed the session, calls say so instead of failing somewhere inside."""
    async with Plain(lambda _: answer(task())) as server:
        async with aiohttp.ClientSession() as session:
            pass
        async with client(server, session=session) as kling:
            for call in ("retrieve", "create"):
                with pytest.raises(ConfigError, match="the session given to this client is closed"):
                    await CALLS[call](kling)


async def test_closing_twice_is_closing_once() -> None:
    """`aclose()` may be called again, also by several at once."""
    async with leaves_nothing(), Plain(lambda _: answer(task())) as server:
        kling = client(server)
        await kling.images.multi_image.retrieve("t-1")
        async with anyio.create_task_group() as group:
            group.start_soon(kling.aclose)
            group.start_soon(kling.aclose)
        await kling.aclose()

    assert "closed" in repr(kling)


async def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    """After a client with running tasks, waits and downloads is closed no task and no socket is left."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator,
        client(emulator, slots=3) as kling,
    ):
        handles = [await kling.images.multi_image.create(job()) for _ in range(3)]
        ended = await handles[0]
        await ended.images[0].save(tmp_path)
        _ = await kling.images.multi_image.create(job())


@pytest.mark.parametrize("what", ["wait", "events", "create", "batch"])
async def test_nobody_waits_at_a_closed_client(what: str) -> None:
    """Whoever waits while the client is closed is told so, at once, instead of waiting for ever."""
    async with leaves_nothing(), Emulator(speed=1, task_seconds=3600.0, slots=1, paint="stamp") as emulator:
        kling = client(emulator, slots=1)
        handle = await kling.images.multi_image.create(job())
        batch = kling.batch([job()])
        waits: dict[str, Callable[[], Awaitable[object]]] = {
            "wait": handle.wait,
            "events": lambda: _all(handle),
            "create": lambda: kling.images.multi_image.create(job()),
            "batch": lambda: anext(batch),
        }
        waiting = asyncio.ensure_future(waits[what]())
        await asyncio.sleep(0.1)
        await kling.aclose()
        with pytest.raises(ConfigError, match="closed"):
            async with asyncio.timeout(1):
                await waiting

    assert creates(emulator) == 1


async def _all(handle: TaskHandle) -> None:
    async for _ in handle.events():
        pass


async def test_the_last_events_are_told_before_the_end() -> None:
    """A slow async watcher is told everything, also what happened just before the client was closed."""
    told: list[str] = []

    async def watch(event: object) -> None:
        await asyncio.sleep(0.002)
        told.append(type(event).__name__)

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=watch) as kling,
    ):
        for _ in range(5):
            await kling.images.multi_image.run(job())

    assert (told.count("Submitted"), told.count("Finished")) == (5, 5)


# Leaving in the middle.


async def left_after(work: Awaitable[object], ready: Callable[[], object]) -> tuple[float, BaseException]:
    """Cancel *work* once *ready* says so; returns how long that took and the CancelledError."""
    running = asyncio.ensure_future(work)
    await until(ready)
    begin = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running
    return time.monotonic() - begin, caught.value


async def test_leaving_a_create_that_waits_for_a_slot() -> None:
    """Cancelled in the queue, a create has sent nothing, and the next one gets the slot."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=1, paint="stamp") as emulator,
        client(emulator, slots=1) as kling,
    ):
        first = await kling.images.multi_image.create(job())
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane
        taken, _ = await left_after(kling.images.multi_image.create(job()), lambda: lane.waiting)
        left = (lane.waiting, lane.held)
        await emulator.advance(4000)
        await first
        second = await kling.images.multi_image.create(job())

    assert taken < 2
    assert left == (0, 1)
    assert [each.task_id for each in emulator.tasks] == [first.task_id, second.task_id]


async def test_leaving_a_create_in_mid_post() -> None:
    """Cancelled while the POST is under way: at once, one task is made, its slots are held until it ends, its id is told."""
    faults = [Fault(action="delay", route="create", seconds=1.0)]

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
    ):
        mi = kling.images.multi_image
        turnstiles = kling._engine.links[0].lanes
        work = mi.create(job(external_task_id="order-1", n=4))
        taken, error = await left_after(work, lambda: _sent(kling))
        lane = turnstiles["kling-v2-1"].lane
        held_at_once = lane.held
        await until(lambda: emulator.tasks)
        await until(lambda: kling._engine.poller.watching)
        held_later = lane.held
        await emulator.advance(4000)
        ended = await mi.handle("order-1").wait(timeout=30)
        await until(lambda: lane.held == 0)

    assert taken < 0.7
    assert error.__notes__ == ["external_task_id: order-1"]
    assert (held_at_once, held_later) == (4, 4)
    assert (creates(emulator), emulator.accepted("order-1")) == (1, 1)
    assert len(ended.images) == 4


def _sent(kling: Kling) -> bool:
    return bool(kling._engine.links[0].session.requests)


async def test_leaving_in_the_moment_of_a_refusal() -> None:
    """Cancelled in the very pass of the loop in which its create was refused, a caller leaves no ticket behind."""
    running: list[asyncio.Task[Any]] = []

    def leave(event: object) -> None:
        if isinstance(event, Refused):
            running[0].cancel()

    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=1, paint="stamp") as emulator,
        client(emulator, slots=2, on_event=leave) as kling,
    ):
        _ = await kling.images.multi_image.create(job())
        running.append(asyncio.ensure_future(kling.images.multi_image.create(job())))
        with pytest.raises(asyncio.CancelledError):
            await running[0]
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane
        left = (lane.waiting, lane.held)

    assert left == (0, 1)


async def test_leaving_a_create_while_slots_are_asked_for() -> None:
    """Cancelled while the client learns how many slots there are, a create leaves nothing, and the next one goes through."""
    faults = [Fault(action="delay", route="costs", seconds=1.0, times=1)]

    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, slots="auto") as kling,
    ):
        taken, _ = await left_after(kling.images.multi_image.create(job()), lambda: _sent(kling))
        handle = await kling.images.multi_image.create(job())

    assert taken < 0.7
    assert [each.task_id for each in emulator.tasks] == [handle.task_id]


async def test_leaving_a_wait() -> None:
    """Cancelled in a wait, nothing is left; the task goes on and can be waited for again."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        handle = await kling.images.multi_image.create(job())
        row = handle._row
        assert row is not None
        taken, _ = await left_after(handle.wait(), lambda: row.listeners)
        left = row.listeners
        await emulator.advance(4000)
        ended = await handle.wait(timeout=30)

    assert taken < 2
    assert not left
    assert ended.images


async def test_leaving_a_wait_that_has_to_attach_first() -> None:
    """Cancelled while a handle looks its task up, a wait leaves nothing; a second one works."""
    hang = [Plain.HANG]

    def say(_: Asked) -> bytes:
        return hang.pop() if hang else answer(task("t-1", "failed"))

    async with leaves_nothing(), Plain(say) as server, client(server) as kling:
        handle = kling.images.multi_image.handle("t-1")
        taken, _ = await left_after(handle.wait(), lambda: server.asked)
        with pytest.raises(KlingError, match="failed"):
            await handle

    assert taken < 2


async def test_leaving_a_download(tmp_path: Path) -> None:
    """Cancelled in the middle of a picture, neither it nor a part of it is left, and saving again works."""
    half = reply(200, png(), kind="image/png")[:-300] + Plain.HANG
    pictures = [reply(200, png(), kind="image/png"), half]

    def say(asked: Asked) -> bytes:
        if asked.path.startswith(PATH):
            images = [{"index": 0, "url": f"{server.url}/made.png"}]
            return answer(task("t-1", "succeed", task_result={"images": images}))
        return pictures.pop()

    async with leaves_nothing(), Plain(say) as server, client(server) as kling:
        image = (await kling.images.multi_image.retrieve("t-1")).images[0]
        taken, _ = await left_after(image.save(tmp_path), lambda: len(pictures) == 1)
        left = await anyio.to_thread.run_sync(lambda: list(tmp_path.iterdir()))
        path = await image.save(tmp_path)

    assert taken < 3
    assert not left
    assert path.read_bytes() == png()
