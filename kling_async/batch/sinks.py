"""OUT, a folder: pictures in `images/`, one line for each finished job in `results.jsonl`."""

from __future__ import annotations

import json
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import anyio.to_thread
from attrs import define, field

from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
from kling_async.errors import ApiError, ConfigError, KlingError, MalformedReply
from kling_async.journal.journal import Journal
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import FINISHED
from kling_async.protocol.parts import is_part
from kling_async.protocol.tasks import Task

__all__ = ["IMAGES", "RESULTS", "RUN", "Folder", "describe_error", "result_row"]

RESULTS = "results.jsonl"
IMAGES = "images"
RUN = "run.json"

# What a picture is called while it is being fetched.
_PART = re.compile(r"\.[0-9a-f]{8}\.part\Z")


@define(eq=False)
class Folder:
    """Writes what a batch brings into the folder at *path*."""

    path: Path
    # The run that the folder belongs to, and whether it has results of an earlier one.
    run_name: str = field(default="", init=False)
    has_history: bool = field(default=False, init=False)
    _lines: IO[str] | None = field(default=None, init=False, repr=False)

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

    async def open(self) -> None:
        """
        Make the folder and try to write into it, before anything is spent.

        Raises `ConfigError` naming the folder and the reason.
        """
        try:
            await anyio.to_thread.run_sync(self._open)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"out: expected a folder that can be written to, found {self.path} ({reason}); choose another"
            ) from error

    def _open(self) -> None:
        self.has_history = (self.path / RESULTS).exists()
        self.images.mkdir(parents=True, exist_ok=True)
        trial = self.images / f".trial-{os.getpid()}"
        trial.write_bytes(b"trial")
        trial.unlink()
        self.run_name = _run_name(self.path / RUN)
        self._lines = (self.path / RESULTS).open("a", encoding="utf-8")

    async def mend(self, journal: Journal) -> None:
        """
        Put the folder in order after a run that was cut short: half-written pictures go, lines that lack come.

        Only for who holds *journal*, since another run's pictures look just like half-written ones.
        """
        if not journal.clean:
            await anyio.to_thread.run_sync(self._sweep)
            lines = await journal.ask(self._missing_lines)
            if lines:
                await self.write(lines)

    def _sweep(self) -> None:
        for part in self.images.iterdir():
            if _PART.search(part.name):
                part.unlink(missing_ok=True)

    def _missing_lines(self, storage: Storage) -> list[str]:
        results = self.path / RESULTS
        _cut_last_line(results)
        with results.open(encoding="utf-8") as file:
            present = {_key_of(line) for line in file}
        finished = (record for record in storage.all() if record.state in FINISHED and record.result)
        return [
            json.dumps(dict(record.result or {}), ensure_ascii=False)
            for record in finished
            if record.key not in present and not is_part(record.key)
        ]

    async def write(self, lines: list[str]) -> None:
        """Append *lines*; they are with the operating system when this returns."""
        await anyio.to_thread.run_sync(self._write, lines)

    def _write(self, lines: list[str]) -> None:
        assert self._lines is not None, "a folder is opened before it is written to"
        self._lines.write("".join(f"{line}\n" for line in lines))
        self._lines.flush()

    def close(self) -> None:
        """Close what is open; safe to call again."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _run_name(file: Path) -> str:
    """Return the name of the folder's run, which outlives a lost journal; makes one for a new folder."""
    try:
        name = json.loads(file.read_bytes())["run"]
    except FileNotFoundError:
        name = secrets.token_hex(8)
        file.write_text(json.dumps({"run": name}) + "\n", encoding="utf-8")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"out: expected the name of a run in {file}, found something else; restore or remove it"
        ) from error
    return str(name)


def _key_of(line: str) -> str | None:
    try:
        return str(json.loads(line)["key"])
    except (ValueError, KeyError, TypeError):
        return None  # somebody edited it; the journal knows better


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
