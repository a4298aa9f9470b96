"""The jobs of a batch that only wait: rows at the poller, given up when they take too long."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from attrs import define, field, frozen

from kling_async.batch.entries import Entry
from kling_async.client.clock import Clock
from kling_async.client.link import Link
from kling_async.client.tracked import Tracked
from kling_async.errors import TaskTimeout

__all__ = ["Run", "Waiting"]


@frozen
class Run:
    """One job whose task runs on *link*."""

    entry: Entry
    link: Link
    row: Tracked


@define(eq=False)
class Waiting:
    """
    Holds the runs of a batch; *end* is called once for each, with the error if it was given up after *limit* seconds.

    Time in which nobody waited, because an earlier run was cut short, does not count.
    """

    _clock: Clock
    _limit: float | None
    _end: Callable[[Run, TaskTimeout | None], None]
    # By identity, since the parts of one job have one position; each with the moment at which the waiting began.
    _runs: dict[int, tuple[Run, float]] = field(factory=dict, init=False)
    _changed: anyio.Event = field(factory=anyio.Event, init=False)
    _closed: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Wait for the end of *run*, which may have come already."""
        self._runs[id(run)] = run, self._clock.now()
        if len(self._runs) == 1:
            self._changed.set()
        if run.row.over:
            self.finish(run, None)
        else:
            run.row.listen(_Ear(self, run))

    def longest(self, most: int) -> dict[str, float]:
        """Name the jobs that wait for longest, at most *most*, with their seconds."""
        now = self._clock.now()
        runs = (run for run, _ in zip(self._runs.values(), range(most), strict=False))
        return {run.entry.shown: now - run.row.since for run, _ in runs}

    def ages(self) -> list[float]:
        """Return for how many seconds each run has waited."""
        now = self._clock.now()
        return [now - run.row.since for run, _ in self._runs.values()]

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
            oldest, since = next(iter(self._runs.values()), (None, 0.0))
            if oldest is None:
                await self._changed.wait()
                continue
            left = since + self._limit - self._clock.now()
            if left <= 0:
                self.finish(oldest, _too_long(oldest, self._limit))
            else:
                with self._clock.limit(left):
                    await self._changed.wait()

    def finish(self, run: Run, error: TaskTimeout | None) -> None:
        """Take *run* out, because its task is over or was given up for *error*."""
        if self._runs.pop(id(run), None) is not None:
            self._end(run, error)


@frozen(eq=False)
class _Ear:
    """Listens to the row of one run; half of what a closure weighs, and there is one for each task in flight."""

    _waiting: Waiting
    _run: Run

    def __call__(self, row: Tracked) -> None:
        if row.over:
            self._waiting.finish(self._run, None)


def _too_long(run: Run, limit: float) -> TaskTimeout:
    name = run.row.ask_for
    return TaskTimeout(
        f"task {name} had not ended after {limit:g} s; it goes on and will be charged: attach with handle({name!r})",
        name,
    )
