"""
Result files: whole or not at all.

A picture is written to a `.part` file of its own in the same folder, checked, flushed to the disk and only then
given its name, which is never taken from another file. What blocks here belongs in a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from attrs import Factory, define, field, frozen

from kling_async._crash import crash_point
from kling_async._disk import make_folder, sync_folder
from kling_async.transport.pictures import scan_file
from kling_async.transport.shelves import EXTENSIONS, Check, OtherFileExists, SavedFile

__all__ = ["PART", "FolderShelf", "PartFile"]

# What a picture is called while it is being fetched.
PART = re.compile(r"\.[0-9a-f]{8}\.part\Z")
_CREATE = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 1 << 20
# What file systems without hard links answer (FAT, some network and container mounts).
_NO_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EMLINK,
    errno.EXDEV,
}


@frozen
class FolderShelf:
    """Keeps pictures in the folder at *path*, which is made with the first of them."""

    path: Path

    def part(self, stem: str) -> PartFile:
        """Begin the file of *stem*."""
        return PartFile(self.path, stem)

    def __str__(self) -> str:
        return str(self.path)


@define(eq=False)
class PartFile:
    """
    A file in the making, for *stem* in *folder*.

    A cancelled wait leaves its thread running, so every step holds *_lock*, and after *discard()* none has any effect.
    """

    folder: Path
    _stem: str
    _file: BinaryIO | None = None
    _path: Path = field(init=False)
    _digest: hashlib._Hash = Factory(hashlib.sha256)
    _size: int = 0
    _ended: bool = False
    _lock: threading.Lock = Factory(threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._path = self.folder / f"{self._stem}.{secrets.token_hex(4)}.part"

    @property
    def ended(self) -> bool:
        """Tell whether nothing is left to be taken away."""
        return self._ended

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append *blocks*; the first call makes the folder and the file."""
        with self._lock:
            if not self._ended:
                self._append(blocks)

    def finish(self, blocks: Iterable[bytes], check: Check) -> SavedFile | None:
        """
        Append the last *blocks*, let *check* see the header and the file, flush it and give it its name.

        The extension is that of the content. A file of that name with the same content is left as it is. Raises
        OtherFileExists for any other, UnreadablePicture, OSError, and what *check* raises. Returns None only after
        *discard()*, to nobody.
        """
        with self._lock:
            if self._ended:
                return None
            file = self._append(blocks)
            header = scan_file(file, self._size, webp=True)
            check(header, file)
            os.fsync(file.fileno())
            crash_point("after-fsync")
            file.close()
            final = self.folder / f"{self._stem}.{EXTENSIONS[header.format]}"
            saved = SavedFile(
                location=final, size=self._size, sha256=self._digest.hexdigest(), format=header.format
            )
            try:
                _rename_new(self._path, final)
            except FileExistsError:
                if _sha256(final) != saved.sha256:
                    raise OtherFileExists(errno.EEXIST, "another file has this name", str(final)) from None
                self._path.unlink()
            sync_folder(self.folder)
            crash_point("after-rename")
            self._ended = True
            return saved

    def discard(self) -> None:
        """Take away what is left; does nothing to a file that has its name."""
        with self._lock:
            if self._file is not None and not self._ended:
                self._file.close()
                self._path.unlink(missing_ok=True)
            self._ended = True

    def _append(self, blocks: Iterable[bytes]) -> BinaryIO:
        if self._file is None:
            try:
                descriptor = os.open(self._path, _CREATE, 0o666)
            except FileNotFoundError:
                make_folder(self.folder)
                descriptor = os.open(self._path, _CREATE, 0o666)
            self._file = os.fdopen(descriptor, "w+b", buffering=0)
        for block in blocks:
            _write_all(self._file, block)
            self._digest.update(block)
            self._size += len(block)
        return self._file


def _write_all(file: BinaryIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _rename_new(part: Path, final: Path) -> None:
    """Rename without replacing: a hard link fails where a name exists, which a rename does only on Windows."""
    try:
        final.hardlink_to(part)
        crash_point("after-link")
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        part.rename(final)
    else:
        part.unlink()


def _sha256(path: Path) -> str:
    """Return the digest of the file at *path*, empty if it is no regular file."""
    try:
        fd = os.open(path, _READ)
    except OSError:
        return ""  # a symlink, or one that may not be read: not known to be the same
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        digest = hashlib.sha256()
        while block := os.read(fd, _BLOCK):
            digest.update(block)
        return digest.hexdigest()
    finally:
        os.close(fd)
