"""Left at any step, in any way, nothing is left behind and nothing is lost (A01, A02, R11, R26)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cancel_kit import WAYS, Moment, Program, cut_by, nothing_left, parts_in
from socket_kit import QUICK, client, job, open_files, png, until

from kling_async import Failed, Kling, MultiImage
from kling_async.emulator import Emulator
from kling_async.errors import TaskNotFound
from kling_async.journal.journal import Journal
from kling_async.protocol.events import Event
from kling_async.testing import RunningEmulator, running_emulator

# Steps between two cuts; each test begins at another one of them, so that together they try many. All with 1.
STRIDE = int(os.environ.get("KLING_TEST_CUT_STRIDE", "29"))


@pytest.fixture
def service() -> Iterator[RunningEmulator]:
    """An emulator in a thread of its own, so that the loop under test has nothing but the client's tasks."""
    with running_emulator(speed="instant", paint="stamp") as emulator:
        yield emulator


def steps(start: int, stride: int = STRIDE, first: int = 0) -> Iterator[int]:
    """Count the *first* steps one by one, then on from *start*, for ever."""
    yield from range(1, first + 1)
    step = first + 1 + start % stride
    while True:
        yield step
        step += stride


def a_client(service: RunningEmulator, **options: Any) -> Kling:
    usual = {
        "api_key": service.api_key,
        "base_url": service.url,
        "slots": 4,
        "timeout": QUICK,
        "min_poll_interval": 0.01,
        "trust_env": False,
    }
    return Kling(**{**usual, **options})


# One caller.


async def _one_picture(kling: Kling, name: str, folder: Path) -> None:
    handle = await kling.images.multi_image.create(
        subject_images=[folder / "in.png"], prompt="a dress", external_task_id=name, n=2
    )
    done = await handle
    async for _ in kling.images.multi_image.handle(name).events():
        pass
    for image in done.images:
        await image.save(folder / name)
    await done.images[0].read()
    await kling.images.multi_image.list()


@pytest.mark.anyio
@pytest.mark.parametrize("moment", ["waiting", "answered"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_may_leave_at_every_step(way: str, moment: Moment, tmp_path: Path) -> None:
    """Whatever a caller awaits, leaving it there keeps no slot, task or file, and the same id finds what was made."""
    (tmp_path / "in.png").write_bytes(png())
    cuts = 0

    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator, slots=2) as kling:
        mi = kling.images.multi_image
        for at in steps(0, 1 if way == "task.cancel()" else 3):
            name = f"at-{at}"
            before = asyncio.all_tasks()
            cut = await cut_by(way, _one_picture(kling, name, tmp_path), at, moment)
            if not cut.done:
                break
            cuts += 1
            await until(lambda: not len(kling._engine.background))
            await until(partial(_none_left, before))
            lane = kling._engine.links[0].lanes.get("kling-v2-1")
            assert lane is None or (lane.lane.held, lane.lane.waiting) == (0, 0), at
            made = [each for each in emulator.tasks if each.external_task_id == name]
            assert len(made) <= 1, at
            if made:
                assert (await mi.handle(name).wait(timeout=5)).images, at

    assert cuts >= 10 if way == "task.cancel()" else cuts >= 4
    assert parts_in(tmp_path) == []


def _none_left(before: set[asyncio.Task[Any]]) -> bool:
    """Tell whether all tasks that began since *before* have ended, but for those of the emulator in this loop."""
    names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks() - before)
    return all(name.startswith("RequestHandler") for name in names)


UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [UVLOOP])
@pytest.mark.parametrize("moment", ["waiting", "answered"])
async def test_a05_leaving_is_the_same_on_uvloop(moment: Moment, tmp_path: Path) -> None:
    """On uvloop too, whatever a caller awaits can be left, and what was made is found by its id."""
    (tmp_path / "in.png").write_bytes(png())

    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator, slots=2) as kling:
        assert "uvloop" in type(asyncio.get_running_loop()).__module__
        for at in steps(0, 5):
            cut = await cut_by("asyncio.timeout", _one_picture(kling, f"at-{at}", tmp_path), at, moment)
            if not cut.done:
                break
            await until(partial(_quiet, kling))
            if emulator.accepted(f"at-{at}"):
                assert (await kling.images.multi_image.handle(f"at-{at}").wait(timeout=5)).images
        async with kling.batch([job(key="row")], out=tmp_path / "out") as batch:
            assert [type(outcome).__name__ async for outcome in batch] == ["Succeeded"]

    assert parts_in(tmp_path) == []


