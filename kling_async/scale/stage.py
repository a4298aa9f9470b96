"""
One job at a time, on whatever engine: a value that can be pickled, holds no secret, and never raises.

What it needs is opened once for each process (and event loop) that runs jobs: a client with credentials from that
process's environment, and the store that shares the slots.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio
from attrs import define, evolve, field, frozen

from kling_async.batch.entries import Entry, external_id
from kling_async.batch.harvest import failed
from kling_async.batch.manifest import key_of
from kling_async.batch.outcomes import Outcome, Succeeded
from kling_async.batch.racks import IMAGES
from kling_async.batch.sinks import result_row
from kling_async.client.kling import Kling
from kling_async.client.multi_image import prepare
from kling_async.errors import ConfigError, KlingError, SubmissionUnknown, TaskTimeout
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import JobState, is_final
from kling_async.protocol.naming import file_stem
from kling_async.protocol.rows import job_from_row
from kling_async.protocol.tasks import Task
from kling_async.protocol.verdict import Verdict, judge
from kling_async.slots import RedisSlots, SlotStore, SqliteSlots, Terms
from kling_async.transport.files import FolderShelf
from kling_async.transport.shelves import SavedFile

__all__ = ["Assignment", "KlingStage"]

_log = logging.getLogger("kling_async")

_STORE = "KLING_SLOTS_STORE"


@frozen
class Assignment:
    """A job on its way to a worker, with the external id that it has in every execution."""

    key: str
    job: MultiImage = field(repr=False)
    external_task_id: str


def _no_secret(_: object, __: object, value: str | None) -> None:
    if value is not None and urlsplit(value).password:
        raise ConfigError(
            f"slots_store: expected an address without a password, found one with; set {_STORE} for the workers instead"
        )


@frozen(kw_only=True)
class KlingStage:
    """
    Makes the task of one job, waits for it and saves its pictures.

    *run* names the run: with the same name the same job under the same key is the same task, however often and wherever
    it is executed. *slots_store* is `redis://…` or `sqlite:PATH` without a password; by default what the workers'
    environment names as KLING_SLOTS_STORE. *limit* is how many slots the account has. Pictures are saved under *out* as
    the workers see it, or not at all. *base* is the folder that relative pictures of plain rows are in.
    """

    run_name: str = field(alias="run")
    slots_store: str | None = field(default=None, validator=_no_secret)
    limit: int | None = None
    terms: Terms = field(factory=Terms)
    base_url: str | None = None
    region: Literal["global", "cn"] | None = None
    out: str | None = None
    base: str | None = None
    timeouts: Timeouts = field(factory=Timeouts)
    min_poll_interval: float = 0.5
    task_timeout: float = 1800.0
    stall_after: float = 600.0

    async def run(self, job: Assignment | MultiImage | Mapping[str, object]) -> dict[str, Any]:
        """
        Do *job* (a row of a manifest, too) and return its row, as it stands in `results.jsonl`.

        Never raises. `final` tells whether doing it again can change nothing, `stops` that no other job can be done
        either until somebody acts. A job whose slots are all in use waits for its turn.
        """
        entry = Entry(position=0, key=_key(job))
        try:
            outcome = await self._outcome(job, entry)
        except Exception as error:  # noqa: BLE001  # a defect in one job is that job's row, not the engine's
            _log.exception("job %s", entry.key)
            trouble = KlingError(f"unexpected {type(error).__name__}: {error}")
            return self._row(failed(entry, trouble, None, ""))
        return self._row(outcome)

    async def _outcome(self, job: Assignment | MultiImage | Mapping[str, object], entry: Entry) -> Outcome:
        task: Task | None = None
        account = ""
        try:
            self._read(job, entry)
            kling = await _opened(self)
            assert entry.job is not None, "a row that is no job has raised"
            queries = kling._queries(MultiImage.path)  # noqa: SLF001
            order = await prepare(queries, entry.job, entry.external_task_id, key=entry.key)
            rules = evolve(queries.rules, persistent=True, stall_after=self.stall_after)
            link, row = await queries.engine.submit(evolve(order, adopt=True, look=True), rules)
            account, entry.attempts = link.name, 1
            with anyio.move_on_after(self.task_timeout):
                await row.wait()
            task = row.task
            if not row.over:
                return failed(entry, _too_long(row.ask_for, self.task_timeout), task, account)
            if row.error is not None:
                raise row.error
            assert task is not None, "what is over without error has a task"
            files = await self._save(task.unwrap(), entry, kling)
        except KlingError as error:
            return failed(entry, error, task, account)
        return Succeeded(
            key=entry.key,
            job=entry.job,
            task=task,
            files=tuple(saved.location for saved in files),
            sha256={saved.location: saved.sha256 for saved in files},
            units=task.units,
            attempts=1,
            account=account,
            external_task_id=entry.external_task_id,
        )

    def _read(self, job: Assignment | MultiImage | Mapping[str, object], entry: Entry) -> None:
        if isinstance(job, Assignment):
            entry.job, entry.external_task_id = job.job, job.external_task_id
            return
        if isinstance(job, MultiImage):
            entry.job = job
        else:
            fields = {name: value for name, value in job.items() if name not in {"key", "id"}}
            entry.job = job_from_row(fields, Path(self.base) if self.base else None)
        entry.key = entry.key or entry.fingerprint()[:16]
        entry.external_task_id = external_id(self.run_name, entry)

    async def _save(self, task: Task, entry: Entry, kling: Kling) -> tuple[SavedFile, ...]:
        if self.out is None:
            return ()
        queries = kling._queries(MultiImage.path)  # noqa: SLF001
        keeper = queries.keeper(queries.engine.links[0], task)
        shelf = FolderShelf(Path(self.out) / IMAGES)
        saved = []
        for image in task.images:
            stem = file_stem("{key}_{index}", entry.key, image.index)
            saved.append(await keeper.keep(image, shelf, stem, key=entry.key))
        return tuple(saved)

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        root = Path(self.out) if self.out else None
        row = result_row(outcome, root, datetime.now(UTC))
        error = getattr(outcome, "error", None)
        if error is None:
            return row | {"final": True, "stops": False}
        made = row["task_id"] is not None and not isinstance(error, SubmissionUnknown)
        state = JobState.SUBMITTED if made else JobState.PENDING
        return row | {"final": is_final(state, error), "stops": judge(error) is Verdict.ACCOUNT_STOP}

    def store(self) -> SlotStore:
        """Make the store that shares the slots; raises `ConfigError` if none is named."""
        address = self.slots_store or os.environ.get(_STORE)
        if not address:
            raise ConfigError(
                f"expected a store that shares the slots between workers, found none; give slots_store or set {_STORE}"
            )
        if address.startswith("sqlite:"):
            return SqliteSlots(Path(address.removeprefix("sqlite:")), self.limit, terms=self.terms)
        return RedisSlots(address, self.limit, terms=self.terms)

    async def aclose(self) -> None:
        """Close what this process has opened for the stage on this event loop; the next job opens it again."""
        workplace = _WORKPLACES.pop((asyncio.get_running_loop(), self), None)
        if workplace is not None and workplace.kling is not None:
            await workplace.kling.aclose()


@define(eq=False)
class _Workplace:
    """What one process has open for one stage."""

    lock: asyncio.Lock = field(factory=asyncio.Lock)
    kling: Kling | None = None


_WORKPLACES: dict[tuple[asyncio.AbstractEventLoop, KlingStage], _Workplace] = {}


async def _opened(stage: KlingStage) -> Kling:
    workplace = _WORKPLACES.setdefault((asyncio.get_running_loop(), stage), _Workplace())
    async with workplace.lock:
        if workplace.kling is None:
            workplace.kling = Kling(
                base_url=stage.base_url,
                region=stage.region,
                slots=stage.store(),
                timeout=stage.timeouts,
                min_poll_interval=stage.min_poll_interval,
            )
        return workplace.kling


def _key(job: Assignment | MultiImage | Mapping[str, object]) -> str:
    if isinstance(job, Assignment | MultiImage):
        return job.key or ""
    try:
        return key_of(dict(job))
    except (KlingError, TypeError, ValueError):
        return ""  # what is wrong with it is said when it is read


def _too_long(name: str, limit: float) -> TaskTimeout:
    return TaskTimeout(f"task {name} had not ended after {limit:g} s; it goes on and will be charged", name)
