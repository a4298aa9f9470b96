"""
The driver of a batch on a cluster: it reads the jobs, knows from its journal what is done, and writes down what comes.

The journal is the same as that of a batch in one process, and either continues what the other began. Nothing here
talks to the service: a job that may have a task is handed out again, and the worker asks before it sends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
from attrs import define, evolve, field

from kling_async import errors
from kling_async.batch.entries import Entry, Input, entries, external_id
from kling_async.batch.harvest import failed
from kling_async.batch.manifest import Passed
from kling_async.batch.options import BatchOptions
from kling_async.batch.origin import Origin
from kling_async.batch.sinks import Folder, result_row
from kling_async.errors import BudgetSpent, InvalidJob, KlingError
from kling_async.journal.journal import Journal
from kling_async.journal.ledger import Ledger
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import FINISHED, JobRecord, JobState
from kling_async.scale.dask import Deliver, Take
from kling_async.scale.stage import Assignment, KlingStage

__all__ = ["Driver", "Engine"]


class Engine(Protocol):
    """Has a stage do jobs somewhere."""

    async def run(self, stage: KlingStage, take: Take, deliver: Deliver) -> None:
        """Have *stage* do what *take* brings until it brings nothing; the rows go to *deliver*."""


@define(eq=False)
class Driver:
    """
    Runs jobs on *engine* into the folder *out*; the same call continues what was cut short, by whatever.

    *stage* is given its run's name here. *budget* is the most units to commit, earlier runs included. *on_row* is told
    each row as it is written to `results.jsonl`. *counts* counts rows by status, *units* adds up what the service named.
    """

    _engine: Engine
    _stage: KlingStage
    _out: Path = field(converter=Path)
    _journal_path: Path | None = field(default=None, kw_only=True)
    _budget: int | None = field(default=None, kw_only=True)
    _on_row: Callable[[Mapping[str, Any]], None] = field(default=lambda _: None, kw_only=True)
    counts: Counter[str] = field(factory=Counter, init=False)
    units: float = field(default=0.0, init=False)
    committed: int = field(default=0, init=False)
    error: KlingError | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)
    _entries: dict[str, Entry] = field(factory=dict, init=False, repr=False)
    _source: AsyncGenerator[Entry | Passed, None] = field(init=False, repr=False)
    _journal: Journal = field(init=False, repr=False)
    _folder: Folder = field(init=False, repr=False)

    async def run(self, jobs: Iterable[Input] | AsyncIterable[Input]) -> None:
        """
        Run all *jobs* that are not done yet.

        Raises the trouble of an account or of the cluster after all that came in is written down; the run can be
        continued then.
        """
        path = self._journal_path or self._out / "journal.db"
        folder = Folder.at(BatchOptions(out=self._out, journal=self._journal_path))
        assert folder is not None, "a path is given"
        self._folder = folder
        await folder.open(path)
        self._journal = await Journal.open(path, run=folder.run_name)
        origin = Origin(self._journal.pictures, self._journal.note_pictures)
        self._source = entries(jobs, origin)
        try:
            await folder.mend(self._journal)
            self.committed = await self._journal.ask(Storage.committed_units)
            stage = evolve(
                self._stage, run=self._journal.run, out=self._stage.out or str(self._out.absolute())
            )
            await self._engine.run(stage, self._take, self._deliver)
            await folder.sync()
            self._journal.clean = True
        finally:
            await self._source.aclose()
            await self._journal.aclose()
            folder.close()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Hand out nothing more; what is under way is collected."""
        self._stopping = True

    async def _take(self, most: int) -> list[Assignment]:
        """Bring the next jobs that are to be handed out, their intents on the disk; none when there are no more."""
        taken: list[Assignment] = []
        intents: list[Ledger] = []
        while len(taken) < most and (entry := await self._next(intents)) is not None:
            assert entry.job is not None, "what is no job has an error"
            self._entries[entry.key] = entry
            taken.append(Assignment(entry.key, entry.job, entry.external_task_id))
        async with anyio.create_task_group() as group:
            for ledger in intents:
                group.start_soon(ledger.intend, "", self._entries[ledger.record.key].committed)
        return taken

    async def _next(self, intents: list[Ledger]) -> Entry | None:
        while (
            not self._stopping
            and self.error is None
            and (entry := await anext(self._source, None)) is not None
        ):
            if isinstance(entry, Passed):
                self.counts["done before"] += len(entry.keys)
                continue
            if entry.error is not None:
                await self._refuse(entry, entry.error)
                continue
            ledger = self._page(entry)
            if ledger.record.state in FINISHED:
                await self._skip(entry, ledger)
                continue
            if ledger.record.state is JobState.PENDING:
                if not self._commit(entry):
                    return None
                intents.append(ledger)
            return entry
        return None

    def _page(self, entry: Entry) -> Ledger:
        assert entry.job is not None, "what is no job has an error"
        record = self._journal.find(entry.key) or JobRecord(key=entry.key)
        if record.state is JobState.PENDING:
            entry.attempts = record.attempt
            record = record.revised(
                fingerprint=entry.fingerprint(),
                external_task_id=external_id(self._journal.run, entry),
                model=entry.job.model_name,
                slots=entry.job.slots,
                row=entry.row,
            )
        entry.external_task_id = record.external_task_id
        entry.ledger = Ledger(self._journal, record, time.time)
        return entry.ledger

    async def _skip(self, entry: Entry, ledger: Ledger) -> None:
        if ledger.record.fingerprint != entry.fingerprint():
            rule = "the same job as before under this key"
            await self._refuse(
                entry, InvalidJob.because(entry.key, rule, "another one", "give it another key")
            )
        else:
            self.counts["done before" if ledger.record.state is JobState.DONE else "failed before"] += 1

    def _commit(self, entry: Entry) -> bool:
        assert entry.job is not None, "what is no job has an error"
        total = self.committed + entry.job.units
        if self._budget is not None and total > self._budget:
            message = f"the budget is {self._budget} units and the next job would commit {total}; raise it to continue"
            self.error = BudgetSpent(message, self._budget, self.committed)
            return False
        self.committed = total
        entry.committed = entry.job.units
        return True

    async def _refuse(self, entry: Entry, error: KlingError) -> None:
        row = result_row(failed(entry, error, None, ""), None, datetime.now(UTC))
        await self._write([row])

    async def _deliver(self, ended: Sequence[tuple[Assignment, dict[str, Any]]]) -> None:
        """Write down what became of jobs: their states, and when those are on the disk, their lines."""
        rows = [row for job, row in ended if self._record(job, row)]
        if rows:
            await self._journal.flush()
            await self._write(rows)

    def _record(self, job: Assignment, row: dict[str, Any]) -> bool:
        """Note the end of *job* on its page; False if it has not ended for good."""
        entry = self._entries.pop(job.key)
        ledger = entry.ledger
        assert ledger is not None, "what was handed out has a page"
        final, stops = row.pop("final"), row.pop("stops")
        if stops:
            # What is under way is collected; the rest stays undone.
            self.error = self.error or _error_of(row["error"])
        if final:
            _end(ledger, row)
        else:
            self.counts["unfinished"] += 1
            self._on_row(row)
        return bool(final)

    async def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        await self._folder.write(rows)
        for row in rows:
            self.counts[row["status"]] += 1
            self.units += row["units"] or 0.0
            self._on_row(row)


def _error_of(found: Mapping[str, Any]) -> KlingError:
    """Return the error that a worker has put into a row."""
    kind: Any = getattr(errors, found["type"], KlingError)
    simple = not issubclass(kind, errors.ApiError | errors.ConfigError)
    code = (found["code"] or 0,) if issubclass(kind, errors.ApiError) else ()
    error: KlingError = KlingError(found["message"]) if simple else kind(found["message"], *code)
    return error


def _end(ledger: Ledger, row: Mapping[str, Any]) -> None:
    """Move the page of a job to its end."""
    if row["task_id"] is None:
        ledger.free()
        ledger.failed(row)
        return
    if ledger.record.state in {JobState.SUBMITTING, JobState.UNKNOWN}:
        ledger.made(row["task_id"], row["account"] or "", ledger.record.units)
    if row["status"] == "succeeded":
        ledger.done(row)
    else:
        ledger.failed(row)
