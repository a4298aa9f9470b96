"""
Pictures from files, bytes and PIL: checked before a job is sent, read again in pieces while it is.

The loop never waits for a disk. What the kernel already holds is read at once (`RWF_NOWAIT`), since going through a
thread would cost more than the reading; everything else goes through a worker thread.
"""

from __future__ import annotations

import binascii
import errno
import io
import os
import stat
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from attrs import Factory, define

from kling_async.errors import InvalidJob
from kling_async.protocol.headers import PictureHeader, UnreadablePicture, scan_header
from kling_async.protocol.pictures import (
    MAX_BYTES,
    Picture,
    check_picture,
    check_size,
    refusal,
)
from kling_async.protocol.sources import ImageSource, looks_like_base64

__all__ = ["PIECE", "check_unchanged", "inspect", "pieces", "scan_file"]

# Raw bytes a piece, a multiple of 3 so that pieces of base64 can be joined. Measured with 32 and 1,000 bodies at
# once: smaller costs more CPU, larger more memory (each stalled connection holds one encoded piece).
PIECE: Final = 48 * 1024

_READ_AHEAD = 4096  # headers are asked for a few bytes at a time
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
_JPEG_QUALITY = 95
_threads: RunVar[anyio.CapacityLimiter] = RunVar("kling_async.transport.pictures")
_T = TypeVar("_T")

_FAULTS: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("no file {path}", "check the path"),
    errno.ENOTDIR: ("no file {path}", "check the path"),
    errno.EISDIR: ("the directory {path}", "name a file in it"),
    errno.EACCES: ("no permission to read {path}", "allow reading it"),
    errno.EPERM: ("no permission to read {path}", "allow reading it"),
    errno.ENAMETOOLONG: ("a name too long for a file: {path}", "check the path"),
    errno.ELOOP: ("a circle of links at {path}", "name the file itself"),
}


async def inspect(source: ImageSource, field: str) -> Picture:
    """
    Check the picture of *source* against the rules of the service, from its header.

    Not for URL sources, which the service fetches itself. A PIL image is encoded here: as PNG, or as JPEG if that
    would be too large and nothing is lost but exactness; `Picture.note` tells. Raises InvalidJob naming *field*.
    """
    assert source.url is None  # the service fetches those itself
    if source.data is not None:
        return _inspect_bytes(source.data, field)
    if source.path is not None:
        return await _in_thread(_inspect_file, source.path, field)
    return await _in_thread(_inspect_image, source.image, field)


async def check_unchanged(pictures: tuple[Picture, ...]) -> None:
    """Raise InvalidJob if the file of one of *pictures* is no longer the one that was checked."""
    files = tuple(picture for picture in pictures if picture.source.path is not None)
    if files:
        await _in_thread(_check_stamps, files)


async def pieces(picture: Picture) -> AsyncGenerator[bytes, None]:
    """
    Yield the base64 text of *picture* in pieces, from the start each time it is called.

    Raises InvalidJob as soon as the file is seen to be another than was checked, always before the last piece, so
    that a changed picture never arrives whole. Close it when leaving early.
    """
    encode = _encoder()
    if picture.source.data is not None:
        view = memoryview(picture.source.data)
        for start in range(0, picture.size, PIECE):
            yield encode(view[start : start + PIECE])
        return
    file = _PictureFile(picture)
    try:
        await _in_thread(file.open)
        for start in range(0, picture.size, PIECE):
            length = min(PIECE, picture.size - start)
            read = await file.read(start, length)
            last = start + length == picture.size
            if len(read) < length or (last and not file.unchanged()):
                raise _changed(picture)
            yield encode(read)
    finally:
        with anyio.CancelScope(shield=True):
            await file.aclose()


def scan_file(file: BinaryIO, size: int, *, webp: bool = False) -> PictureHeader:
    """Scan the header of an open file of *size* bytes; blocks, and raises UnreadablePicture."""
    scan = scan_header(size, webp=webp)
    held, start = b"", 0
    offset, length = next(scan)
    while True:
        if not start <= offset <= offset + length <= start + len(held):
            held, start = _read_at(file, offset, max(length, _READ_AHEAD)), offset
        try:
            offset, length = scan.send(held[offset - start : offset - start + length])
        except StopIteration as end:
            header: PictureHeader = end.value
            return header


async def _in_thread(function: Callable[..., _T], *args: Any) -> _T:
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(4)
        _threads.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


def _inspect_bytes(data: bytes, field: str, note: str = "") -> Picture:
    source = ImageSource(data=data)
    what = source.describe()
    check_size(len(data), field, what)
    try:
        header = scan_file(io.BytesIO(data), len(data))
    except UnreadablePicture as problem:
        raise refusal(problem, field, what) from problem
    check_picture(header, len(data), field, what)
    return Picture(source=source, size=len(data), header=header, note=note)


