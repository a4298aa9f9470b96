"""
What can be done with a run between runs: see where it stands, try failed jobs again, rebuild a lost journal.

Nothing here submits anything.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
from attrs import define, frozen

from kling_async.batch.entries import Entry, Input, entries, external_id
from kling_async.batch.manifest import Passed
from kling_async.batch.options import BatchOptions
from kling_async.batch.origin import Origin
from kling_async.batch.owners import meet
from kling_async.batch.reopening import failure_code, reopen
from kling_async.batch.sinks import Folder
from kling_async.batch.splitting import divide
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.queries import Queries
from kling_async.errors import ConfigError
from kling_async.journal.journal import Journal
from kling_async.journal.ledger import Ledger
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import LIVE, JobRecord, JobState
from kling_async.protocol.parts import is_part
from kling_async.protocol.requests import LARGEST_PAGE, LAST_PAGE
from kling_async.protocol.tasks import RESULTS_KEPT, Task

__all__ = ["Rebuilt", "Status", "forget_running", "read_status", "rebuild", "retry_failed"]


@frozen(kw_only=True)
class Status:
    """
    Where a run stands, by its journal.

    *totals* counts jobs by state, *failures* by error code (or the error's name), *units* adds up what is committed.
    *unsaved* counts jobs whose pictures are, or may be, ready and not saved yet, and *expires_at* is when the service
    deletes the oldest of those.
    """

    run: str
    totals: Mapping[JobState, int]
    failures: Mapping[str, int]
    units: int
    unsaved: int
    expires_at: datetime | None

    def days_left(self, now: datetime) -> float | None:
        """Return in how many days the service deletes what is not saved; below zero if it has, None if all is saved."""
        return None if self.expires_at is None else (self.expires_at - now).total_seconds() / 86_400

    @property
    def unfinished(self) -> int:
        """Jobs that a further run takes up."""
        ends = {JobState.DONE, JobState.FAILED, JobState.LOST}
        return sum(count for state, count in self.totals.items() if state not in ends)


async def read_status(journal: Path) -> Status:
    """Read where a run stands, also while it runs; raises `JournalError` for a damaged journal, `ConfigError` for none."""
    return await anyio.to_thread.run_sync(_read_status, journal)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ConfigError(f"expected a journal at {path}, found none; name the folder of a run")
    return path


def _read_status(path: Path) -> Status:
    storage = Storage.read_only(_existing(path))
    try:
        failures: dict[str, int] = {}
        totals: dict[JobState, int] = {}
        oldest: float | None = None
        unsaved = 0
        for record in storage.all():
            if is_part(record.key):
                continue  # the job's own page sums up
            totals[record.state] = totals.get(record.state, 0) + 1
            if record.state in {JobState.FAILED, JobState.LOST}:
                name = failure_code(record)
                failures[name] = failures.get(name, 0) + 1
            # A task that was running when somebody last looked may have ended soon after.
            ready = {JobState.SUCCEEDED: record.ended_at, JobState.SUBMITTED: record.submitted_at}
            since = ready.get(record.state)
            unsaved += record.state in ready
            oldest = since if oldest is None or (since is not None and since < oldest) else oldest
        return Status(
            run=storage.meta().get("run", ""),
            totals=totals,
            failures=failures,
            units=storage.committed_units(),
            unsaved=unsaved,
            expires_at=None if oldest is None else datetime.fromtimestamp(oldest, UTC) + RESULTS_KEPT,
        )
    finally:
        storage.close()


async def retry_failed(journal: Path, *, codes: Collection[str] = ()) -> int:
    """
    Let the next run try failed jobs again, each as a new attempt with a new external id; returns how many.

    *codes* chooses those that failed with one of these codes or kinds of error. A job whose pictures are lost counts as
    failed. Nothing else is touched.
    """
    return await _reopen(journal, {JobState.FAILED, JobState.LOST}, codes)


async def forget_running(journal: Path) -> int:
    """
    Let the next run begin again with jobs that are under way; returns how many.

    Only for tasks that cannot be there any more and cost nothing, as those of an emulator that was ended.
    """
    return await _reopen(journal, LIVE, ())


async def _reopen(path: Path, states: Collection[JobState], codes: Collection[str]) -> int:
    journal = await Journal.open(_existing(path))
    try:
        return await reopen(journal, states, codes)
    finally:
        await journal.aclose()


@frozen(kw_only=True)
class Rebuilt:
    """
    What `Kling.recover()` found: how many jobs of the run have a task (*found*), and how many have none (*absent*).

    *old_journal* is where the old one lies now, None if there was none.
    """

    found: int
    absent: int
    old_journal: Path | None


async def rebuild(
    engine: Engine, queries: Queries, jobs: Iterable[Input] | AsyncIterable[Input], options: BatchOptions
) -> Rebuilt:
    """
    Build the journal of the run of *options* anew from its jobs and what the service has of them.

    The old journal, if there is one, is moved aside, never changed. Every task of the run is found by its external id,
    which names run, key and content. Rows without a task are left pending: only a later run submits them, each after
    asking for it.
    """
    engine.enter()
    folder, path = Folder.at(options), options.journal_path
    assert folder is not None, "recovery is of what a run has kept"
    assert path is not None, "what is kept has a journal"
    try:
        await folder.open()
        if folder.service is not None:
            folder.service.check_memory(await meet(folder.service, queries), str(folder.path))
        return await _rebuild(queries, jobs, folder, path)
    finally:
        folder.close()


async def _rebuild(
    queries: Queries, jobs: Iterable[Input] | AsyncIterable[Input], folder: Folder, path: Path
) -> Rebuilt:
    aside = _Aside()
    journal = await folder.open_journal(path, instead_of=aside)
    try:
        # A list can miss tasks, and this can be cut short, so the next run asks for each row that seems to have no task
        # before it is sent; and it looks through the folder.
        await journal.mark_rebuilt()
        journal.clean = False
        tasks = await _all_tasks(queries)
        found = absent = 0
        async for entry in entries(jobs, Origin(journal.pictures, journal.note_pictures)):
            if isinstance(entry, Passed) or entry.job is None:
                continue
            if _found(entry, journal, tasks) or _found_in_parts(entry, journal, tasks):
                found += 1
            else:
                absent += 1
                journal.note(_record(entry, journal.run).moved(JobState.PENDING))
        await journal.flush()
    finally:
        await journal.aclose()
    return Rebuilt(found=found, absent=absent, old_journal=aside.old)


def _found(entry: Entry, journal: Journal, tasks: Mapping[str, tuple[Link, Task]]) -> bool:
    """Open the page of *entry* with its task, if it has one."""
    match = _last_attempt(entry, journal.run, tasks)
    if match is None:
        return False
    assert entry.job is not None, "rows that are no job were passed over"
    entry.ledger = Ledger(journal, _record(entry, journal.run), time.time)
    entry.ledger.made(match[1].task_id, match[0].name, entry.job.units)
    return True


def _found_in_parts(entry: Entry, journal: Journal, tasks: Mapping[str, tuple[Link, Task]]) -> bool:
    """Open the pages of *entry* and its parts, if it was divided."""
    assert entry.job is not None, "rows that are no job were passed over"
    for count in range(1, entry.job.n + 1):
        if [part for part in divide(entry, count) if _found(part, journal, tasks)]:
            Ledger(journal, _record(entry, journal.run), time.time).divide()
            return True
    return False


def _last_attempt(entry: Entry, run: str, tasks: Mapping[str, tuple[Link, Task]]) -> tuple[Link, Task] | None:
    """Find the task of the entry's newest attempt, and count its attempts."""
    match = None
    while (found := tasks.get(external_id(run, entry))) is not None:
        match = found
        entry.attempts += 1
    entry.attempts -= match is not None
    return match


def _record(entry: Entry, run: str) -> JobRecord:
    assert entry.job is not None, "rows that are no job were passed over"
    return JobRecord(
        key=entry.key,
        fingerprint=entry.job.fingerprint(),
        attempt=entry.attempts,
        external_task_id=external_id(run, entry),
        model=entry.job.model_name,
        slots=entry.job.slots,
        row=entry.row,
    )


@define
class _Aside:
    """Moves a journal aside, and keeps where it is then: *old*."""

    old: Path | None = None

    def __call__(self, path: Path) -> None:
        if not path.exists():
            return
        name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        names = (f"{name}-{number}" if number else name for number in itertools.count())
        self.old = old = next(each for each in map(path.with_name, names) if not each.exists())
        # The file itself first: without what belongs to it, it would look like a sound journal of an earlier moment.
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(old.with_name(old.name + suffix))


async def _all_tasks(queries: Queries) -> dict[str, tuple[Link, Task]]:
    """Read the list of every account: far fewer requests than one look-up for each row."""
    tasks: dict[str, tuple[Link, Task]] = {}
    for link in queries.engine.links:
        for page in range(1, LAST_PAGE + 1):
            envelope = await queries.page(link, page, LARGEST_PAGE)
            for task in queries.read_page(link, envelope):
                if task.external_task_id:
                    tasks.setdefault(task.external_task_id, (link, task))
            if len(envelope.data or ()) < LARGEST_PAGE:
                break
    return tasks
