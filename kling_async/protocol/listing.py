"""
Where in the service's list a task is likely to stand, learned from the pages read.

The order of the list is not documented. The guess is newest first: a task enters at the top and sinks by one rank with
every newer one. *Depth* says how far the list has sunk since the beginning, and a row's *mark* is the depth at which
it stood at the top, so its rank is the depth now less its mark. Pages correct the guess:

- rows seen before tell how far the list has really sunk: more with the tasks of other programs, which becomes a
  *drift* in time; not at all if new tasks enter elsewhere, which makes *sinking* fall from 1 to 0;
- rows seen for the first time tell the *entry*, the rank at which new ones enter: 0 at the top; a list that is
  sorted oldest first grows at its end, by one for each task of ours.

*Trust* is the share of the rows that stood where they were looked for. The less it is, the more rows must be expected on
a page to be worth reading it; at no trust at all every task is asked by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from statistics import median_low

from kling_async.protocol.watched import Row

__all__ = ["DEEPEST_PAGE", "Listing"]

DEEPEST_PAGE = 1000  # the service's limit of pageNum
_LADDER = (30, 100)  # page sizes below the largest: small pages are quicker when they show all that is wanted
_SAMPLE = 15  # rows of a page that take part in a correction
_FEW = 4  # creates that tell nothing about the sinking


class Listing:
    """The presumed order of one list, read in pages of at most *page_size*."""

    __slots__ = (
        "_at",
        "_creates",
        "_depth",
        "_drift",
        "_entry",
        "_error",
        "_growth",
        "_page_size",
        "_settled",
        "_sinking",
        "_trust",
    )

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._depth = 0.0
        self._drift = 0.0  # ranks a second by which the list sinks beyond what our own tasks explain
        self._sinking = 1.0  # ranks by which each of our creates makes the list sink
        self._entry = 0.0
        self._growth = 0.0  # by how much the entry has moved with our creates
        self._at = 0.0
        self._error = 0.0  # sum of the corrections of the depth since they were settled
        self._creates = 0  # since then
        self._settled: float | None = None
        self._trust = 1.0

    def __repr__(self) -> str:
        return f"<Listing: depth {self._depth:.0f}, entry {self._entry + self._growth:.0f}, trust {self._trust:.2f}>"

    @property
    def trust(self) -> float:
        """The share of rows lately found where they were looked for."""
        return self._trust

    def enter(self, row: Row) -> None:
        """Mark the row of a task that was created just now."""
        self._creates += 1
        self._depth += self._sinking
        self._growth += 1.0 - self._sinking
        row.mark = self._depth - self._growth

    def advance(self, now: float) -> None:
        """Let the list sink as far as it usually does until *now*."""
        if now > self._at:
            self._depth += self._drift * (now - self._at)
            self._at = now

    def rank(self, row: Row) -> float:
        """Guess how many tasks stand above *row*; one of which nothing is known is looked for from the top."""
        if row.mark is None:
            return 0.0
        return max(0.0, self._depth - row.mark + (0.0 if row.placed else self._entry))

    def size_for(self, deepest: float) -> int:
        """Choose the page size for tasks down to the rank *deepest*."""
        if self._trust > 0.8:
            for size in _LADDER:
                if deepest * 1.25 + 8 <= size < self._page_size:
                    return size
        return self._page_size

    def learn(self, shown: Collection[tuple[Row, int]]) -> None:
        """Correct the guess by the rows that a page has *shown*, each with its rank there, and mark them anew."""
        step = _middle(
            [rank - (self._depth - row.mark) for row, rank in shown if row.mark is not None and row.placed]
        )
        self._depth += step
        self._error += step
        new = [
            rank - (self._depth - row.mark) for row, rank in shown if row.mark is not None and not row.placed
        ]
        self._entry = _middle(new) if new else self._entry
        for row, rank in shown:
            row.mark = self._depth - rank
            row.placed = True

    def settle(self, now: float) -> None:
        """Learn from the corrections of a whole sweep how the list sinks."""
        if self._creates >= _FEW:
            before = self._sinking
            self._sinking = min(1.0, max(0.0, before + 0.5 * self._error / self._creates))
            self._error -= (self._sinking - before) * self._creates
        if self._settled is not None and now > self._settled:
            self._drift += 0.3 * self._error / (now - self._settled)
        self._settled = now
        self._error = 0.0
        self._creates = 0

    def judge(self, wanted: int, found: int) -> None:
        """Learn that *found* of *wanted* rows stood on the pages where they were looked for."""
        self._trust += 0.3 * (found / wanted - self._trust)

    def forgive(self) -> None:
        """Trust a little more, so that the list is tried again some day."""
        self._trust += 0.02 * (1.0 - self._trust)


def _middle(errors: list[float]) -> float:
    return median_low(errors[:: max(1, len(errors) // _SAMPLE)]) if errors else 0.0
