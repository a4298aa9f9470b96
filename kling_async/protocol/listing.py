"""
Where in the service's list a task is likely to stand, learned from the pages read.

The order of the list is not documented. The guess is newest first, so a task sinks by one rank with every newer
one. *Depth* counts the tasks that have entered at the top; a task's *mark* is the depth at which it entered, and its
rank is the depth now less its mark. Each page corrects the depth (tasks of other programs sink ours unseen, in a
list sorted otherwise nothing sinks) and the marks of the tasks it shows. *Trust* is the share of the tasks that
stood where they were looked for; the less it is, the more of them must be wanted from a page to be worth reading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

__all__ = ["DEEPEST_PAGE", "Listing"]

DEEPEST_PAGE = 1000  # the service's limit of pageNum
_LADDER = (30, 100)  # page sizes below the largest: small pages are quicker when they show all that is wanted
_SAMPLE = 15  # tasks of a page that take part in correcting the depth


class Listing:
    """The presumed order of one list, read in pages of at most *page_size*."""

    __slots__ = ("_at", "_depth", "_drift", "_error", "_page_size", "_settled", "_trust")

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._depth = 0.0
        self._drift = 0.0  # ranks a second by which the list sinks beyond what our own tasks explain
        self._at = 0.0
        self._error = 0.0  # sum of the corrections since the drift was settled
        self._settled: float | None = None
        self._trust = 1.0

    def __repr__(self) -> str:
        return f"<Listing: depth {self._depth:.0f}, trust {self._trust:.2f}>"

    @property
    def trust(self) -> float:
        """The share of tasks lately found where they were looked for."""
        return self._trust

    def enter(self) -> float:
        """Count a new task of ours and return its mark."""
        self._depth += 1.0
        return self._depth

    def advance(self, now: float) -> None:
        """Let the list sink as far as it usually does until *now*."""
        if now > self._at:
            self._depth += self._drift * (now - self._at)
            self._at = now

    def rank(self, mark: float | None) -> float:
        """Guess how many tasks stand above the one with this *mark*; an unknown one is looked for at the top."""
        return 0.0 if mark is None else max(0.0, self._depth - mark)

    def size_for(self, deepest: float) -> int:
        """Choose the page size for tasks down to the rank *deepest*."""
        if self._trust > 0.8:
            for size in _LADDER:
                if deepest * 1.25 + 8 <= size < self._page_size:
                    return size
        return self._page_size

    def learn(self, shown: Sequence[tuple[float | None, int]]) -> None:
        """Correct the depth by tasks that a page has *shown*, each by its old mark and its rank there."""
        errors = [rank - (self._depth - mark) for mark, rank in shown if mark is not None]
        if errors:
            step = median_low(errors[:: max(1, len(errors) // _SAMPLE)])
            self._depth += step
            self._error += step

    def settle(self, now: float) -> None:
        """Learn from the corrections of a whole sweep how fast the list sinks by itself."""
        if self._settled is not None and now > self._settled:
            self._drift += 0.3 * self._error / (now - self._settled)
        self._settled = now
        self._error = 0.0

    def mark(self, rank: int) -> float:
        """Return the mark of a task that stands at *rank* now."""
        return self._depth - rank

    def judge(self, wanted: int, found: int) -> None:
        """Learn that *found* of *wanted* tasks stood on the pages where they were looked for."""
        self._trust += 0.3 * (found / wanted - self._trust)

    def forgive(self) -> None:
        """Trust a little more, so that the list is tried again some day."""
        self._trust += 0.02 * (1.0 - self._trust)
