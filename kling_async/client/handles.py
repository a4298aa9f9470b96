"""Handles: one task in the hands of whoever made it or found it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import anyio
from attrs import define, field

from kling_async.client.link import Link
from kling_async.client.queries import Queries
from kling_async.client.tracked import Tracked
from kling_async.errors import TaskTimeout
from kling_async.protocol.endpoints import seconds
from kling_async.protocol.pictures import Fitted
from kling_async.protocol.tasks import Task

# Loaded by the clients that keep a journal.
if TYPE_CHECKING:
    from kling_async.journal.ledger import Ledger

__all__ = ["DEFAULT_WAIT", "TaskHandle"]

# Seconds; a wait is bounded unless the caller says otherwise (R11).
DEFAULT_WAIT = 1800.0


@define(eq=False)
class TaskHandle:
    """
    A task that may still run. `await handle` waits for its end, as `wait()` does.

    *task_id* is known at once for a task just created; for one that was found again with an external id it is empty
    until it was asked for. Leaving a wait, by time limit or cancellation, changes nothing for the task: it goes on and
    is paid for, and any handle with its id can wait for it again. *fitted* is what was changed of its pictures to bring
    them within the rules, for a task just created.
    """

    task_id: str
    external_task_id: str
    _queries: Queries = field(repr=False)
    # The account that has the task, once known.
    _link: Link | None = field(default=None, repr=False)
    _row: Tracked | None = field(default=None, repr=False)
    # The page of an earlier run, to be closed with the task's end.
    _ledger: Ledger | None = field(default=None, repr=False)
    fitted: tuple[Fitted, ...] = field(default=(), repr=False)

    def __await__(self) -> Generator[Any, None, Task]:
        return self.wait().__await__()

    async def wait(self, timeout: float | None = DEFAULT_WAIT) -> Task:
        """
        Wait until the task has ended and return it with its pictures.

        Raises `TaskFailed` with the service's reason, `EmptyResult` for a success without pictures, `TaskTimeout`
        after *timeout* seconds (None waits for ever), and `TaskNotFound` if the service no longer knows the task.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        row = self._row
        if row is not None:
            await row.wait(limit)
        else:
            with anyio.move_on_after(limit):
                row = await self._tracked()
                await row.wait()
        if row is None or not row.over:
            name = self.task_id or self.external_task_id
            raise TaskTimeout(
                f"task {name} had not ended after {timeout:g} s; it goes on and will be charged: "
                f"attach again with handle({name!r})",
                name,
            )
        if row.error is not None:
            raise row.error
        assert row.task is not None
        return row.task.unwrap()

    async def refresh(self) -> Task:
        """Ask the service once and return the task as it is now, ended or not; raises as `retrieve()` does."""
        name = self.task_id or self.external_task_id
        if self._link is None:
            self._link, task = await self._queries.find(name)
        else:
            task = await self._queries.task(self._link, name)
        self.task_id = task.task_id
        return task

    async def events(self) -> AsyncIterator[Task]:
        """
        Yield the task each time the service reports another status, until it has ended, failure included.

        Raises `TaskNotFound` if the service no longer knows the task. There is no limit of time.
        """
        row = await self._tracked()
        changed = asyncio.Event()

        def hear(_: Tracked) -> None:
            changed.set()

        row.listen(hear)
        shown: str | None = None
        try:
            while True:
                changed.clear()
                if row.task is not None and row.task.status.value != shown:
                    shown = row.task.status.value
                    yield row.task
                if row.over:
                    break
                await changed.wait()
        finally:
            row.ignore(hear)
        if row.error is not None:
            raise row.error

    async def _tracked(self) -> Tracked:
        if self._row is None:
            if self._ledger is not None:
                from kling_async.client.pages import attach_page

                self._row = await attach_page(self._queries, self._ledger)
            else:
                self._row = await self._queries.attach(self.task_id or self.external_task_id)
            if self._row.task is not None:
                self.task_id = self._row.task.task_id
        return self._row
