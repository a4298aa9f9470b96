"""
Pictures read in pieces while they are sent, as base64.

The loop never waits for a disk. What the kernel already holds is read at once (`RWF_NOWAIT`), since going through a
thread would cost more than the reading; everything else goes through a worker thread.
"""

from __future__ import annotations

import binascii
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Final

import anyio
from attrs import Factory, define, field

from kling_async.protocol.pictures import Picture
from kling_async.transport.opening import changed, file_fault, in_thread, open_regular, stamp_of

__all__ = ["LARGEST_PIECE", "PIECE", "Reader", "encoder"]

# Raw bytes read and encoded at once, multiples of 3 so that pieces of base64 can be joined. Measured on loopback with 32
# bodies of 60 MB: 24 KiB cost 0.65 CPU seconds a GB, 48 KiB 0.55, 96 KiB 0.52, 144 KiB 0.48, 192 KiB 0.49. What a slow peer
# does not take of a piece lies in memory, a thousand times with a thousand bodies, so those get small ones.
PIECE: Final = 48 * 1024
LARGEST_PIECE: Final = 144 * 1024


@define(eq=False)
class Reader:
    """
    Reads *picture* as base64; *scratch* is room for LARGEST_PIECE bytes that readers of one loop may share.

    Raises InvalidJob as soon as the file is seen to be another than was checked, always before its last bytes, so that a
    changed picture never arrives whole.
    """

    _picture: Picture
    _scratch: bytearray = field(factory=lambda: bytearray(LARGEST_PIECE), repr=False)
    _file: _PictureFile | None = field(default=None, init=False, repr=False)

    def at_once(self, start: int, length: int) -> bytes | None:
        """Return the base64 of *length* bytes at *start*, both multiples of 3 but for the end; None if a disk must be waited for."""
        data = self._picture.source.data
        if data is not None:
            return encoder()(memoryview(data)[start : start + length])
        read = self._file.read_cached(start, length) if self._file is not None else None
        return None if read is None else self._text(read, start, length)

    async def encoded(self, start: int, length: int) -> bytes:
        """Do the same where `at_once()` could not: open the file, or wait for the disk."""
        if self._file is None and self._picture.source.data is None:
            self._file = _PictureFile(self._picture, self._scratch)
            await in_thread(self._file.open)
            text = self.at_once(start, length)
            if text is not None:
                return text
        assert self._file is not None, "bytes are there at once"
        return self._text(await in_thread(self._file.read, start, length), start, length)

    def _text(self, read: memoryview | bytes, start: int, length: int) -> bytes:
        assert self._file is not None, "only files are read"
        last = start + length == self._picture.size
        if len(read) < length or (last and not self._file.unchanged()):
            raise changed(self._picture)
        return encoder()(read)

    async def aclose(self) -> None:
        """Close the file; safe to call again."""
        if self._file is not None:
            file, self._file = self._file, None
            with anyio.CancelScope(shield=True):
                await file.aclose()


@define(eq=False)
class _PictureFile:
    """
    The file of a picture while it is sent, read without ever making the loop wait for a disk.

    A cancelled wait leaves its thread running, so the descriptor is touched only under *_lock*: nobody reads from a
    number that was closed and given to another file.
    """

    _picture: Picture
    _buffer: bytearray = field(repr=False)
    _fd: int = -1
    _closed: bool = False
    _nowait: bool = sys.platform == "linux"
    _announced: bool = False
    _lock: threading.Lock = Factory(threading.Lock)

    def open(self) -> None:
        """Open the file; blocks. Raises InvalidJob if it changed."""
        path = self._picture.source.path
        assert path is not None
        with self._held():
            if self._closed:
                return
            try:
                self._fd = open_regular(path, "picture")
            except OSError as error:
                raise file_fault(error, path, "picture") from error
            if not self.unchanged():
                raise changed(self._picture)

    def unchanged(self) -> bool:
        """Tell whether the open file is still the one that was checked."""
        return stamp_of(os.fstat(self._fd)) == self._picture.stamp

    def read_cached(self, start: int, length: int) -> memoryview | None:
        """Read *length* bytes at *start* if the kernel has them; the view holds until the next call for any file."""
        if not self._nowait or sys.platform != "linux":  # the platform is named for type checkers
            return None
        view = memoryview(self._buffer)[:length]
        try:
            return view if os.preadv(self._fd, [view], start, os.RWF_NOWAIT) == length else None
        except BlockingIOError:
            return None  # not in memory
        except OSError:
            self._nowait = False  # a file system that cannot tell
            return None

    def read(self, start: int, length: int) -> bytes:
        """Read *length* bytes at *start*, fewer at the end of the file; blocks."""
        with self._held():
            if self._closed:
                return b""
            if not self._announced and hasattr(os, "posix_fadvise"):
                # Only now: for a file that is in memory this takes as long as to read a megabyte of it.
                self._announced = True
                os.posix_fadvise(self._fd, start, 0, os.POSIX_FADV_WILLNEED)
            os.lseek(self._fd, start, os.SEEK_SET)
            got = b""
            while len(got) < length and (more := os.read(self._fd, length - len(got))):
                got += more
            return got

    async def aclose(self) -> None:
        """Close the file, at once unless a thread still reads from it; that one does so itself if nobody can wait for it."""
        self._closed = True
        if not self._close_if_free():
            await in_thread(self._close_later)

    def _close_later(self) -> None:
        with self._held():
            pass  # its end closes the file

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            # Who closed the file meanwhile found it held.
            if self._closed:
                self._close_if_free()

    def _close_if_free(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False
        try:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
        finally:
            self._lock.release()
        return True


@cache
def encoder() -> Callable[[memoryview | bytes], bytes]:
    """Choose the base64 encoder at first use: pybase64 if it is there, four times as fast and the same text."""
    try:
        import pybase64  # an extra, imported where it is used
    except ImportError:
        return partial(binascii.b2a_base64, newline=False)
    encode: Callable[[memoryview | bytes], bytes] = pybase64.b64encode
    return encode
