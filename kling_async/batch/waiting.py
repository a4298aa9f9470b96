"""The jobs of a batch that only wait: rows at the poller, given up when they take too long."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import anyio
from attrs import define, field

from kling_async.batch.entries import Entry
from kling_async.client.clock import Clock
from kling_async.client.link import Link
from kling_async.client.tracked import Tracked
from kling_async.errors import TaskTimeout

__all__ = ["Run", "Waiting"]


@define(eq=False, weakref_slot=False)
class Run:
    """One job whose task runs on *link*; listens to its *row* itself, since there is one for each task in flight."""

    entry: Entry
    link: Link
    row: Tracked
    # When its waiting began, and where.
    since: float = field(default=0.0, init=False)
    waiting: Waiting | None = field(default=None, init=False, repr=False)

    def __call__(self, row: Tracked) -> None:
        """Hear of a change of the row."""
        if row.over and self.waiting is not None:
            self.waiting.finish(self, None)


@define(eq=False)
class Waiting:
    """
    Holds the runs of a batch; *end* is called once for each, with the error if it was given up after *limit* seconds.

    Time in which nobody waited, because an earlier run was cut short, does not count.
    """

    _clock: Clock
    _limit: float | None
    _end: Callable[[Run, TaskTimeout | None], None]
    # In the order in which their waiting began.
    _runs: dict[Run, None] = field(factory=dict, init=False)
    _changed: anyio.Event = field(factory=anyio.Event, init=False)
    _closed: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Wait for the end of *run*, which may have come already."""
        self._runs[run] = None
        run.since = self._clock.now()
        if len(self._runs) == 1:
            self._changed.set()
        if run.row.over:
            self.finish(run, None)
        else:
            run.waiting = self
            run.row.listen(run)
            run.entry.rest()

    def longest(self, most: int) -> dict[str, float]:
        """Name the jobs that wait for longest, at most *most*, with their seconds."""
        now = self._clock.now()
        return {run.entry.shown: now - run.row.since for run in islice(self._runs, most)}

    def ages(self) -> list[float]:
        """Return for how many seconds each run has waited; not for how long its task runs, if an earlier run began it."""
        now = self._clock.now()
        return [now - run.since for run in self._runs]

    def close(self) -> None:
        """Let `watch()` end: there will be no more runs."""
        self._closed = True
        self._changed.set()

    def leave(self) -> None:
        """Wait for nothing any more; whatever becomes of the tasks is not told."""
        self._runs.clear()
        self.close()

    async def watch(self) -> None:
        """Give up on runs past the limit; they are kept in the order in which they began."""
        while self._limit is not None and not self._closed:
            self._changed = anyio.Event()
            oldest = next(iter(self._runs), None)
            if oldest is None:
                await self._changed.wait()
                continue
            left = oldest.since + self._limit - self._clock.now()
            if left <= 0:
                self.finish(oldest, _too_long(oldest, self._limit))
            else:
                with self._clock.limit(left):
                    await self._changed.wait()

    def finish(self, run: Run, error: TaskTimeout | None) -> None:
        """Take *run* out, because its task is over or was given up for *error*."""
        if run in self._runs:
            del self._runs[run]
            self._end(run, error)


def _too_long(run: Run, limit: float) -> TaskTimeout:
    name = run.row.ask_for
    return TaskTimeout(
        f"task {name} had not ended after {limit:g} s; it goes on and will be charged: attach with handle({name!r})",
        name,
    )
