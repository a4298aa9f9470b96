"""Who holds a journal or a folder: locks of the kernel, which die with their process, however it dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import IO

from attrs import define, field

from kling_async.errors import JournalError

__all__ = ["OwnerLock"]


@define(eq=False)
class OwnerLock:
    """Marks *what* as held by this process; the file at *path* only tells others who holds it."""

    path: Path
    what: str
    _file: IO[str] | None = field(default=None, init=False, repr=False)

    def take(self) -> None:
        """Take the lock; raises `JournalError` naming the holder if somebody has it, `OSError` if there can be none."""
        file = self.path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError as error:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise JournalError(f"{self.what} is in use by {holder}; wait for it or choose another") from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; safe to call again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # Windows only
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
