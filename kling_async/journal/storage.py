"""
The journal's file: SQLite in WAL with `synchronous=FULL`, so that what was committed survives a power cut.

Everything here blocks and belongs to the journal's one thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from attrs import define, field

from kling_async._disk import sync_folder
from kling_async.errors import JournalError
from kling_async.protocol.lifecycle import JobRecord, JobState

__all__ = ["SCHEMA_VERSION", "Storage", "trouble"]

# "KLNG", so that another program's database is told from a journal.
_APPLICATION_ID = 0x4B4C4E47
_BUSY_MILLISECONDS = 5_000
_HEADER = b"SQLite format 3\0"

# What leads from each version of the schema to the next; a new file takes them all.
_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE jobs (
        key TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        external_task_id TEXT NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        slots INTEGER NOT NULL,
        units INTEGER NOT NULL,
        task_id TEXT NOT NULL,
        submitted_at REAL,
        ended_at REAL,
        result TEXT,
        error TEXT
    ) WITHOUT ROWID;
    CREATE INDEX jobs_live ON jobs (state) WHERE state IN ('submitting', 'unknown', 'submitted', 'succeeded');
    """,
    """
    ALTER TABLE jobs ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;
    """,
    # Rows in the order in which they came, since a commit writes whole pages: keys are often hashes, and rows kept in
    # their order lie on a page each.
    """
    ALTER TABLE jobs RENAME TO jobs_by_key;
    DROP INDEX jobs_live;
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        external_task_id TEXT NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        slots INTEGER NOT NULL,
        units INTEGER NOT NULL,
        task_id TEXT NOT NULL,
        submitted_at REAL,
        ended_at REAL,
        result TEXT,
        error TEXT,
        spent INTEGER NOT NULL DEFAULT 0
    );
    INSERT INTO jobs (
        key, state, fingerprint, attempt, external_task_id, account, model, slots, units, task_id, submitted_at, ended_at,
        result, error, spent
    ) SELECT * FROM jobs_by_key ORDER BY submitted_at;
    DROP TABLE jobs_by_key;
    CREATE INDEX jobs_live ON jobs (number) WHERE state IN ('submitting', 'unknown', 'submitted', 'succeeded');
    """,
    """
    ALTER TABLE jobs ADD COLUMN row INTEGER NOT NULL DEFAULT 0;
    """,
)
SCHEMA_VERSION = len(_MIGRATIONS)

_COLUMNS = (
    "key", "state", "fingerprint", "attempt", "external_task_id", "account", "model", "slots", "units", "task_id",
    "submitted_at", "ended_at", "result", "error", "spent", "row",
)  # fmt: skip
# So many rows go into one statement at most (SQLite takes 32,766 values). Between statements the thread gives the
# interpreter away, and while the loop is busy gets it back only after 5 ms.
_TOGETHER = 1024


def _shares(rows: int) -> Iterator[int]:
    """Divide *rows* into powers of two, so that few different statements are ever prepared."""
    while rows:
        share = min(_TOGETHER, 1 << (rows.bit_length() - 1))
        yield share
        rows -= share


@cache
def _upsert(rows: int) -> str:
    """Return the statement that writes so many *rows*."""
    values = ", ".join([f"({', '.join('?' * len(_COLUMNS))})"] * rows)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    return (
        f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES {values} ON CONFLICT (key) DO UPDATE SET {changes}"  # noqa: S608  # names of our own
    )


_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608  # names of our own


