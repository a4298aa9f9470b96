"""OUT, a folder: pictures in `images/`, one line for each finished job in `results.jsonl`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import anyio.to_thread
from attrs import define, field

from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
from kling_async.errors import ApiError, ConfigError, KlingError, MalformedReply
from kling_async.protocol.tasks import Task

__all__ = ["IMAGES", "RESULTS", "Folder", "result_line"]

RESULTS = "results.jsonl"
IMAGES = "images"


@define(eq=False)
class Folder:
    """Writes what a batch brings into the folder at *path*."""

    path: Path
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
        self.images.mkdir(parents=True, exist_ok=True)
        trial = self.images / f".trial-{os.getpid()}"
        trial.write_bytes(b"trial")
        trial.unlink()
        self._lines = (self.path / RESULTS).open("a", encoding="utf-8")

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


def result_line(outcome: Outcome, root: Path, finished_at: datetime) -> str:
    """Return the line of *outcome* for `results.jsonl` in *root*, without its end."""
    return json.dumps(_row(outcome, root, finished_at), ensure_ascii=False, allow_nan=False)


def _row(outcome: Outcome, root: Path, finished_at: datetime) -> dict[str, Any]:
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


def _files(outcome: Outcome, root: Path) -> list[str]:
    files = outcome.files if isinstance(outcome, Succeeded) else ()
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
