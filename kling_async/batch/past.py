"""What earlier runs made of rows that this one skips, read from the journal by whoever asks, and not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    # Outcomes are loaded without what keeps a journal.
    from kling_async.journal.journal import Journal

__all__ = ["Past"]


@define(eq=False)
class Past:
    """The ended rows of the journal at *path*, whose files are relative to *root*; asks *journal* while that is open."""

    path: Path
    root: Path | None = None
    _journal: Journal | None = field(default=None, repr=False)

    def files(self, key: str) -> tuple[Path | str, ...]:
        """Return the pictures that were saved for *key*: paths, or URLs in an object store."""
        return tuple(self._place(str(name)) for name in self._line(key).get("files") or ())

    def units(self, key: str) -> Decimal | None:
        """Return what the task of *key* cost, as the service said; None where it did not."""
        units = self._line(key).get("units")
        return None if units is None else Decimal(str(units))

    def task_id(self, key: str) -> str:
        """Return the task of *key*, or its tasks with commas between; empty if it had none."""
        return str(self._line(key).get("task_id") or "")

    def _place(self, name: str) -> Path | str:
        return name if self.root is None or "://" in name else self.root / name

    def _line(self, key: str) -> Mapping[str, Any]:
        if self._journal is not None and self._journal.is_open:
            record = self._journal.find(key)
        else:
            from kling_async.journal.storage import Storage

            with closing(Storage.read_only(self.path)) as storage:
                record = storage.get(key)
        return (record.result if record is not None else None) or {}

    def __reduce__(self) -> tuple[Callable[..., Past], tuple[Path, Path | None]]:
        # Outcomes go to other processes, which look into the file themselves.
        return Past, (self.path, self.root)