def _inspect_file(path: Path, field: str) -> Picture:
    source = ImageSource(path=path)
    what = source.describe()
    try:
        with os.fdopen(_open_regular(path, field), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            check_size(status.st_size, field, what)
            header = scan_file(file, status.st_size)
    except UnreadablePicture as problem:
        raise refusal(problem, field, what) from problem
    except OSError as error:
        raise _file_fault(error, path, field) from error
    check_picture(header, status.st_size, field, what)
    return Picture(source=source, size=status.st_size, header=header, stamp=_stamp(status))


def _inspect_image(image: Any, field: str) -> Picture:
    width, height = image.size
    what = f"PIL image {width}x{height}"
    check_picture(PictureHeader("png", width, height), 0, field, what)
    try:
        data, note = _encode_image(image)
    except Exception as error:  # any plug-in of PIL may raise anything
        rule, found = "a PIL image that can be saved", f"{type(error).__name__}: {error} ({what})"
        raise InvalidJob.because(field, rule, found, "load() it and look at it first") from error
    return _inspect_bytes(data, field, note)


def _encode_image(image: Any) -> tuple[bytes, str]:
    plain = image if image.mode in _PNG_MODES else image.convert("RGB")
    note = "" if plain is image else f"converted from {image.mode} to RGB"
    data = _save(plain, format="PNG")
    see_through = plain.mode in {"LA", "RGBA"} or "transparency" in getattr(plain, "info", {})
    if len(data) <= MAX_BYTES or see_through:
        return data, note
    return _save(plain.convert("RGB"), format="JPEG", quality=_JPEG_QUALITY, subsampling=0), (
        f"{note + ', ' if note else ''}encoded as JPEG of quality {_JPEG_QUALITY}, since {len(data):,} bytes of PNG are too many"
    )


def _save(image: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _open_regular(path: Path, field: str) -> int:
    """Open *path* for reading; a FIFO, which would block, or a device, which might act, is never opened."""
    _refuse_special(path.stat().st_mode, path, field)
    fd = os.open(path, _FLAGS)
    try:
        _refuse_special(os.fstat(fd).st_mode, path, field)  # it may have become another one meanwhile
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_special(mode: int, path: Path, field: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise InvalidJob.because(
            field, "a regular file", f"a pipe, socket or device ({path})", "name a picture file"
        )


def _file_fault(error: OSError, path: Path, field: str) -> InvalidJob:
    found, remedy = _FAULTS.get(
        error.errno or 0,
        ("{path}, which cannot be read (" + (error.strerror or str(error)) + ")", "try to open it yourself"),
    )
    text = str(path)
    if looks_like_base64(text):
        remedy = "for base64 text use ImageSource.from_base64(text)"
    shown = text if len(text) <= 200 else f"{text[:100]}…{text[-80:]}"
    if looks_like_base64(text):
        shown = f"{path.name[:12]}…"
    return InvalidJob.because(field, "a readable picture file", found.format(path=shown), remedy)


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read *length* bytes at *offset*, fewer only at the end of the file."""
    file.seek(offset)
    got = b""
    while len(got) < length and (more := file.read(length - len(got))):
        got += more
    return got


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size


def _changed(picture: Picture) -> InvalidJob:
    found = f"another content or size than was checked ({picture.source.describe()})"
    return InvalidJob.because(
        "picture", "a file that stays as it is until it is sent", found, "start the job again"
    )


def _check_stamps(pictures: tuple[Picture, ...]) -> None:
    for picture in pictures:
        assert picture.source.path is not None
        try:
            stamp = _stamp(picture.source.path.stat())
        except OSError as error:
            raise _file_fault(error, picture.source.path, "picture") from error
        if stamp != picture.stamp:
            raise _changed(picture)


@define(eq=False)
class _PictureFile:
    """
    The file of a picture while it is sent, read without ever making the loop wait for a disk.

    A cancelled wait leaves its thread running, so the descriptor is touched only under *_lock*: nobody reads from a
    number that was closed and given to another file.
    """

    _picture: Picture
    _fd: int = -1
    _closed: bool = False
    _nowait: bool = sys.platform == "linux"
    _buffer: bytearray = Factory(lambda: bytearray(PIECE))
    _lock: threading.Lock = Factory(threading.Lock)

    def open(self) -> None:
        """Open the file and tell the kernel that all of it will be read; blocks. Raises InvalidJob if it changed."""
        path = self._picture.source.path
        assert path is not None
        with self._held():
            if self._closed:
                return
            try:
                self._fd = _open_regular(path, "picture")
            except OSError as error:
                raise _file_fault(error, path, "picture") from error
            if not self.unchanged():
                raise _changed(self._picture)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_WILLNEED)

    def unchanged(self) -> bool:
        """Tell whether the open file is still the one that was checked."""
        return _stamp(os.fstat(self._fd)) == self._picture.stamp

    async def read(self, start: int, length: int) -> memoryview | bytes:
        """Read *length* bytes at *start*, fewer at the end of the file; a view holds until the next call."""
        if self._nowait:
            view = memoryview(self._buffer)[:length]
            if self._read_cached(view, start) == length:
                return view
        return await _in_thread(self._read_blocking, start, length)

    def _read_cached(self, view: memoryview, start: int) -> int:
        if sys.platform != "linux":  # kept apart for type checkers, which know where the call exists
            return 0
        try:
            return os.preadv(self._fd, [view], start, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0  # not in memory
        except OSError:
            self._nowait = False  # a file system that cannot tell
            return 0

    def _read_blocking(self, start: int, length: int) -> bytes:
        with self._held():
            if self._closed:
                return b""
            os.lseek(self._fd, start, os.SEEK_SET)
            got = b""
            while len(got) < length and (more := os.read(self._fd, length - len(got))):
                got += more
            return got

    async def aclose(self) -> None:
        """Close the file, at once unless a thread still reads from it; that one does so itself if nobody can wait for it."""
        self._closed = True
        if not self._close_if_free():
            await _in_thread(self._close_later)

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
def _encoder() -> Callable[[memoryview | bytes], bytes]:
    """Choose the base64 encoder at first use: pybase64 if it is there, four times as fast and the same text."""
    try:
        import pybase64  # an extra, imported where it is used
    except ImportError:
        return partial(binascii.b2a_base64, newline=False)
    encode: Callable[[memoryview | bytes], bytes] = pybase64.b64encode
    return encode
