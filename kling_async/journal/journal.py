"""
The journal of a run: who holds it, and one thread that writes it.

Many jobs move at once, so their records are committed together: whatever has gathered while the last commit was under
way goes into the next one. `record()` returns when its move is on the disk.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from kling_async._crash import crash_point
from kling_async._disk import make_folder
from kling_async.errors import JournalError
from kling_async.journal.locks import OwnerLock
from kling_async.journal.storage import Storage, trouble
from kling_async.protocol.lifecycle import JobRecord

__all__ = ["Journal"]

T = TypeVar("T")

# Under load, that is when so many records came with the last commit, the seconds that the next one waits for more.
_BUSY = 8
_LINGER = 0.005


@define(eq=False)
class _Write:
    record: JobRecord
    done: asyncio.Future[object] | None


@define(eq=False)
class _Read:
    query: Callable[[Storage], object]
    done: asyncio.Future[object] | None


@define(eq=False)
class Journal:
    """
    An open journal; made by `open()`, ended by `aclose()`.

    *run* is the name of the run, part of every external id: the same as long as the journal lives. *is_new* says that
    there was none before, *rebuilt* that it is put together from what the service has and may lack tasks, *lost* that
    this is done row by row, as the rows come, so that it does not know what the run has spent. *clean* says that all that belongs to the run is
    in order; who makes that untrue or true again says so, and what it says at the end is what the next owner finds.
    *pictures* is the folder that the pictures of a manifest's rows are relative to: "" if none were yet, None in a
    journal of a version that knew them by where they lie.
    An owner that is killed leaves a journal that is not clean.
    """

    path: Path
    run: str
    is_new: bool
    clean: bool
    rebuilt: bool
    lost: bool
    pictures: str | None
    _storage: Storage = field(repr=False)
    # A second connection, so that a look-up of a few microseconds needs no trip to the thread.
    _reader: Storage = field(repr=False)
    _lock: OwnerLock = field(repr=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False, repr=False)
    _queue: SimpleQueue[_Write | _Read | None] = field(factory=SimpleQueue, init=False, repr=False)
    _thread: threading.Thread = field(init=False, repr=False)
    _closed: bool = field(default=False, init=False)
    failure: JournalError | None = field(default=None, init=False)
    commits: int = field(default=0, init=False)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        run: str | None = None,
        placed: bool = False,
        instead_of: Callable[[Path], None] | None = None,
    ) -> Journal:
        """
        Open the journal at *path*, or make one for a run named *run* (by default a new name).

        *placed* says that a new one is for a run whose pictures are known by where they lie.
        *instead_of* is called once the journal is held and takes away what lies there, so that a new one is made.
        Raises `JournalError` if another process holds it, if it is damaged, or if it cannot be written.
        """
        begin = {"run": run or secrets.token_hex(8)} | ({} if placed else {"pictures": ""})
        opening = _Opening()
        try:
            parts = await anyio.to_thread.run_sync(opening.run, path, begin, instead_of)
        except BaseException:
            # Whoever is cancelled here leaves the thread at work, which has the lock or will have it.
            opening.abandoned = True
            # A thread of its own, which a second cancellation cannot keep from starting.
            undoing = threading.Thread(target=opening.undo, name="kling-journal-undo", daemon=True)
            undoing.start()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(undoing.join)
            raise
        journal = cls(path, *parts)
        journal._thread = threading.Thread(target=journal._write_on, name="kling-journal", daemon=True)
        journal._thread.start()
        return journal

    async def record(self, record: JobRecord) -> None:
        """Write *record*; on the disk when this returns. Raises `JournalError`, and then it is not."""
        self._check()
        done: asyncio.Future[object] = self._loop.create_future()
        self._queue.put(_Write(record, done))
        await done

    def note(self, record: JobRecord) -> None:
        """Write *record* with the next commit, in its order, without waiting for it; a failure shows at the next `record()`."""
        if self.failure is None and not self._closed:
            self._queue.put(_Write(record, None))

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return not self._closed

    def find(self, key: str) -> JobRecord | None:
        """Return what the file says of *key*, at once; for rows of an earlier run, which nothing under way changes."""
        return self._reader.get(key)

    async def ask(self, query: Callable[[Storage], T]) -> T:
        """Run *query* in the journal's thread, after all that was written before; raises `JournalError` once it is closed."""
        self._check_open()
        done: asyncio.Future[object] = self._loop.create_future()
        self._queue.put(_Read(query, done))
        return await done  # type: ignore[return-value]  # what *query* returned

    async def flush(self) -> None:
        """Wait until all that was noted is on the disk; raises `JournalError` if it cannot be."""
        await self.ask(lambda _: None)
        self._check()

    def done(self, key: str) -> str | None:
        """Return the fingerprint of *key* if it was done when this run began."""
        return self._reader.done(key)

    def rows_done(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the rows of those of *keys* that were done when this run began, as hashes."""
        return self._reader.rows_done(keys)

    def note_pictures(self, folder: str) -> None:
        """Write down with what is noted next that pictures are relative to *folder*."""
        self.pictures = folder
        if self.failure is None and not self._closed:
            self._queue.put(_Read(lambda storage: storage.set_meta({"pictures": folder}), None))

    async def mark_rebuilt(self, *, lost: bool = False) -> None:
        """Write down that the journal may lack tasks; raises `JournalError` if what was noted could not be written."""
        self.rebuilt, self.lost = True, lost
        await self.ask(lambda storage: storage.set_meta({"rebuilt": "lost" if lost else "yes"}))
        self._check()

    async def aclose(self) -> None:
        """Write what is left, close the file and give the lock back; safe to call again."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        if self._thread.is_alive():
            await anyio.to_thread.run_sync(self._thread.join)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError(
                f"the journal {self.path} is closed; nothing more can be asked of it or written"
            )
        if not self._thread.is_alive():
            raise JournalError(f"the journal {self.path} is closed")

    # The thread.

    def _write_on(self) -> None:
        running, busy = True, False
        while running:
            items = [self._queue.get()]
            if busy:
                # Each commit costs some half a millisecond of CPU: under load, let more come together.
                time.sleep(_LINGER)
            while not self._queue.empty():
                items.append(self._queue.get())
            running, busy = None not in items, len(items) >= _BUSY
            writes = [item for item in items if isinstance(item, _Write)]
            error = self._commit(writes)
            answers: list[Callable[[], None]] = [
                partial(_resolve, write.done, error) for write in writes if write.done is not None
            ]
            answers += [self._answer(item) for item in items if isinstance(item, _Read)]
            self._tell(answers)
        self._close_files()

    def _close_files(self) -> None:
        self._reader.close()
        try:
            if self.failure is None:
                self._storage.set_meta({"clean": "yes" if self.clean else "no"})
        except JournalError as error:
            self.failure = error
        finally:
            self._storage.close()
            self._lock.release()

    def _commit(self, writes: list[_Write]) -> JournalError | None:
        if not writes:
            return None
        if self.failure is None:
            try:
                crash_point("before-commit")
                # Of a job that moved more than once only the last state is ever seen, since all are committed at once.
                self._storage.write({write.record.key: write.record for write in writes}.values())
                self.commits += 1
                for write in writes:
                    crash_point(write.record.state.value)
            except JournalError as error:
                # Later records may build on these, so nothing more is written: what is on the disk stays true.
                self.failure = error
        return self.failure

    def _answer(self, read: _Read) -> Callable[[], None]:
        try:
            value = read.query(self._storage)
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            return partial(_resolve, read.done, error)
        return partial(_resolve, read.done, None, value)

    def _tell(self, answers: list[Callable[[], None]]) -> None:
        if answers:
            # One wake-up of the loop for the whole group; nobody waits in a loop that is closed.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_call_all, answers)


def _call_all(answers: list[Callable[[], None]]) -> None:
    for answer in answers:
        answer()


def _resolve(done: asyncio.Future[object] | None, error: Exception | None, value: object = None) -> None:
    if done is None or done.done():
        return  # nobody asked, or whoever did was cancelled
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(value)


_Parts: TypeAlias = "tuple[str, bool, bool, bool, bool, str | None, Storage, Storage, OwnerLock]"


@define(eq=False)
class _Opening:
    """The opening of a journal in a thread, which can be taken back when nobody waits for it any more."""

    abandoned: bool = False
    _parts: _Parts | None = None
    _lock: threading.Lock = field(factory=threading.Lock)

    def run(self, path: Path, begin: dict[str, str], instead_of: Callable[[Path], None] | None) -> _Parts:
        """Open the files; blocks."""
        with self._lock:
            self._parts = _open(path, begin, instead_of)
            parts = self._parts
        if self.abandoned:
            self.undo()
        return parts

    def undo(self) -> None:
        """Close what was opened, once that is known; blocks, and is safe to call again."""
        with self._lock:
            if self._parts is not None:
                *_, storage, reader, lock = self._parts
                self._parts = None
                reader.close()
                storage.close()
                lock.release()


def _open(path: Path, begin: dict[str, str], instead_of: Callable[[Path], None] | None) -> _Parts:
    """Return what a `Journal` is made of; *begin* is what a new one is to say of its run."""
    # Beside the file itself, which can have more than one name.
    real = path.resolve()
    lock = OwnerLock(real.with_name(f"{real.name}.lock"), f"the journal {path}")
    with ExitStack() as undo:
        try:
            make_folder(path.parent)
            lock.take()
            undo.callback(lock.release)
            if instead_of is not None:
                instead_of(path)
        except OSError as error:
            raise trouble(path, error) from error
        storage = Storage.open(path)
        undo.callback(storage.close)
        found = storage.meta()
        is_new = "run" not in found
        meta = {"clean": "no", "rebuilt": "no"} | (begin if is_new else {}) | found
        storage.set_meta(meta | {"clean": "no"})
        reader = storage.again()
        undo.pop_all()
    rebuilt = meta["rebuilt"]
    return (
        meta["run"],
        is_new,
        meta["clean"] == "yes",
        rebuilt != "no",
        rebuilt == "lost",
        meta.get("pictures"),
        storage,
        reader,
        lock,
    )
