"""Picture files opened and looked at, never on the loop; what goes wrong is told in the caller's terms."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import looks_like_base64

__all__ = ["changed", "check_unchanged", "file_fault", "in_thread", "in_workshop", "open_regular", "stamp_of"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_threads: RunVar[anyio.CapacityLimiter] = RunVar("kling_async.transport.opening.threads")
_workshop: RunVar[anyio.CapacityLimiter] = RunVar("kling_async.transport.opening.workshop")
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


async def check_unchanged(pictures: tuple[Picture, ...]) -> None:
    """Raise InvalidJob if the file of one of *pictures* is no longer the one that was checked."""
    files = tuple(picture for picture in pictures if picture.source.path is not None)
    if files:
        await in_thread(_check_stamps, files)


async def in_thread(function: Callable[..., _T], *args: Any) -> _T:
    """Call *function* in one of the few threads that wait for disks."""
    return await _run_in(_threads, 4, function, *args)


async def in_workshop(function: Callable[..., _T], *args: Any) -> _T:
    """Call *function* in one of the two threads that decode pictures, each of which may hold 500 MB of pixels."""
    return await _run_in(_workshop, 2, function, *args)


async def _run_in(
    place: RunVar[anyio.CapacityLimiter], width: int, function: Callable[..., _T], *args: Any
) -> _T:
    limiter = place.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(width)
        place.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


def open_regular(path: Path, field: str) -> int:
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


def file_fault(error: OSError, path: Path, field: str) -> InvalidJob:
    """Turn what the system says about *path* into the error for the caller."""
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


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from a later content of it."""
    return status.st_mtime_ns, status.st_size


def changed(picture: Picture) -> InvalidJob:
    """Return the error for a file that is no longer the one that was checked."""
    found = f"another content or size than was checked ({picture.name or picture.source.describe()})"
    return InvalidJob.because(
        "picture", "a file that stays as it is until it is sent", found, "start the job again"
    )


def _check_stamps(pictures: tuple[Picture, ...]) -> None:
    for picture in pictures:
        assert picture.source.path is not None
        try:
            stamp = stamp_of(picture.source.path.stat())
        except OSError as error:
            raise file_fault(error, picture.source.path, "picture") from error
        if stamp != picture.stamp:
            raise changed(picture)
