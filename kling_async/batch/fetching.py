"""
Pictures of a run fetched again: those never saved, missing or damaged, as long as the service has them.

Nothing is submitted and nothing costs anything. Tasks that still run are left to the next run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from kling_async.batch.entries import Entry
from kling_async.batch.harvest import Crop, Harvest, failed, in_words
from kling_async.batch.keys import KeyTable
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Failed, Outcome, Succeeded
from kling_async.batch.owners import Owner
from kling_async.batch.sinks import Folder
from kling_async.client.link import Link
from kling_async.client.queries import Queries
from kling_async.client.results import Keeper
from kling_async.errors import ApiError, ConfigError, DownloadError, KlingError, LinkExpired
from kling_async.journal.journal import Journal
from kling_async.journal.ledger import Ledger
from kling_async.journal.storage import Storage
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.lifecycle import LIVE, JobRecord, JobState
from kling_async.protocol.naming import folded
from kling_async.protocol.parts import Made, is_part, join
from kling_async.protocol.pictures import Fitted
from kling_async.protocol.tasks import ResultImage, Task
from kling_async.transport.shelves import SavedFile

__all__ = ["Fetched", "fetch"]

_PAGE = 500
_AT_ONCE = 16


@frozen(kw_only=True)
class Fetched:
    """
    What `Kling.fetch()` found: pictures that were there and *whole*, and the names of those *fetched*.

    *failed* are the jobs with pictures that could not be had, *unfinished* counts jobs whose tasks were not seen to end,
    which the next run takes up.
    """

    whole: int
    fetched: tuple[str, ...]
    failed: tuple[Failed, ...]
    unfinished: int


async def fetch(queries: Queries, options: BatchOptions) -> Fetched:
    """
    Look through the run of *options* and fetch what is missing of it.

    Damaged files are moved to `earlier/`. Raises `JournalError` while a run holds the journal, `ConfigError` where there is
    none, and the `DownloadError` of a disk that takes no more.
    """
    folder, path = Folder.at(options), options.journal_path
    if folder is None or path is None or not path.exists():
        raise ConfigError(f"expected a journal at {path}, found none; name the folder of a run")
    queries.engine.enter()
    try:
        await folder.open(path)
        journal = await folder.open_journal(path)
        try:
            await Owner(queries, journal, folder).check_memory()
            await folder.mend(journal)
            return await _Fetch(queries, journal, folder).run()
        finally:
            await journal.aclose()
    finally:
        folder.close()


@define(eq=False)
class _Fetch:
    _queries: Queries
    _journal: Journal
    _folder: Folder
    _harvest: Harvest = field(init=False)
    _keys: KeyTable = field(factory=KeyTable, init=False)
    _whole: int = field(default=0, init=False)
    _unfinished: int = field(default=0, init=False)
    _fetched: list[str] = field(factory=list, init=False)
    _failed: list[Failed] = field(factory=list, init=False)
    _blocked: DownloadError | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._harvest = Harvest(self._folder, self._deliver, self._block)
        self._harvest.journal = self._journal

    async def run(self) -> Fetched:
        try:
            async with anyio.create_task_group() as group:
                self._harvest.start(group)
                await self._look_at_all()
                self._harvest.close()
        finally:
            self._harvest.abandon()
        if self._blocked is not None:
            raise self._blocked
        return Fetched(
            whole=self._whole,
            fetched=tuple(sorted(self._fetched)),
            failed=tuple(self._failed),
            unfinished=self._unfinished,
        )

    async def _look_at_all(self) -> None:
        limiter = anyio.Semaphore(_AT_ONCE)
        last = ""
        async with anyio.create_task_group() as group:
            while records := await self._journal.ask(partial(Storage.page, after=last, count=_PAGE)):
                for record in records:
                    if not is_part(record.key) and self._blocked is None:
                        await limiter.acquire()
                        group.start_soon(self._look_at, record, limiter)
                last = records[-1].key

    async def _look_at(self, record: JobRecord, limiter: anyio.Semaphore) -> None:
        try:
            if record.state is JobState.DONE:
                await self._mend(record)
            elif record.state is JobState.SUCCEEDED and record.task_id:
                await self._collect(record)
            elif record.state in LIVE:
                self._unfinished += 1
        finally:
            limiter.release()

    # What was never saved.

    async def _collect(self, record: JobRecord) -> None:
        entry = Entry(
            position=0, key=record.key, ledger=Ledger(self._journal, record, self._queries.engine.clock.wall)
        )
        entry.external_task_id, entry.attempts = record.external_task_id, record.attempt + 1
        told = (record.result or {}).get("fitted", ())
        entry.fitted = tuple(Fitted.from_json(each) for each in told)
        entry.twin = bool(self._keys.add(folded(record.key), 1))
        try:
            link = self._link(record.account)
            task = await self._queries.task(link, record.task_id)
        except KlingError as error:
            self._harvest.end(entry, failed(entry, in_words(entry, error) or error, None, record.account))
        else:
            self._harvest.bring(Crop(entry, task, link.name, self._queries.keeper(link, task)))

    def _link(self, account: str) -> Link:
        named = next((link for link in self._queries.engine.links if link.name == account), None)
        if named is None:
            raise ConfigError(
                f"its task belongs to account {account!r}, which this client lacks; fetch with it"
            )
        return named

    def _deliver(self, _: Entry, outcome: Outcome) -> None:
        if isinstance(outcome, Succeeded):
            rack = self._folder.rack
            self._fetched += [rack.name(file) for file in (*outcome.files, *outcome.watermarked)]
        elif isinstance(outcome, Failed):
            self._failed.append(outcome)

    def _block(self, error: DownloadError) -> None:
        self._blocked = self._blocked or error

    # What was saved and may be missing or damaged.

    async def _mend(self, record: JobRecord) -> None:
        row = dict(record.result or {})
        lacking = await anyio.to_thread.run_sync(self._lacking, row)
        self._whole += sum(len(row.get(kind, ())) for kind in ("files", "watermarked")) - len(lacking)
        if not lacking:
            return
        try:
            task = await self._made(row)
            again, account = partial(self._made, row), str(row.get("account") or "")
            downloads, full = self._queries.engine.downloads, self._queries.full
            keeper = Keeper(downloads, record.key, task, account, again, full)
            for kind, place in lacking:
                image, name = _image(task, place), str(row[kind][place])
                saved = await self._replace(name, image, keeper, record.key, marked=kind == "watermarked")
                self._fetched.append(self._folder.rack.name(saved.location))
        except KlingError as error:
            if isinstance(error, DownloadError) and error.local:
                self._block(error)
            self._failed.append(Failed(key=record.key, job=None, error=error, account=record.account))

    async def _made(self, row: Mapping[str, Any]) -> Task:
        """Ask for the task of a job that is done, or for its tasks if it was made as several."""
        accounts = str(row.get("account") or "").split(",")
        links = [self._link(account) for account in accounts]
        tasks = [await self._task(links, name) for name in str(row["task_id"]).split(",")]
        return tasks[0] if len(tasks) == 1 else join([Made(task, 0) for task in tasks])

    async def _task(self, links: Sequence[Link], task_id: str) -> Task:
        for link in links:
            try:
                return await self._queries.task(link, task_id)
            except ApiError as error:
                if not is_not_found(error.code, error.message):
                    raise
        raise LinkExpired(
            f"the service no longer has task {task_id} and its pictures, which it keeps for 30 days",
            gone=True,
        )

    async def _replace(
        self, name: str, image: ResultImage, keeper: Keeper, key: str, *, marked: bool
    ) -> SavedFile:
        rack = self._folder.rack
        await anyio.to_thread.run_sync(rack.set_aside, name, "damaged")
        shelf = rack.watermarked if marked else rack.images
        return await keeper.keep(image, shelf, PurePosixPath(name).stem, key=key, watermarked=marked)

    def _lacking(self, row: Mapping[str, Any]) -> list[tuple[str, int]]:
        digests = row.get("sha256") or {}
        return [
            (kind, place)
            for kind in ("files", "watermarked")
            for place, name in enumerate(row.get(kind, ()))
            if not self._folder.rack.is_whole(str(name), digests.get(name, ""))
        ]


def _image(task: Task, place: int) -> ResultImage:
    if place >= len(task.images):
        raise DownloadError(
            f"expected picture {place} of task {task.task_id}, found {len(task.images)} pictures"
        )
    return task.images[place]
