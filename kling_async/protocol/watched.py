"""
The rows of watched tasks and the place where each one waits; see `polling` for what the places mean.

Every change of place happens here, so that a row is never in two.
"""

from __future__ import annotations

from math import inf
from typing import TypeAlias

from attrs import define

from kling_async.protocol.wheel import Wheel

__all__ = ["Board", "Place", "Row"]


@define(eq=False, weakref_slot=False)
class Row:
    """One watched task; times are on the clock of the book."""

    task_id: str
    born: float
    fresh: bool  # watched before its first look was due, so that look tells how long it took
    mark: float | None = None  # its place in the list, see `listing`
    placed: bool = False  # a page has shown it, so that its mark is no guess
    due: float = -inf
    entry: int | None = None
    looked: float = -inf  # when it was last seen not to have ended
    asked: float = -inf  # when it last got a single GET
    place: Place | None = None  # None: on the wheel


Place: TypeAlias = dict[str, Row]


class Board:
    """All rows by task id, and the places where they wait."""

    __slots__ = ("hinted", "out", "queue", "ready", "rows", "wheel")

    def __init__(self, precision: float) -> None:
        self.rows: Place = {}
        self.ready: Place = {}
        self.queue: Place = {}
        self.hinted: Place = {}
        self.out: Place = {}
        self.wheel: Wheel[Row] = Wheel(precision)

    def __repr__(self) -> str:
        return f"<Board of {len(self.rows)} rows, {len(self.ready)} ready, {len(self.queue)} queued, {len(self.out)} out>"

    def schedule(self, row: Row, due: float) -> None:
        """Put *row* on the wheel until *due*."""
        if row.place is not None:
            row.place.pop(row.task_id, None)
            row.place = None
        self.wheel.put(row, due)

    def move(self, row: Row, place: Place) -> None:
        """Put *row* into *place*."""
        if row.place is None:
            self.wheel.drop(row)
        else:
            row.place.pop(row.task_id, None)
        row.place = place
        place[row.task_id] = row

    def remove(self, row: Row) -> None:
        """Take *row* off the board."""
        if row.place is not None:
            row.place.pop(row.task_id, None)
            row.place = None
        self.wheel.drop(row)
        del self.rows[row.task_id]

    def fire(self, now: float) -> None:
        """Make the rows ready that are due at *now*."""
        for row in self.wheel.fire(now):
            row.place = self.ready
            self.ready[row.task_id] = row
