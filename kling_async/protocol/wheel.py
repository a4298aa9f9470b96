"""
A timer wheel: rows that are due at some time, in buckets of a fixed width.

Adding and firing cost O(1) a row. A row has one live entry; putting it off moves nothing (the entry is moved when it
fires), putting it forward or taking it out leaves a dead entry behind, and dead entries are swept out before
they outnumber the living.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import ceil
from typing import Generic, Protocol, TypeVar

__all__ = ["Timed", "Wheel"]


class Timed(Protocol):
    """What a wheel needs of a row: *due* in seconds is the caller's, *entry* the wheel's own (first None)."""

    due: float
    entry: int | None


R = TypeVar("R", bound=Timed)


class Wheel(Generic[R]):
    """Rows by the time they are due; *width* is the precision in seconds, and nothing fires early."""

    __slots__ = ("_buckets", "_dead", "_live", "_ticks", "_width")

    def __init__(self, width: float) -> None:
        self._width = width
        self._buckets: dict[int, list[R]] = {}
        self._ticks: list[int] = []
        self._live = 0
        self._dead = 0

    def __len__(self) -> int:
        return self._live

    def __repr__(self) -> str:
        return f"<Wheel of {self._live} rows, {self._dead} dead entries>"

    def put(self, row: R, due: float) -> None:
        """Make *row* fire once at *due*, whenever it was due before."""
        row.due = due
        tick = ceil(due / self._width)
        if row.entry is None:
            self._live += 1
        elif row.entry <= tick:
            return
        else:
            self._dead += 1
        self._insert(row, tick)
        if self._dead > self._live + 64:
            self._compact()

    def drop(self, row: R) -> None:
        """Take *row* out; nothing happens if it is not in."""
        if row.entry is not None:
            row.entry = None
            self._live -= 1
            self._dead += 1
            if self._dead > self._live + 64:
                self._compact()

    def fire(self, now: float) -> list[R]:
        """Take out and return the rows that are due at *now*."""
        fired: list[R] = []
        while self._ticks and self._ticks[0] * self._width <= now:
            tick = heappop(self._ticks)
            for row in self._buckets.pop(tick):
                if row.entry != tick:
                    self._dead -= 1
                    continue
                later = ceil(row.due / self._width)
                if later > tick:
                    self._insert(row, later)
                else:
                    row.entry = None
                    self._live -= 1
                    fired.append(row)
        return fired

    def next_at(self) -> float | None:
        """Say when to fire next (there may be nothing due then), None if the wheel is empty."""
        return self._ticks[0] * self._width if self._live else None

    def _insert(self, row: R, tick: int) -> None:
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = []
            heappush(self._ticks, tick)
        row.entry = tick
        bucket.append(row)

    def _compact(self) -> None:
        kept: dict[int, dict[R, None]] = {}
        for tick, rows in self._buckets.items():
            for row in rows:
                if row.entry == tick:
                    kept.setdefault(tick, {})[row] = None  # a row dropped and put back may stand here twice
        self._buckets = {tick: list(rows) for tick, rows in kept.items()}
        self._ticks = list(self._buckets)
        heapify(self._ticks)
        self._dead = 0
