"""Slots shared by the clients of one process, on any number of event loops and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from attrs import define, field

from kling_async.protocol.claims import Report, Ruling, Terms
from kling_async.protocol.leases import Book
from kling_async.slots.store import checked_limit

__all__ = ["MemorySlots"]


@define(eq=False)
class MemorySlots:
    """Shares *limit* slots of each lane between all clients that are given this object."""

    limit: int | None = field(default=None, converter=checked_limit)
    # Nothing is forgotten before the process ends, so there is nothing to wait for.
    terms: Terms = field(factory=lambda: Terms(settle=0.0), kw_only=True)
    _now: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)
    _books: dict[str, Book] = field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False, repr=False)

    @property
    def heal(self) -> float:
        """Seconds in which a store that forgot listens before it grants."""
        return self.terms.settle

    async def exchange(self, lane: str, report: Report) -> Ruling:
        """Take in *report* on *lane* and rule."""
        with self._lock:
            book = self._books.setdefault(lane, Book(terms=self.terms))
            return book.exchange(report, self._now())

    async def aclose(self) -> None:
        """Do nothing: what is known stays for the other clients."""
