"""
The second half of a batch: from a task that succeeded to an outcome that can be taken.

Savers fetch pictures, some jobs at once and apart from the slots; the scribe writes the lines of all that finished
meanwhile in one go. An outcome goes out only when its line is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field, frozen

from kling_async._crash import crash_point
from kling_async.batch.entries import Entry
from kling_async.batch.outcomes import Failed, Outcome, Succeeded
from kling_async.batch.sinks import Folder, result_row
from kling_async.client.results import Keeper, gone
from kling_async.errors import ApiError, DownloadError, KlingError, LinkExpired
from kling_async.journal.journal import Journal
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.lifecycle import JobRecord, JobState, is_final, is_lost
from kling_async.protocol.tasks import ResultImage, Task
from kling_async.protocol.verdict import Verdict, judge
from kling_async.transport.shelves import SavedFile, Shelf

__all__ = ["Crop", "Harvest", "failed", "in_words"]

_log = logging.getLogger("kling_async")

_SAVERS = 16
# When the journal cannot be written the scribe ends the batch with that error, and nobody else has anything to add.
_SCRIBE_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)


@frozen
class Crop:
    """A task that succeeded, with what fetches its pictures."""

    entry: Entry
    task: Task
    account: str
    keeper: Keeper


_Crops: TypeAlias = tuple[MemoryObjectSendStream[Crop], MemoryObjectReceiveStream[Crop]]
_Ends: TypeAlias = tuple[
    MemoryObjectSendStream[tuple[Entry, Outcome]], MemoryObjectReceiveStream[tuple[Entry, Outcome]]
]

_Stream: TypeAlias = (
    MemoryObjectSendStream[Crop]
    | MemoryObjectReceiveStream[Crop]
    | MemoryObjectSendStream[tuple[Entry, Outcome]]
    | MemoryObjectReceiveStream[tuple[Entry, Outcome]]
)


@define(eq=False)
class Harvest:
    """
    Brings in what a batch's tasks made; *folder* None keeps no pictures and writes no lines, *journal* None no states.

    When the disk or the folder fails no more downloads are begun: what they would have brought stays where it is, for the
    next run.
    *deliver* is called once for each job, in the end. The streams are unbounded, because the runner bounds how many
    jobs are on their way.
    """

    _folder: Folder | None
    _deliver: Callable[[Entry, Outcome], None]
    # Called once, with what keeps every picture from being saved.
    _halt: Callable[[DownloadError], None]
    _blocked: DownloadError | None = field(default=None, init=False, repr=False)
    journal: Journal | None = field(default=None, init=False, repr=False)
    _crops: _Crops = field(init=False, repr=False)
    _ends: _Ends = field(init=False, repr=False)
    # What must be closed in the end; empty before `start()`, so that a batch never begun has nothing to close.
    _streams: list[_Stream] = field(factory=list, init=False, repr=False)

    def start(self, group: TaskGroup) -> None:
        """Start savers and scribe in *group*; they end after `close()`."""
        self._crops = anyio.create_memory_object_stream[Crop](float("inf"))
        self._ends = anyio.create_memory_object_stream[tuple[Entry, Outcome]](float("inf"))
        self._streams += [*self._crops, *self._ends]
        group.start_soon(self._write_lines)
        for _ in range(_SAVERS):
            crops, ends = self._crops[1].clone(), self._ends[0].clone()
            # Also theirs: who is cancelled before the first step closes nothing.
            self._streams += [crops, ends]
            group.start_soon(self._save_all, crops, ends)

    def bring(self, crop: Crop) -> None:
        """Take in a task that succeeded."""
        if self._folder is None:
            # Nothing is to be saved, so the job is done at once.
            self.end(crop.entry, _succeeded(crop, ()))
        else:
            ledger = crop.entry.ledger
            if ledger is not None and ledger.record.state is JobState.SUBMITTED:
                ledger.succeeded()
            with suppress(*_SCRIBE_GONE):
                self._crops[0].send_nowait(crop)

    def end(self, entry: Entry, outcome: Outcome) -> None:
        """Take in how a job ended that has no pictures to be saved."""
        if self._folder is None and self.journal is None:
            self._deliver(entry, outcome)
        else:
            with suppress(*_SCRIBE_GONE):
                self._ends[0].send_nowait((entry, outcome))

    def close(self) -> None:
        """Let savers and scribe end once all is brought in; safe to call again."""
        for stream in (*self._crops, self._ends[0]):
            stream.close()

    def abandon(self) -> None:
        """Close everything as it is."""
        for stream in self._streams:
            stream.close()

    async def _save_all(
        self,
        crops: MemoryObjectReceiveStream[Crop],
        ends: MemoryObjectSendStream[tuple[Entry, Outcome]],
    ) -> None:
        async with crops, ends:
            async for crop in crops:
                outcome = await self._save(crop)
                with suppress(*_SCRIBE_GONE):
                    ends.send_nowait((crop.entry, outcome))

    async def _save(self, crop: Crop) -> Outcome:
        try:
            if self._blocked is not None:
                raise DownloadError(f"not fetched, since {self._blocked}", local=True)
            return await self._save_images(crop)
        except DownloadError as error:
            if error.local and self._blocked is None:
                self._blocked = error
                self._halt(error)
            return failed(crop.entry, _aged(error, crop.task), crop.task, crop.account)
        except KlingError as error:
            return failed(crop.entry, error, crop.task, crop.account)

    async def _save_images(self, crop: Crop) -> Succeeded:
        assert self._folder is not None, "without a folder nothing is saved"
        rack = self._folder.rack
        files, watermarked, warnings = [], [], []
        asked = crop.entry.job is not None and crop.entry.job.watermark is True
        for image in crop.task.images:
            files.append(await self._keep(crop, image, rack.images))
            if image.watermark_url:
                watermarked.append(await self._keep(crop, image, rack.watermarked, watermarked=True))
            elif asked:
                warnings.append(f"picture {image.index} came without its watermarked version")
        for warning in warnings:
            _log.warning("job %s: %s", crop.entry.key, warning)
        return _succeeded(crop, tuple(files), tuple(watermarked), tuple(warnings))

    async def _keep(
        self, crop: Crop, image: ResultImage, shelf: Shelf, *, watermarked: bool = False
    ) -> SavedFile:
        assert self._folder is not None, "without a folder nothing is saved"
        stem = self._folder.stem(crop.entry, image.index)
        return await crop.keeper.keep(image, shelf, stem, key=crop.entry.key, watermarked=watermarked)

    async def _write_lines(self) -> None:
        async with self._ends[1] as ends:
            async for first in ends:
                batch = [first, *_all_of(ends)]
                await self._write_down(batch)
                for entry, outcome in batch:
                    self._deliver(entry, outcome)
        if self._folder is not None:
            await self._folder.sync()
            if self.journal is not None:
                self.journal.clean = True

    async def _write_down(self, batch: list[tuple[Entry, Outcome]]) -> None:
        """Write the states of what ended, and when those are on the disk, the lines."""
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        # Rows that no journal knows of may have been written down before.
        once = self.journal is not None and self.journal.rebuilt
        for entry, outcome in batch:
            row = result_row(outcome, self._folder.path if self._folder else None, now)
            if self.journal is None or _record_end(entry, outcome, row):
                rows.append(row)
                once = once or entry.ledger is None
        if self.journal is not None:
            await self.journal.flush()
        crash_point("after-done")
        if self._folder is not None and rows:
            await self._folder.write(rows, once=once)


def _record_end(entry: Entry, outcome: Outcome, row: dict[str, Any]) -> bool:
    """
    Note the end of *entry* on its page; False if it is not to be written down.

    That is so when its life goes on, for example because its task still runs, and when its key is that of another job.
    """
    ledger = entry.ledger
    if ledger is None:
        return entry.job is None
    if isinstance(outcome, Succeeded):
        _close_parts(entry, row)
        ledger.done(row)
        return True
    assert isinstance(outcome, Failed), "what was skipped is not brought in"
    if not _is_over(ledger.record, outcome.error):
        return False
    _close_parts(entry, row)
    ledger.failed(row, lost=is_lost(outcome.error))
    return True


def _is_over(record: JobRecord, error: KlingError) -> bool:
    # A job in parts is under way before the first of them is accepted, and may be refused then.
    refused = record.divided and judge(error) in {Verdict.REJECTED, Verdict.DUPLICATE}
    return refused or is_final(record.state, error)


def _close_parts(entry: Entry, row: dict[str, Any]) -> None:
    # Before the job itself, so that a crash in between leaves no part open that nobody takes up.
    for part in entry.parts:
        if part.ledger is not None and part.ledger.record.state is JobState.SUCCEEDED:
            part.ledger.done({"key": row["key"], "task_id": part.ledger.record.task_id, "part": part.number})


def _all_of(
    stream: MemoryObjectReceiveStream[tuple[Entry, Outcome]],
) -> list[tuple[Entry, Outcome]]:
    found = []
    # Asking how many there are costs more than taking one.
    with suppress(anyio.WouldBlock, anyio.EndOfStream):
        while True:
            found.append(stream.receive_nowait())
    return found


def _aged(error: DownloadError, task: Task) -> DownloadError:
    """Return *error*, as one that nothing heals if the time is over for which the service keeps the pictures of *task*."""
    until = task.kept_until
    if isinstance(error, LinkExpired) and not error.gone and until is not None and until < datetime.now(UTC):
        reason = f"the service kept the pictures until {until:%Y-%m-%d}"
        return LinkExpired(f"{reason}; 'retry' makes them anew, at their full price", error.url, gone=True)
    return error


def in_words(entry: Entry, error: KlingError | None) -> KlingError | None:
    """Return *error*, which a look at the task of *entry* ended with, as what it means for a job that had succeeded."""
    succeeded = entry.ledger is not None and entry.ledger.record.state is JobState.SUCCEEDED
    if succeeded and isinstance(error, ApiError) and is_not_found(error.code, error.message):
        return gone(error)
    return error


def _succeeded(
    crop: Crop,
    files: tuple[SavedFile, ...],
    watermarked: tuple[SavedFile, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Succeeded:
    return Succeeded(
        key=crop.entry.key,
        job=crop.entry.job,
        task=crop.task,
        files=tuple(saved.location for saved in files),
        watermarked=tuple(saved.location for saved in watermarked),
        sha256={saved.location: saved.sha256 for saved in (*files, *watermarked)},
        warnings=warnings,
        units=crop.task.units,
        attempts=crop.entry.attempts,
        account=crop.account,
        external_task_id=crop.entry.external_task_id,
        parts=crop.entry.tasks,
        fitted=crop.entry.fitted,
    )


def failed(entry: Entry, error: KlingError, task: Task | None, account: str) -> Failed:
    """Return the outcome of *entry* that ended with *error*."""
    return Failed(
        key=entry.key,
        job=entry.job,
        error=error,
        task=task,
        attempts=entry.attempts,
        account=account,
        external_task_id=entry.external_task_id,
        parts=entry.tasks,
        fitted=entry.fitted,
    )
