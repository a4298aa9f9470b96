"""
What a batch leaves behind: pictures on a rack, one line for each finished job in `results.jsonl`.

The lines and the name of the run lie in a folder of this machine; the rack is in the same folder, or in an object store.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread
from attrs import define, field

from kling_async._disk import make_folder, sync_folder, write_whole
from kling_async.batch.entries import Entry
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
from kling_async.batch.racks import RUN, FolderRack, Rack
from kling_async.batch.store_racks import StoreRack
from kling_async.errors import ApiError, ConfigError, DownloadError, KlingError, MalformedReply
from kling_async.journal.journal import Journal
from kling_async.journal.locks import OwnerLock
from kling_async.journal.storage import Storage
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import FINISHED, JobRecord
from kling_async.protocol.naming import TEMPLATE, file_stem
from kling_async.protocol.parts import is_part
from kling_async.protocol.service import Service
from kling_async.protocol.tasks import Task

__all__ = ["RESULTS", "Folder", "describe_error", "result_row"]

RESULTS = "results.jsonl"
_AS_WRITTEN = "as written"
_LOCK = ".lock"


@define(eq=False)
class Folder:
    """Writes what a batch brings into the folder at *path*, and its pictures onto *rack*, named by *template*."""

    path: Path
    rack: Rack
    template: str = TEMPLATE
    # The run that the folder belongs to, whether it knows pictures by where they lie, as runs of an earlier version did,
    # and whether the folder has results of an earlier run.
    run_name: str = field(default="", init=False)
    placed: bool = field(default=False, init=False)
    has_history: bool = field(default=False, init=False)
    # Whose results these are; None for a new folder and for those of earlier versions.
    service: Service | None = field(default=None, init=False)
    # The journal has a lock of its own, since it can lie elsewhere and a folder can be given with another one.
    _lock: OwnerLock | None = field(default=None, init=False, repr=False)
    _lines: IO[str] | None = field(default=None, init=False, repr=False)
    # What the results have, as hashes; read when it is first needed, which is seldom.
    _present: set[int] | None = field(default=None, init=False, repr=False)
    # Held by whatever thread is at work here, which may be one that nobody waits for any more.
    _writing: threading.Lock = field(factory=threading.Lock, init=False, repr=False)
    _closed: bool = field(default=False, init=False)

    @classmethod
    def at(cls, options: BatchOptions) -> Folder | None:
        """Take what a caller said of *out*; None for a batch that keeps nothing."""
        if options.home is None:
            return None
        rack = StoreRack.at(options.out) if isinstance(options.out, str) else FolderRack(options.home)
        return cls(options.home, rack, options.name)

    def stem(self, entry: Entry, index: int) -> str:
        """Name picture *index* of *entry*, without extension."""
        return file_stem(self.template, entry.key, index, twin=entry.twin, longest=self.rack.longest)

    async def open(self, journal: Path | None = None) -> None:
        """
        Make the folder, take hold of it until `close()` and try to write into it, before anything is spent.

        Raises `JournalError` if another run has hold of it, and `ConfigError` naming the folder and the reason, also
        if the name of its run cannot be read and there is no *journal* either that knows it.
        """
        try:
            await self._in_thread(self._open, journal)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        reason = error.strerror or type(error).__name__
        return ConfigError(
            f"out: expected a folder that can be written to, found {self.path} ({reason}); choose another"
        )

    def _open(self, journal: Path | None) -> None:
        make_folder(self.path)
        lock = OwnerLock(self.path / _LOCK, f"the folder {self.path}")
        lock.take()
        self._lock = lock
        self.has_history = (self.path / RESULTS).exists()
        with tempfile.TemporaryFile(dir=self.path) as trial:
            trial.write(b"trial")
        self.rack.prepare()
        file, known = self.path / RUN, journal is not None and journal.exists()
        self.run_name, self.placed, self.service = _read_name(file, known=known)
        if self.run_name:
            self._claim(self.run_name)
        elif not known:
            new = secrets.token_hex(8)
            # The pictures may be those of a run whose folder is lost.
            self.run_name = self.rack.claim(new)
            self.has_history = self.has_history or self.run_name != new
            self._write_name()

    def _claim(self, run: str) -> None:
        owner = self.rack.claim(run)
        if owner != run:
            raise ConfigError(
                f"out: expected the pictures of run {run}, found those of run {owner}; choose another place for one of them"
            )

    def _name(self, run: str) -> None:
        self._claim(run)
        self._write_name()

    def _write_name(self) -> None:
        # On the disk before anything is paid for: without it a lost journal's tasks could not be found again.
        run = {"run": self.run_name} | ({} if self.placed else {"pictures": _AS_WRITTEN})
        run |= self.service.as_json() if self.service else {}
        write_whole(self.path / RUN, (json.dumps(run) + "\n").encode())

    async def sign(self, service: Service) -> None:
        """Write down whose results these are; raises `ConfigError` if that cannot be done."""
        self.service = service
        try:
            await self._in_thread(self._write_name)
        except OSError as error:
            raise self._unwritable(error) from error

    async def open_journal(self, path: Path, *, instead_of: Callable[[Path], None] | None = None) -> Journal:
        """Open the journal at *path* for the folder's run, as `Journal.open()` does."""
        return await Journal.open(path, run=self.run_name, placed=self.placed, instead_of=instead_of)

    async def mend(self, journal: Journal) -> None:
        """
        Put the folder in order after a run that was cut short: half-written pictures go, lines that lack come.

        Only for who holds *journal*, since another run's pictures look just like half-written ones. The results begin
        only now, so where there are some there was a journal.
        """
        if not self.run_name:
            self.run_name = journal.run
            self.placed = journal.pictures is None
            await self._in_thread(self._name, journal.run)
        await self._in_thread(self._begin, journal.clean)
        if not journal.clean:
            ended = await journal.ask(_ended)
            if ended:
                await self.write(ended, once=True)
        # Until all of this run is written down.
        journal.clean = False

    def _begin(self, clean: bool) -> None:  # noqa: FBT001  # called through a thread, which takes no names
        results = self.path / RESULTS
        if not clean:
            self.rack.sweep()
            if results.exists():
                _cut_last_line(results)
        self._lines = results.open("a", encoding="utf-8")
        sync_folder(self.path)

    async def set_aside(self, record: JobRecord) -> None:
        """Move the pictures that *record* names out of the way of a new attempt, to `earlier/` beside them."""
        row = record.result or {}
        for name in (*row.get("files", ()), *row.get("watermarked", ())):
            await self._in_thread(self.rack.set_aside, str(name), record.task_id)

    async def make_way(self, entry: Entry) -> DownloadError | None:
        """
        See that nothing is where the pictures of *entry* will be, before it is paid for; else say what is.

        Pictures of an attempt before, which failed half-way, are moved to `earlier/`.
        """
        assert entry.job is not None, "a row that is no job has no pictures"
        if self.rack.clear and not entry.attempts:
            return None
        return await anyio.to_thread.run_sync(self._make_way, entry, entry.job)

    def _make_way(self, entry: Entry, job: MultiImage) -> DownloadError | None:
        for index in range(job.n):
            stem = self.stem(entry, index)
            for watermarked in (False, True) if job.watermark else (False,):
                name = self.rack.in_the_way(stem, watermarked=watermarked)
                if name is not None and entry.attempts:
                    self.rack.set_aside(name, f"attempt-{entry.attempts}")
                elif name is not None:
                    return DownloadError(
                        f"expected nothing at {name}, where a picture of {entry.key!r} is to be saved, found something; "
                        "nothing was sent: move it away, or give the job another key, and run again",
                        name,
                    )
        return None

    async def write(self, rows: Sequence[Mapping[str, Any]], *, once: bool = False) -> None:
        """Append the lines of *rows*, with *once* only those not there yet; the operating system has them on return."""
        await self._in_thread(self._write, rows, once)

    def _write(self, rows: Sequence[Mapping[str, Any]], once: bool) -> None:  # noqa: FBT001  # called through a thread, which takes no names
        assert self._lines is not None, "a folder is opened before it is written to"
        if once:
            if self._present is None:
                self._present = _lines_of(self.path / RESULTS)
            present = self._present
            rows = [row for row in rows if _identity(row) not in present]
        if self._present is not None:
            self._present.update(map(_identity, rows))
        texts = (json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in rows)
        self._lines.write("".join(f"{text}\n" for text in texts))
        self._lines.flush()

    async def sync(self) -> None:
        """Have all lines survive a power cut."""
        assert self._lines is not None, "a folder is opened before it is written to"
        await self._in_thread(os.fsync, self._lines.fileno())

    async def _in_thread(self, work: Callable[..., None], *args: Any) -> None:
        """Do *work* in a thread; who is cancelled meanwhile leaves when it is over, and then nothing more is done here."""
        try:
            await anyio.to_thread.run_sync(self._do, work, *args)
        except anyio.get_cancelled_exc_class():
            self._closed = True
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.close)
            raise

    def _do(self, work: Callable[..., None], *args: Any) -> None:
        with self._writing:
            if not self._closed:
                work(*args)

    def close(self) -> None:
        """Close what is open, once what is being written is whole, and let go of the folder; safe to call again."""
        with self._writing:
            self._closed = True
            if self._lines is not None:
                self._lines.close()
                self._lines = None
            if self._lock is not None:
                self._lock.release()