def _quiet(kling: Kling) -> bool:
    return not len(kling._engine.background)


@pytest.mark.anyio
async def test_a06_many_callers_share_one_client() -> None:
    """5,000 callers at once, most of whom leave again, need no more sockets than the pool has, and leave nothing."""
    sockets: list[int] = []

    async with (
        Emulator(speed="instant", paint="stamp", slots=50) as emulator,
        client(emulator, slots=50) as kling,
    ):
        before = _open_sockets()
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(_run_one(kling, number, sockets)) for number in range(5000)]
            await until(lambda: emulator.tasks, 60)
            for number, caller in enumerate(callers):
                if number % 5:
                    caller.cancel()
        pool = kling._engine.links[0].session._connection.connections
        left = kling._engine.links[0].lanes["kling-v2-1"].lane.waiting
        ended = [caller.result() for caller in callers if not caller.cancelled()]
        assert len(emulator.tasks) == len({each.external_task_id for each in emulator.tasks})

    assert len(ended) >= 1000
    assert left == 0
    # Both ends of each connection are in this process.
    assert 0 < max(sockets) - before <= 2 * pool


async def _run_one(kling: Kling, number: int, sockets: list[int]) -> str:
    handle = await kling.images.multi_image.create(job(external_task_id=f"caller-{number}"))
    if number % 50 == 0:
        sockets.append(_open_sockets())
    return (await handle.wait(timeout=300)).task_id


def _open_sockets() -> int:
    return sum(target.startswith("socket:") for target in open_files().values())


# A whole program.


def _jobs(folder: Path) -> list[MultiImage]:
    picture = folder / "in.png"
    picture.write_bytes(png())
    return [job(key=f"row-{number}", subject_images=[picture], n=1 + number % 2) for number in range(4)]


async def _slow_watcher(_: Event) -> None:
    await asyncio.sleep(0.001)


def _batch(service: RunningEmulator, folder: Path) -> Callable[[], Coroutine[Any, Any, None]]:
    jobs = _jobs(folder)

    async def main() -> None:
        async with (
            a_client(service, on_event=_slow_watcher) as kling,
            kling.batch(jobs, out=folder / "out") as batch,
        ):
            async for outcome in batch:
                assert not isinstance(outcome, Failed), outcome

    return main


def _singles(service: RunningEmulator, folder: Path) -> Callable[[], Coroutine[Any, Any, None]]:
    journal = folder / "journal.db"

    async def main() -> None:
        async with a_client(service, journal=journal) as kling, asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(_keep(kling, f"{folder.name}-{number}"))

    async def _keep(kling: Kling, name: str) -> None:
        known = await kling.images.multi_image.pending()
        handles = [handle for handle in known if handle.external_task_id == name]
        with suppress(TaskNotFound):  # of a create that was cut off before it had made one
            if handles:
                await handles[0].wait(timeout=10)
        if name not in {each.external_task_id for each in service.tasks}:
            await kling.images.multi_image.run(job(external_task_id=name), wait_timeout=10)

    return main


PROGRAMS = {"a batch": (_batch, 4), "single creates": (_singles, 3)}


@pytest.mark.parametrize("everything", [False, True], ids=["main", "everything"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_may_be_cut_at_every_pass_of_its_loop(
    name: str,
    everything: bool,  # noqa: FBT001  # a parameter of the test
    service: RunningEmulator,
    tmp_path: Path,
) -> None:
    """
    Cut anywhere, a program ends soon and leaves no task, socket, thread, lock or part of a file.

    The same program run again finishes, and every job was made exactly once.
    """
    make, jobs = PROGRAMS[name]
    made = 0
    # The first passes open everything there is to be left open.
    for at in steps(11 * everything + 5 * len(name), first=12):
        folder = tmp_path / str(at)
        folder.mkdir()
        main = make(service, folder)
        program = Program(main, everything=everything)
        try:
            with nothing_left(folder):
                program.run(at)
            assert program.left == []
            assert program.seconds < 10
            asyncio.run(_take_lock(folder))
            with nothing_left(folder):
                Program(main).run(0)
            made += jobs
            assert len(service.tasks) == made
        except BaseException as error:
            error.add_note(f"cut at pass {at}")
            raise
        if program.passes < at:
            break


async def _take_lock(folder: Path) -> None:
    for path in (folder / "journal.db", folder / "out" / "journal.db"):
        if path.exists():
            await (await Journal.open(path)).aclose()