@define(eq=False)
class Storage:
    """An open journal file."""

    path: Path
    _db: sqlite3.Connection = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Storage:
        """
        Open the journal at *path*, making it if it is not there.

        Raises `JournalError` for a damaged file, which is left as it is, for one that is no journal, and for one that
        a newer version of this package wrote.
        """
        try:
            if path.exists() and path.stat().st_size:
                _examine(path)
            else:
                _make(path)
            db = _connect(path)
            try:
                _prepare(db, path)
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise trouble(path, error) from error
        return cls(path, db)

    @classmethod
    def read_only(cls, path: Path) -> Storage:
        """Open the journal at *path* only to look; its owner may be at work. Raises as `open()` does."""
        try:
            version = _examine(path)
            db = sqlite3.connect(_to_read(path), uri=True, timeout=_BUSY_MILLISECONDS / 1000)
            return cls(path, db if version == SCHEMA_VERSION else _migrated_copy(db))
        except (sqlite3.Error, OSError) as error:
            raise trouble(path, error) from error

    def again(self) -> Storage:
        """Open the same file once more, which need not be examined again."""
        try:
            db = _connect(self.path)
            db.execute("PRAGMA cache_size = -16000")
            return Storage(self.path, db)
        except sqlite3.Error as error:
            raise trouble(self.path, error) from error

    def write(self, records: Iterable[JobRecord]) -> None:
        """Write *records* in one durable transaction; raises `JournalError`, and then nothing was written."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                rows = list(map(_row, records))
                values = chain.from_iterable(rows)
                for share in _shares(len(rows)):
                    self._db.execute(_upsert(share), tuple(islice(values, share * len(_COLUMNS))))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise trouble(self.path, error) from error

    def get(self, key: str) -> JobRecord | None:
        """Return the record of *key*."""
        row = self._db.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
        return _record(row) if row else None

    def done(self, key: str) -> str | None:
        """Return the fingerprint of *key* if it is done; far cheaper than its record."""
        row = self._db.execute(
            "SELECT fingerprint FROM jobs WHERE key = ? AND state = 'done'", (key,)
        ).fetchone()
        return row[0] if row else None

    def rows_done(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the rows of those of *keys* that are done, as hashes."""
        marks = ", ".join("?" * len(keys))
        query = f"SELECT key, row FROM jobs WHERE state = 'done' AND row != 0 AND key IN ({marks})"  # noqa: S608  # marks
        return dict(self._db.execute(query, keys).fetchall())

    def live(self) -> list[JobRecord]:
        """Return the jobs that have a task, or may have one, whose end was not recorded."""
        query = f"{_SELECT} WHERE state IN ('submitting', 'unknown', 'submitted', 'succeeded')"
        return [_record(row) for row in self._db.execute(query)]

    def all(self) -> Iterator[JobRecord]:
        """Yield every job, a few at a time."""
        with closing(self._db.execute(_SELECT)) as cursor:
            while rows := cursor.fetchmany(1000):
                yield from map(_record, rows)

    def page(self, after: str, count: int) -> list[JobRecord]:
        """Return the next *count* jobs whose keys come after *after*, in the order of their keys."""
        rows = self._db.execute(f"{_SELECT} WHERE key > ? ORDER BY key LIMIT ?", (after, count))
        return [_record(row) for row in rows]

    def totals(self) -> dict[str, int]:
        """Count the jobs by state."""
        return dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())

    def committed_units(self) -> int:
        """Add up what is committed for all jobs, earlier attempts included."""
        (units,) = self._db.execute("SELECT coalesce(sum(units + spent), 0) FROM jobs").fetchone()
        return int(units)

    def meta(self) -> dict[str, str]:
        """Return what is written about the run as a whole."""
        return dict(self._db.execute("SELECT name, value FROM meta").fetchall())

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Write down something about the run as a whole."""
        try:
            with self._db:
                self._db.executemany(
                    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    values.items(),
                )
        except sqlite3.Error as error:
            raise trouble(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def trouble(path: Path, error: Exception) -> JournalError:
    """Say what happened to the journal at *path* and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return JournalError(
            f"the disk of the journal {path} is full; nothing more is submitted: make room and run again"
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return JournalError(f"the journal {path} is locked by another program; close it and run again")
    reason = getattr(error, "strerror", None) or str(error)
    return JournalError(f"the journal {path} cannot be used ({reason}); check the folder and the disk")


def damaged(path: Path, found: str) -> JournalError:
    """Say that the journal at *path* is not whole."""
    return JournalError(
        f"the journal {path} is damaged ({found}); it was left as it is: "
        "'kling-async recover' builds a new one and submits nothing"
    )


def _to_read(path: Path) -> str:
    # Read-only, so that nothing is repaired, checkpointed or truncated on the way. Without a log nobody is at work, and
    # then not even the files are made that readers and writers would share.
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{alone}"


def _examine(path: Path) -> int:
    """Look at a file without changing a byte of it; its schema's version. Raises `JournalError` unless it is a sound journal."""
    with path.open("rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            raise damaged(path, "it is no SQLite file")
    with closing(sqlite3.connect(_to_read(path), uri=True, timeout=_BUSY_MILLISECONDS / 1000)) as db:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application not in {0, _APPLICATION_ID} or (application == 0 and _has_tables(db)):
            raise JournalError(f"{path} is a database of another program; choose another journal")
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} was written by a newer version of kling-async (schema {version}, this knows "
                f"{SCHEMA_VERSION}); update kling-async"
            )
        verdicts = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
        if verdicts != ["ok"]:
            raise damaged(path, "; ".join(map(str, verdicts))[:200])
        return int(version)


def _migrated_copy(db: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy of an older journal in memory, of today's schema: who only looks must not change the file."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(db):
        db.backup(copy)
    _migrate(copy)
    return copy


def _make(path: Path) -> None:
    """
    Make a new journal, whole or not at all: it is built beside *path* and takes its name when it is on the disk.

    Until its first change of mode a new SQLite file is not safe from being killed: it would be left with a rollback
    that can only be undone by writing to it, and nothing is written to a file that was not examined.
    """
    new = path.with_name(f"{path.name}.new")
    # What is left of a journal that is gone would be taken for a part of the new one.
    for file in (new, path):
        for suffix in ("", "-journal", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
    db = _connect(new)
    try:
        _prepare(db, path)
    finally:
        db.close()
    new.replace(path)
    sync_folder(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    # Statements are committed one by one, unless a transaction is begun by name.
    return sqlite3.connect(
        path, timeout=_BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False
    )


def _has_tables(db: sqlite3.Connection) -> bool:
    (count,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(count)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(f"the journal {path} lies on a file system without WAL; put it on a local disk")
    db.execute("PRAGMA synchronous = FULL")
    # Pages that change often are copied into the file once in 16 MB of log instead of once in 4.
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    # More does not help even a journal of 100,000 rows, and each batch has one.
    db.execute("PRAGMA cache_size = -4000")
    _migrate(db)


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(_MIGRATIONS[version:], version + 1):
        db.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )


def _row(record: JobRecord) -> tuple[Any, ...]:
    return (
        record.key, record.state.value, record.fingerprint, record.attempt, record.external_task_id, record.account,
        record.model, record.slots, record.units, record.task_id, record.submitted_at, record.ended_at,
        _text(record.result), _text(record.error), record.spent, record.row,
    )  # fmt: skip


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(dict(value), ensure_ascii=False)


def _record(row: tuple[Any, ...]) -> JobRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["state"] = JobState(values["state"])
    for name in ("result", "error"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return JobRecord(**values, stored=True)
