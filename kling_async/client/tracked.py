"""A task that this client looks after, from its create until the service says that it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from attrs import define, field

from kling_async.client.turnstile import Pass, Turnstile
from kling_async.errors import KlingError
from kling_async.protocol.tasks import Task

__all__ = ["Tracked"]

Listener: TypeAlias = "Callable[[Tracked], None]"


@define(eq=False, kw_only=True)
class Tracked:
    """
    A row, not an asyncio task: what only waits must cost next to nothing.

    *ask_for* is the id the service is asked for (a task id, or the external id as long as no other is known). The
    slots of *ticket* are held until `finish()` or `lose()`. *expected* is how many pictures a whole result has.
    """

    path: str
    ask_for: str
    external_task_id: str
    key: str = ""
    expected: int = 1
    since: float
    ticket: Pass | None = field(default=None, repr=False)
    turnstile: Turnstile | None = field(default=None, repr=False)
    # What was last seen, and how it ended: a task, or an error after which nobody knows.
    task: Task | None = field(default=None, init=False, repr=False)
    error: KlingError | None = field(default=None, init=False, repr=False)
    # The status that was last told in an event.
    shown: str = field(default="submitted", init=False, repr=False)
    # Mostly one, and there is a row for each task in flight.
    _listeners: tuple[Listener, ...] = field(default=(), init=False, repr=False)

    @property
    def over(self) -> bool:
        """Whether nothing more will be learned about the task."""
        return self.error is not None or (self.task is not None and self.task.ended)

    def listen(self, listener: Listener) -> None:
        """Have *listener* called at every change and once at the end, or until `ignore()`."""
        self._listeners += (listener,)

    def ignore(self, listener: Listener) -> None:
        """Call *listener* no more; safe to call again."""
        self._listeners = tuple(other for other in self._listeners if other is not listener)

    async def wait(self, limit: float | None = None) -> None:
        """
        Wait until the task is `over`, *limit* seconds at most; a cancelled waiter leaves no trace and the task goes on.

        A future and a timer, where a cancel scope would be eight objects more for the collector, a thousand times over.
        """
        if self.over:
            return
        loop = asyncio.get_running_loop()
        end = loop.create_future()

        def hear(row: Tracked | None) -> None:
            if (row is None or row.over) and not end.done():
                end.set_result(None)

        timer = None if limit is None else loop.call_later(limit, hear, None)
        self.listen(hear)
        try:
            await end
        finally:
            self.ignore(hear)
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Give back the slots; safe to call again."""
        if self.ticket is not None and self.turnstile is not None:
            self.turnstile.release(self.ticket)
        self.ticket = None

    def update(self, task: Task) -> None:
        """Take what the service said; a task that has ended stays so, and its status never goes back (R10)."""
        if self.over or (self.task is not None and task.status.rank < self.task.status.rank):
            return
        self.task = task
        if self.ticket is not None and self.turnstile is not None:
            self.turnstile.found(self.ticket)
        self._tell()

    def lose(self, error: KlingError) -> None:
        """Give up looking after the task because of *error*."""
        if not self.over:
            self.error = error
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self)
        if self.over:
            self._listeners = ()
