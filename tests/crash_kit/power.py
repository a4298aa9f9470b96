"""
A disk that forgets: what a power cut would leave of a folder, worked out from what was really flushed.

The calls of the operating system that make things last (fsync of files and of folders) are noted on their way; nothing
else is trusted. SQLite does its own flushing, of which Python sees nothing: its file and its log are taken as they are
when a commit has returned, which is what `synchronous=FULL` promises.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

__all__ = ["Disk"]

_SQLITE = ("journal.db", "journal.db-wal")


@define(eq=False)
class Disk:
    """Notes what happens to the files of *out*; `install()` it before anything is opened there."""

    out: Path
    events: list[tuple[str, str]] = field(factory=list)
    # What is on the plates: the content of files by inode, the names in folders by path.
    _contents: dict[int, bytes] = field(factory=dict)
    _names: dict[Path, dict[str, int]] = field(factory=dict)
    _lock: threading.RLock = field(factory=threading.RLock)

    def install(self) -> None:
        """Note every flush and every new name from now on."""
        fsync, link, replace = os.fsync, os.link, os.replace

        def noted_fsync(fd: Any) -> None:
            fsync(fd)
            with self._lock:
                self._flushed(os.fstat(fd))

        def noted_link(src: Any, dst: Any, **rest: Any) -> None:
            link(src, dst, **rest)
            self.note("link", Path(dst).name)

        def noted_replace(src: Any, dst: Any, **rest: Any) -> None:
            replace(src, dst, **rest)
            self.note("replace", Path(dst).name)

        os.fsync, os.link, os.replace = noted_fsync, noted_link, noted_replace

    def note(self, what: str, name: str = "") -> None:
        """Note that something happened."""
        with self._lock:
            self.events.append((what, name))

    def _flushed(self, status: os.stat_result) -> None:
        path = next((each for each in self._all() if each.stat().st_ino == status.st_ino), None)
        if path is None:
            return
        if stat.S_ISDIR(status.st_mode):
            self._names[path] = {each.name: each.stat().st_ino for each in path.iterdir()}
            self.events.append(("fsync folder", path.name))
        else:
            self._contents[status.st_ino] = path.read_bytes()
            self.events.append(("fsync", path.name))

    def _all(self) -> Iterator[Path]:
        yield self.out.parent
        if self.out.exists():
            yield self.out
            yield from self.out.rglob("*")

    def cut_power(self, to: Path) -> None:
        """Write what would be left of the folder to *to*, and the events so far beside it."""
        with self._lock:
            Path(f"{to}.events").write_text(json.dumps(self.events), encoding="utf-8")
            if self.out.name in self._names.get(self.out.parent, {}):
                self._leave(self.out, to)
                for name in _SQLITE:
                    if name in self._names.get(self.out, {}) or name != "journal.db":
                        self._copy(self.out / name, to / name)

    def _leave(self, folder: Path, to: Path) -> None:
        to.mkdir()
        for name, inode in self._names.get(folder, {}).items():
            if name.startswith(_SQLITE[0]):
                continue
            if (folder / name).is_dir():
                self._leave(folder / name, to / name)
            else:
                (to / name).write_bytes(self._contents.get(inode, b""))

    def _copy(self, file: Path, to: Path) -> None:
        if file.exists():
            shutil.copyfile(file, to)
