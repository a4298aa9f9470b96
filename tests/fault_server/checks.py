"""
What must hold after every scenario (I1, I3, I4, I6, I7), read from the server's books and from this process.

The books are the oracle; nothing here asks the package under test what it believes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from .books import Books
from .server import FaultServer

__all__ = ["assert_paid_once", "assert_silent", "assert_within", "no_leaks", "open_files", "quiet"]

_PATIENCE = 5.0
_PASSES = 100


def assert_paid_once(books: Books, expected: Iterable[str] | int) -> None:
    """I1: each of the *expected* external ids (or that many) was accepted exactly once, and nothing else was."""
    assert books.paid_twice == {}, f"paid more than once: {books.paid_twice}"
    if isinstance(expected, int):
        assert len(books.accepted) == expected, f"expected {expected} tasks, got {sorted(books.accepted)}"
    else:
        assert sorted(books.accepted) == sorted(expected)


def assert_within(
    books: Books, *, slots: int | None = None, posts: int | None = None, look_ups: int | None = None
) -> None:
    """I3 and I7: the slots were never passed, and no more requests came than stated. Nor did any odd ones."""
    assert books.overruns == 0, f"{books.overruns} creates beyond the limit"
    assert slots is None or books.peak <= slots, f"expected at most {slots} slots in use, found {books.peak}"
    assert posts is None or books.posts <= posts, f"expected at most {posts} POSTs, found {books.posts}"
    found = books.look_ups
    assert look_ups is None or found <= look_ups, f"expected at most {look_ups} look-ups, found {found}"
    assert books.oddities == [], books.oddities


def assert_silent(server: FaultServer, texts: Iterable[object]) -> None:
    """I4: no secret of the account is in any of *texts* (logs, reprs, errors with their causes)."""
    gate = server.service.gate
    for text in texts:
        for shown in _chain(text):
            for secret in (gate.secret_key, gate.api_key, "eyJ"):
                assert secret not in shown, f"a secret shows in {type(text).__name__}"


def _chain(value: object) -> Iterable[str]:
    while value is not None:
        yield from (str(value), repr(value))
        value = (value.__cause__ or value.__context__) if isinstance(value, BaseException) else None


def open_files() -> int:
    """Count the open files and sockets of this process; -1 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if sys.platform == "linux" else -1  # noqa: PTH208 - names are enough


async def quiet(server: FaultServer) -> None:
    """Wait until no connection to *server* is open any more; raises TimeoutError if one stays."""
    async with asyncio.timeout(_PATIENCE):
        while server.books.open_connections:  # noqa: ASYNC110 - see below
            # Ends of connections are events of the kernel; nothing in this process announces them.
            await asyncio.sleep(0.001)


@asynccontextmanager
async def no_leaks(server: FaultServer) -> AsyncIterator[None]:
    """I6: what runs inside leaves no asyncio task, no open connection to *server* and no open file behind."""
    tasks, files = asyncio.all_tasks(), open_files()
    yield
    await quiet(server)
    gc.collect()
    for _ in range(_PASSES):
        left = {task for task in asyncio.all_tasks() - tasks if not task.done()}
        if not left and open_files() <= files:
            return
        # What our own servers and proxies still have to close is gone in a moment; a leak is not.
        await asyncio.sleep(0.005)
    left = {task for task in asyncio.all_tasks() - tasks if not task.done()}
    assert not left, f"asyncio tasks left over: {left}"
    assert open_files() <= files, f"open files: {files} before, {open_files()} after"
