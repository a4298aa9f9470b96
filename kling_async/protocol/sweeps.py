"""
A sweep: the list pages read in one turn, the rows expected on them, and whether another page pays.

Pages are read one after the other from the top, so that tasks created meanwhile repeat rows on the next page and hide none.
Rows that did not show up may have sunk to another page while the sweep was read, or stand deeper than
was guessed: while a further page is likely to show more of them than it costs, the sweep reads on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

from attrs import define

from kling_async.protocol.listing import DEEPEST_PAGE, Listing
from kling_async.protocol.watched import Place, Row

__all__ = ["Hidden", "Sweep", "choose"]

_MANY = 4  # rows worth another page: fewer are cheaper and surer to ask one by one
_VAIN_SHARE = 4  # one page in vain for so many missing rows is a fair price
_VAIN_LIMIT = 20
_READS = 2  # of one page in a sweep: what is missing from a list that forgets may stand there the next time
_MISSES = 2  # sweeps that may miss a row before it gets GETs
_TURNS = 10  # turns of GETs, about, after which a row is looked for in the list again, with one chance


@define(eq=False)
class Sweep:
    """What was asked and what is still wanted."""

    since: float
    size: int
    pages: set[int]  # asked and not answered
    asked: Counter[int]  # how often each page was
    wanted: Place  # rows not shown so far
    deepest: int
    targets: int
    shown: int = 0
    vain: int = 0  # pages in succession that showed none of the wanted
    full: bool = False  # the deepest page was a full one
    broken: bool = False  # a page was not answered

    def read(self, page: int, count: int, listing: Listing, now: float) -> int | None:
        """Note that *page* was read with *count* tasks on it; return a page to read next beyond those asked."""
        self.pages.discard(page)
        before, self.shown = self.shown, self.targets - len(self.wanted)
        self.vain = self.vain + 1 if self.shown == before else 0
        if page == self.deepest:
            self.full = count >= self.size
        if self.pages or self.broken:
            return None
        further = self._further(listing)
        if further is not None:
            self.deepest = max(self.deepest, further)
            self.since = now
            self.pages.add(further)
            self.asked[further] += 1
        return further

    def _further(self, listing: Listing) -> int | None:
        """Find the page on which most of the missing rows stand by now, if it is likely to save more GETs than it costs."""
        if self.vain * _VAIN_SHARE >= len(self.wanted) or self.vain > _VAIN_LIMIT * listing.trust:
            return None
        below = self.deepest + 1
        crowds: Counter[int] = Counter()
        for row in self.wanted.values():
            guess = int(listing.rank(row)) // self.size + 1
            # While nothing stood where it was expected, the list has sunk in a way unknown.
            crowds[below if self.shown == 0 or row.mark is None else guess] += 1
        page, crowd = max(crowds.items(), key=lambda item: item[1])
        if (
            crowd < _MANY
            or self.asked[page] >= _READS
            or page > DEEPEST_PAGE
            or (page > self.deepest and not self.full)
        ):
            return None
        return page


def choose(rows: Sequence[Row], listing: Listing, now: float) -> Sweep | None:
    """Start a sweep over the pages that show more of *rows* than they cost, None if single GETs are cheaper for all."""
    # An unknown place may be anywhere: only the largest page will do.
    size = listing.size_for(
        max((inf if row.mark is None else listing.rank(row) for row in rows), default=0.0)
    )
    at = [int(listing.rank(row)) // size + 1 for row in rows]
    crowds = Counter(at)
    pages = {page for page, crowd in crowds.items() if crowd * listing.trust > 1.0 and page <= DEEPEST_PAGE}
    if not pages:
        if any(crowd > 1 for crowd in crowds.values()):
            listing.forgive()
        return None
    wanted = _by_id(row for row, page in zip(rows, at, strict=True) if page in pages)
    return Sweep(now, size, pages, Counter(pages), wanted, max(pages), len(wanted))


def _by_id(rows: Iterable[Row]) -> Place:
    return {row.task_id: row for row in rows}


class Hidden:
    """The rows that sweeps should have shown and did not."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}  # misses, and on top of them the turns with GETs

    def __len__(self) -> int:
        return len(self._turns)

    def miss(self, row: Row) -> bool:
        """Count that a sweep did not show *row*; return whether it is to get a single GET."""
        turns = self._turns[row.task_id] = self._turns.get(row.task_id, 0) + 1
        if turns < _MISSES:
            return False
        row.mark = None  # wherever it stands, it is not where it was expected
        return True

    def forgive(self, task_id: str) -> None:
        """Forget the misses of a row that a page has shown."""
        self._turns.pop(task_id, None)

    def listed(self, due: Sequence[Row], gets: float) -> Sequence[Row]:
        """Leave out the rows that sweeps do not show, as many as *gets* can serve."""
        if not self._turns:
            return due
        listed = []
        for row in due:
            turns = self._turns.get(row.task_id, 0)
            if turns < _MISSES or gets < 1:
                listed.append(row)
                continue
            gets -= 1
            self._turns[row.task_id] = turns + 1 if turns < _TURNS else _MISSES - 1
        return listed