def _read_name(file: Path, *, known: bool) -> tuple[str, bool, Service | None]:
    """
    Return the name of the folder's run, whether it knows pictures by where they lie, and whose results they are.

    The name, which outlives a lost journal, is empty for a new folder, or if it is *known* anyway.
    """
    try:
        run = json.loads(file.read_bytes())
        return str(run["run"]), run.get("pictures") != _AS_WRITTEN, Service.from_json(run)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        if known or isinstance(error, FileNotFoundError):
            return "", False, None
        raise ConfigError(
            f"out: expected the name of a run in {file}, found something else; restore or remove it"
        ) from error


def _ended(storage: Storage) -> list[Mapping[str, Any]]:
    finished = (record for record in storage.all() if record.state in FINISHED)
    return [record.result for record in finished if record.result and not is_part(record.key)]


def _lines_of(results: Path) -> set[int]:
    with results.open(encoding="utf-8") as file:
        return {_identity(row) for row in map(_parsed, file)}


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    return row if isinstance(row, dict) else {}  # somebody edited it; the journal knows better


def _identity(row: Mapping[str, Any]) -> int:
    """Tell one end of a job from another: a job that is tried again ends more than once."""
    error = row.get("error")
    reason = str(error.get("message")) if isinstance(error, dict) and not row.get("task_id") else ""
    return hash((str(row.get("key")), str(row.get("status")), str(row.get("task_id")), reason))


