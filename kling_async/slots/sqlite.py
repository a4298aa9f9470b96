"""
Slots shared by the processes of one machine, in a file; no server is needed.

Every exchange is one transaction, so a process that is killed leaves the book as it was before or after. Time is the
machine's own monotonic clock, which all its processes share; it begins anew when the machine is started again, and
then the book keeps its distances.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
from attrs import define, field

from kling_async.errors import SlotStoreError
from kling_async.protocol.claims import Report, Ruling, Terms
from kling_async.protocol.leases import Book
from kling_async.slots.store import checked_limit

__all__ = ["SqliteSlots"]

# Seconds to wait for other processes that are writing.
_BUSY = 10.0
_TABLE = "CREATE TABLE IF NOT EXISTS lanes (name TEXT PRIMARY KEY, book TEXT NOT NULL) WITHOUT ROWID"


@define(eq=False)
class SqliteSlots:
    """Shares *limit* slots of each lane between all processes that name the same file, which must be on a local disk."""

    path: Path = field(converter=Path)
    limit: int | None = field(default=None, converter=checked_limit)
    terms: Terms = field(factory=Terms, kw_only=True)
    _now: Callable[[], float] = field(default=time.monotonic, kw_only=True, repr=False)
    _db: sqlite3.Connection | None = field(default=None, init=False, repr=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False, repr=False)

    @property
    def heal(self) -> float:
        """Seconds in which a store that forgot listens before it grants."""
        return self.terms.settle

    async def exchange(self, lane: str, report: Report) -> Ruling:
        """Take in *report* on *lane* and rule; raises `SlotStoreError` if the file cannot be used now."""
        async with self._lock:
            try:
                return await anyio.to_thread.run_sync(self._exchange, lane, report)
            except (sqlite3.Error, OSError, ValueError) as error:
                raise SlotStoreError(f"the slots in {self.path} cannot be used ({error})") from error

    def _exchange(self, lane: str, report: Report) -> Ruling:
        db = self._opened()
        db.execute("BEGIN IMMEDIATE")
        with db, closing(db.execute("SELECT book FROM lanes WHERE name = ?", (lane,))) as found:
            row = found.fetchone()
            book = Book.from_json(json.loads(row[0]), self.terms) if row else Book(terms=self.terms)
            # Not before: time goes on while others write.
            ruling = book.exchange(report, self._now())
            values = (lane, json.dumps(book.to_json()))
            db.execute("INSERT OR REPLACE INTO lanes VALUES (?, ?)", values)
        return ruling

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            # A power cut may take the last turns with it, but also every process that took part in them.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_TABLE)
            self._db = db
        return self._db

    async def aclose(self) -> None:
        """Close the file; the next exchange opens it again."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                db, self._db = self._db, None
                if db is not None:
                    await anyio.to_thread.run_sync(db.close)
