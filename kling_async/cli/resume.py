"""
What earlier runs into the same folder have done, so that a second `run` pays for nothing twice.

Read from `results.jsonl`. A row that succeeded is done. A row that failed is to do again, except where its task may have
been paid for and can still bring its pictures: that one is held back and named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from attrs import define, field

from kling_async.batch.keys import KeyTable
from kling_async.batch.manifest import BadRow, Row
from kling_async.errors import ConfigError

__all__ = ["Earlier", "read_earlier"]

_Rows: TypeAlias = Iterator[Row | BadRow]

# The task exists or may exist: sending the row again could pay for it a second time.
_MAY_BE_PAID = frozenset({"TaskTimeout", "SubmissionUnknown", "DownloadError", "LinkExpired", "EmptyResult"})


@define(eq=False)
class Earlier:
    """Keys that are *done*, and those *held* back with the id of the task that may have been paid for."""

    done: KeyTable = field(factory=KeyTable)
    held: dict[str, str] = field(factory=dict)

    def settles(self, key: str) -> bool:
        """Tell whether the row with *key* is not to be sent."""
        return key in self.held or key in self.done

    def left_of(self, rows: _Rows) -> _Rows:
        """Yield the rows that are to do."""
        return (row for row in rows if not self.settles(row.key))


def read_earlier(results: Path) -> Earlier:
    """
    Read *results*; a missing file is an empty one, and lines that cannot be read count for nothing.

    A last line cut short by a crash gets its end, so that what is appended does not run into it.
    """
    earlier = Earlier()
    try:
        with results.open("rb+") as file:
            line = b"\n"
            for number, line in enumerate(file, start=1):
                _note(earlier, number, line)
            if not line.endswith(b"\n"):
                file.write(b"\n")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(
            f"{results}: expected the results of earlier runs, found {error.strerror}; choose another folder with -o"
        ) from error
    return earlier


def _note(earlier: Earlier, number: int, line: bytes) -> None:
    try:
        result = json.loads(line)
        key, status, error = result["key"], result["status"], result.get("error") or {}
        kind, task = error.get("type"), result.get("task_id") or result.get("external_task_id") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if not isinstance(key, str):
        return
    if status == "succeeded":
        earlier.done.add(key, number)
        earlier.held.pop(key, None)
    elif status == "failed" and kind in _MAY_BE_PAID and key not in earlier.done:
        earlier.held[key] = str(task)
    elif status == "failed":
        earlier.held.pop(key, None)
