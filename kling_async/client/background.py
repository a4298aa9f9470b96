"""
The tasks of one client that must outlive the call that began them.

A create under way when its caller is cancelled may be a paid task, so it is carried to its end here. This is the one
owner of asyncio tasks in the client: whatever is spawned is awaited or cancelled by `aclose()`, and nothing else is
ever left running (R26).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
from attrs import define, field

from kling_async.errors import ConfigError

__all__ = ["Background", "closed_client"]

T = TypeVar("T")

_log = logging.getLogger("kling_async")


@define(eq=False)
class Background:
    """Owns asyncio tasks until they end; `len()` tells how many there are."""

    _tasks: set[asyncio.Task[Any]] = field(factory=set, init=False, repr=False)
    # Those that may be a paid task, or the last events: they are waited for before anything is cancelled. With who is
    # to be told of their end.
    _precious: dict[asyncio.Task[Any], asyncio.Future[None] | None] = field(
        factory=dict, init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], *, precious: bool = False) -> None:
        """Run *work* beside the caller; an orderly close waits for *precious* work before it cancels anything."""
        task = self.begin(work)
        if precious:
            self._precious[task] = None

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run *work*, which returns its troubles as values, beside the caller, who awaits the task that is returned."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def carry(self, work: Coroutine[Any, Any, T], *, ended: Callable[[], None] | None = None) -> T:
        """
        Run *work* to its end and return what it returns; *ended* is called then.

        If the caller is cancelled it leaves at once and the work goes on without it; also an orderly close waits
        for such work before it cancels anything. Raises `ConfigError` if that came before the work had begun.
        """
        task = self.begin(work)
        over = self._precious[task] = asyncio.get_running_loop().create_future()
        if ended is not None:
            task.add_done_callback(lambda _: ended())
        await over
        if task.cancelled():
            # Only the end of the client cancels it, and who waits for it is not cancelled by that.
            raise closed_client()
        return task.result()

    async def aclose(self, grace: float, *, stubborn: float | None = None) -> None:
        """
        Wait up to *grace* seconds for precious tasks, then cancel and await all.

        With *stubborn*, tasks that do not obey within so many seconds are left behind with a line in the log: code that
        is not ours may catch its cancellation.
        """
        end = asyncio.get_running_loop().time() + grace
        try:
            # What ends may bring something new, such as the last event of a create.
            while self._precious and (remaining := end - asyncio.get_running_loop().time()) > 0:
                await asyncio.wait(tuple(self._precious), timeout=remaining)
        finally:
            # Also if the closing itself is cancelled: nothing may go on that nobody owns.
            with anyio.CancelScope(shield=True):
                await self._end(stubborn)

    async def _end(self, stubborn: float | None) -> None:
        while self._tasks:
            left = tuple(self._tasks)
            for task in left:
                task.cancel()
            _, pending = await asyncio.wait(left, timeout=stubborn)
            if pending:
                _log.error("%d tasks go on although they were cancelled", len(pending))
                break

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        over = self._precious.pop(task, None)
        if over is not None and not over.done():
            over.set_result(None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Work given to us returns its troubles as values; what arrives here is a defect and must be seen.
            _log.error("a background task of the client failed", exc_info=error)


def closed_client() -> ConfigError:
    """Return what whoever still waits at a closed client is told."""
    return ConfigError("this client is closed; tasks at the service go on: make a new client")