def _cut_last_line(file: Path) -> None:
    """Take off what a crash left of a line that was being written."""
    with file.open("rb+") as handle:
        end = handle.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            handle.seek(start)
            last = handle.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        handle.truncate(end)


def result_row(outcome: Outcome, root: Path | None, finished_at: datetime) -> dict[str, Any]:
    """Return *outcome* as it stands in `results.jsonl`; files are relative to *root*."""
    task = None if isinstance(outcome, Skipped) else outcome.task
    fitted = () if isinstance(outcome, Skipped) else outcome.fitted
    return {
        "key": outcome.key,
        "status": _STATUS[type(outcome)],
        "task_id": task.task_id if task else None,
        "external_task_id": None if isinstance(outcome, Skipped) else outcome.external_task_id or None,
        "account": None if isinstance(outcome, Skipped) else outcome.account or None,
        "units": _units(task),
        **_pictures(outcome, root),
        "urls": [image.url for image in task.images] if task else [],
        "error": _error(outcome),
        "attempts": 0 if isinstance(outcome, Skipped) else outcome.attempts,
        "created_at": _moment(task.created_at) if task else None,
        "finished_at": _moment(finished_at),
        # Only where there is something to tell.
        **({"fitted": [each.as_json() for each in fitted]} if fitted else {}),
    }


_STATUS = {Succeeded: "succeeded", Failed: "failed", Skipped: "skipped"}


def _pictures(outcome: Outcome, root: Path | None) -> dict[str, Any]:
    """Return what is said of saved pictures; those on this machine are named relative to *root*."""
    if not isinstance(outcome, Succeeded):
        return {"files": [], "watermarked": [], "sha256": {}, "warnings": []}
    return {
        "files": [_named(file, root) for file in outcome.files],
        "watermarked": [_named(file, root) for file in outcome.watermarked],
        "sha256": {_named(file, root): digest for file, digest in outcome.sha256.items()},
        "warnings": list(outcome.warnings),
    }


def _named(file: Path | str, root: Path | None) -> str:
    if isinstance(file, str) or root is None:
        return str(file)
    return file.relative_to(root).as_posix()


def _units(task: Task | None) -> float | None:
    return None if task is None or task.units is None else float(task.units)


def _error(outcome: Outcome) -> dict[str, Any] | None:
    if isinstance(outcome, Skipped):
        return {"type": "Skipped", "code": None, "message": outcome.reason, "request_id": None}
    if isinstance(outcome, Succeeded):
        return None
    return describe_error(outcome.error)


def describe_error(error: KlingError) -> dict[str, Any]:
    """Return *error* as an object for results and for `--json`."""
    request_id = error.request_id if isinstance(error, ApiError | MalformedReply) else ""
    return {
        "type": type(error).__name__,
        "code": error.code if isinstance(error, ApiError) and error.code else None,
        "message": str(error),
        "request_id": request_id or None,
    }


def _moment(value: datetime | None) -> str | None:
    if value is None:
        return None
    return (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat().replace("+00:00", "Z")
