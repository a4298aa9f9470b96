"""OUT, a folder: pictures in `images/`, one line for each finished job in `results.jsonl`."""

from __future__ import annotations

import json
import os
import re
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
from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
from kling_async.errors import ApiError, ConfigError, KlingError, MalformedReply
from kling_async.journal.journal import Journal
from kling_async.journal.locks import OwnerLock
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import FINISHED, JobRecord
from kling_async.protocol.parts import is_part
from kling_async.protocol.tasks import Task

__all__ = ["EARLIER", "IMAGES", "RESULTS", "RUN", "Folder", "describe_error", "result_row"]

RESULTS = "results.jsonl"
IMAGES = "images"
RUN = "run.json"
_AS_WRITTEN = "as written"
_LOCK = ".lock"
# In the folder of the pictures: those of attempts before the last.
EARLIER = "earlier"

# What a picture is called while it is being fetched.
_PART = re.compile(r"\.[0-9a-f]{8}\.part\Z")


@define(eq=False)
class Folder:
    """Writes what a batch brings into the folder at *path*."""

    path: Path
    # The run that the folder belongs to, whether it knows pictures by where they lie, as runs of an earlier version did,
    # and whether the folder has results of an earlier run.
    run_name: str = field(default="", init=False)
    placed: bool = field(default=False, init=False)
    has_history: bool = field(default=False, init=False)
    # The journal has a lock of its own, since it can lie elsewhere and a folder can be given with another one.
    _lock: OwnerLock | None = field(default=None, init=False, repr=False)
    _lines: IO[str] | None = field(default=None, init=False, repr=False)
    # What the results have, as hashes; read when it is first needed, which is seldom.
    _present: set[int] | None = field(default=None, init=False, repr=False)
    # Held by whatever thread is at work here, which may be one that nobody waits for any more.
    _writing: threading.Lock = field(factory=threading.Lock, init=False, repr=False)
    _closed: bool = field(default=False, init=False)

    @classmethod
    def at(cls, out: str | os.PathLike[str] | None) -> Folder | None:
        """Take what a caller gave as *out*; raises `ConfigError` for what is no folder of a file system."""
        if out is None:
            return None
        if isinstance(out, str) and "://" in out:
            raise ConfigError(f"out: expected a folder, found {out!r}; stores are not supported yet")
        return cls(Path(out))

    @property
    def images(self) -> Path:
        """Where pictures go."""
        return self.path / IMAGES

    async def open(self, journal: Path | None = None) -> None:
        """
        Make the folder, take hold of it until `close()` and try to write into it, before anything is spent.

        Raises `JournalError` if another run has hold of it, and `ConfigError` naming the folder and the reason, also
        if the name of its run cannot be read and there is no *journal* either that knows it.
        """
        try:
            await self._in_thread(self._open, journal)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"out: expected a folder that can be written to, found {self.path} ({reason}); choose another"
            ) from error

    def _open(self, journal: Path | None) -> None:
        make_folder(self.images)
        lock = OwnerLock(self.path / _LOCK, f"the folder {self.path}")
        lock.take()
        self._lock = lock
        self.has_history = (self.path / RESULTS).exists()
        # Without a name where the system can do that, so that nothing is left of it whatever happens.
        with tempfile.TemporaryFile(dir=self.images) as trial:
            trial.write(b"trial")
        known = journal is not None and journal.exists()
        self.run_name, self.placed = _run_name(self.path / RUN, known=known)

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
            await self._in_thread(_write_name, self.path / RUN, journal.run, self.placed)
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
            for part in self.images.iterdir():
                if _PART.search(part.name):
                    part.unlink(missing_ok=True)
            if self.has_history:
                _cut_last_line(results)
        self._lines = results.open("a", encoding="utf-8")
        sync_folder(self.path)

    async def set_aside(self, record: JobRecord) -> None:
        """Move the pictures that *record* names out of the way of a new attempt, to `earlier/` beside them."""
        await self._in_thread(self._set_aside, record)

    def _set_aside(self, record: JobRecord) -> None:
        for name in (record.result or {}).get("files", ()):
            file = self.path / name
            if file.is_file():
                make_folder(file.parent / EARLIER)
                file.replace(file.parent / EARLIER / f"{record.task_id}-{file.name}")

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


def _run_name(file: Path, *, known: bool) -> tuple[str, bool]:
    """
    Return the name of the folder's run, which outlives a lost journal, and whether it knows pictures by where they lie.

    Makes one for a new folder, none if *known*.
    """
    try:
        run = json.loads(file.read_bytes())
        return str(run["run"]), run.get("pictures") != _AS_WRITTEN
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        if known:
            return "", False
        if not isinstance(error, FileNotFoundError):
            raise ConfigError(
                f"out: expected the name of a run in {file}, found something else; restore or remove it"
            ) from error
    name = secrets.token_hex(8)
    _write_name(file, name, placed=False)
    return name, False


def _write_name(file: Path, name: str, placed: bool) -> None:  # noqa: FBT001  # called through a thread, which takes no names
    # On the disk before anything is paid for: without it a lost journal's tasks could not be found again.
    run = {"run": name} | ({} if placed else {"pictures": _AS_WRITTEN})
    write_whole(file, (json.dumps(run) + "\n").encode())


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
    return {
        "key": outcome.key,
        "status": _STATUS[type(outcome)],
        "task_id": task.task_id if task else None,
        "external_task_id": None if isinstance(outcome, Skipped) else outcome.external_task_id or None,
        "account": None if isinstance(outcome, Skipped) else outcome.account or None,
        "units": _units(task),
        "files": _files(outcome, root),
        "urls": [image.url for image in task.images] if task else [],
        "error": _error(outcome),
        "attempts": 0 if isinstance(outcome, Skipped) else outcome.attempts,
        "created_at": _moment(task.created_at) if task else None,
        "finished_at": _moment(finished_at),
    }


_STATUS = {Succeeded: "succeeded", Failed: "failed", Skipped: "skipped"}


def _files(outcome: Outcome, root: Path | None) -> list[str]:
    files = outcome.files if isinstance(outcome, Succeeded) else ()
    if root is None:
        return [str(file) for file in files]
    return [file.relative_to(root).as_posix() for file in files]


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
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")
