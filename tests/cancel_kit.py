"""
Cancel something at each of its steps, and look at what is left.

A coroutine takes a step each time it waits. `Cut` cancels it at one of them, either while it waits or in the moment in
which it is answered: then it has what it waited for and is cancelled all the same, which is where things get lost. A
whole program is cut at a pass of its loop (`Program`).
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import anyio
from attrs import define, field
from socket_kit import Log, logged, open_files

__all__ = ["WAYS", "Cut", "Moment", "Program", "cut_by", "nothing_left", "parts_in"]

Moment = Literal["waiting", "answered"]


@define(eq=False)
class Cut:
    """Awaits *work* and calls *cancel* at its step number *at*; *steps* is how many it took, *done* whether it was cut."""

    work: Coroutine[Any, Any, Any]
    at: int
    moment: Moment = "waiting"
    cancel: Callable[[], object] = field(default=lambda: None)
    steps: int = 0
    done: bool = False

    def __await__(self) -> Generator[Any, Any, Any]:
        work, send = self.work, self.work.send
        value: Any = None
        while True:
            try:
                awaited = send(value)
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self.at:
                self._arm(awaited)
            try:
                value, send = (yield awaited), work.send
            except BaseException as error:  # noqa: BLE001 - whatever comes is passed on as it is
                value, send = error, work.throw

    def _arm(self, awaited: Any) -> None:
        if self.moment == "waiting" or not asyncio.isfuture(awaited):
            asyncio.get_running_loop().call_soon(self._fire)
        else:
            # Before the task's own callback, which wakes it: it will have an answer and be cancelled.
            awaited.add_done_callback(lambda _: self._fire())

    def _fire(self) -> None:
        self.done = True
        self.cancel()


# The ways in which a caller is made to leave; each runs the cut until it ends, and takes what that raises.


async def _natively(cut: Cut) -> None:
    task = asyncio.ensure_future(_run(cut))
    cut.cancel = task.cancel
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _by_scope(cut: Cut) -> None:
    with anyio.CancelScope() as scope:
        cut.cancel = scope.cancel
        await cut


async def _by_timeout(cut: Cut) -> None:
    try:
        async with asyncio.timeout(None) as limit:
            cut.cancel = lambda: limit.reschedule(asyncio.get_running_loop().time())
            await cut
    except TimeoutError:
        assert cut.done


async def _by_wait_for(cut: Cut) -> None:
    # What `wait_for` does when its time is over: it cancels the task that it made and waits for it.
    task = asyncio.ensure_future(_run(cut))
    cut.cancel = task.cancel
    try:
        await asyncio.wait_for(task, 30)
    except asyncio.CancelledError:
        assert cut.done


class _SiblingError(Exception):
    """What makes a task group cancel its tasks."""


async def _by_group(cut: Cut) -> None:
    fail = asyncio.Event()
    cut.cancel = fail.set

    async def sibling() -> None:
        await fail.wait()
        raise _SiblingError

    try:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(sibling())
            await group.create_task(_run(cut))
            other.cancel()
    except* _SiblingError:
        assert cut.done


async def _run(cut: Cut) -> None:
    await cut


WAYS: dict[str, Callable[[Cut], Awaitable[None]]] = {
    "task.cancel()": _natively,
    "anyio.CancelScope": _by_scope,
    "asyncio.timeout": _by_timeout,
    "asyncio.wait_for": _by_wait_for,
    "asyncio.TaskGroup": _by_group,
}


async def cut_by(way: str, work: Coroutine[Any, Any, Any], at: int, moment: Moment) -> Cut:
    """Run *work* and make it leave in a *way* at its step *at*; what it raises because of that is taken."""
    cut = Cut(work, at, moment)
    await WAYS[way](cut)
    return cut


# Whole programs.


class _Loop(asyncio.SelectorEventLoop):
    """A loop that counts its passes and calls *at_pass* once, at one of them."""

    def __init__(self, number: int, at_pass: Callable[[], None]) -> None:
        super().__init__()
        self.passes = 0
        self._number = number
        self._at_pass = at_pass

    def _run_once(self) -> None:
        self.passes += 1
        if self.passes == self._number:
            self._at_pass()
        super()._run_once()  # type: ignore[misc]  # the one place at which a pass can be counted


@define(eq=False)
class Program:
    """
    Runs *main* in a loop of its own and cuts it at one pass of the loop.

    *everything* says that all its tasks are cancelled at once, as the end of a program does; else the main task is,
    as Ctrl-C does and servers do with handlers. *left* is what the main task left running when it ended.
    """

    main: Callable[[], Coroutine[Any, Any, None]]
    everything: bool = False
    passes: int = 0
    seconds: float = 0.0
    left: list[str] = field(factory=list)
    _task: asyncio.Task[None] | None = None
    _cut_at: float = 0.0

    def run(self, at: int) -> None:
        """Run to the end, cut at pass *at* (0: not at all); raises what *main* raises, except its cancellation."""
        loop = _Loop(at, self._cut)
        try:
            self._task = loop.create_task(self.main())
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
            self.passes = loop.passes
            self.seconds = time.monotonic() - self._cut_at if self._cut_at else 0.0
            self.left = [repr(task) for task in asyncio.all_tasks(loop)]
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        if not self._task.cancelled():
            self._task.result()

    def _cut(self) -> None:
        assert self._task is not None
        if self._task.done():
            return
        self._cut_at = time.monotonic()
        for task in asyncio.all_tasks(self._task.get_loop()) if self.everything else {self._task}:
            task.cancel()


# What is left.


@contextmanager
def nothing_left(*folders: Path) -> Iterator[Log]:
    """What runs inside leaves no open file or socket, no thread of ours, no `.part` in *folders*, and logs no defect."""
    files = open_files()
    with warnings.catch_warnings(record=True) as told, logged() as log:
        warnings.simplefilter("always")
        yield log
        gc.collect()
    deadline = time.monotonic() + 10
    while left := _left(files):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)  # the ends of connections are the kernel's; nothing announces them
    parts = [path for folder in folders for path in parts_in(folder)]
    assert not parts, parts
    assert not log.errors, log.errors
    # Natively cancelled before its first step, a task of anyio's drops the coroutine that it was to run.
    warned = [text for text in (str(each.message) for each in told) if "was never awaited" not in text]
    assert not warned, warned


def parts_in(folder: Path) -> list[Path]:
    """Return what is half written in *folder*."""
    return list(folder.rglob("*.part"))


def _left(files: dict[str, str]) -> list[object]:
    gc.collect()
    threads = [
        each.name for each in threading.enumerate() if each.name in {"kling-journal", "kling-on-event"}
    ]
    return [*threads, *((name, target) for name, target in open_files().items() if name not in files)]
