"""
Jobs that were promised to somebody: accepted at once (202), made in the background, found again after a crash.

    FOLDER/open/ID/job.json, pictures     what was promised, on the disk before anybody is told
    FOLDER/ended/ID/report.json           how it ended
    FOLDER/journal.db, images/, …         those of one batch that never ends and makes them all

Accepting only writes; the batch reads what is open. So a crash at any instant loses no promise, and the batch's journal
sees to it that none is paid for twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
from attrs import Attribute, define, evolve, field, frozen

from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
from kling_async.batch.sinks import describe_error
from kling_async.client.kling import Kling
from kling_async.errors import DownloadError, JournalError, KlingError, SubmissionUnknown, TaskTimeout
from kling_async.integrations.board import Board, TaskState, state_after
from kling_async.integrations.promises import Promises
from kling_async.protocol.endpoints import seconds
from kling_async.protocol.events import Dropped, Event, Finished
from kling_async.protocol.jobs import MultiImage

__all__ = ["JobReport", "Jobs"]

_log = logging.getLogger("kling_async")

# Seconds: how often a feed with nothing to do looks for jobs that another process accepted.
_LOOK_AROUND = 5.0
# After these the task may still bring its pictures, so the job stays open and is taken up again.
_PASSING = (TaskTimeout, DownloadError, SubmissionUnknown, JournalError)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen(kw_only=True)
class JobReport:
    """
    Where one accepted job stands.

    *status* is `accepted`, `waiting` for slots, `submitted`, `processing`, `saving`, and in the end `succeeded` with
    *pictures*, or `failed` with *error* (an object as in `results.jsonl`). *job_id* is the external id of its task too.
    """

    job_id: str
    status: str = "accepted"
    task_id: str = ""
    pictures: tuple[Path, ...] = ()
    error: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.status in {"succeeded", "failed"}

    def body(self) -> dict[str, Any]:
        """Return what a browser may know, for JSON: the number of *pictures* but not where they lie."""
        error = self.error and {name: self.error.get(name) for name in ("type", "code", "message")}
        return {
            "id": self.job_id,
            "status": self.status,
            "ended": self.ended,
            "pictures": len(self.pictures),
            "error": error,
        }

    def headers(self, location: str) -> dict[str, str]:
        """Return the headers of a 202: *location* is the address of the status, asked for again in two seconds."""
        return {"Location": location} | ({} if self.ended else {"Retry-After": "2"})

    def state(self) -> TaskState:
        """Return the report as the state of a task."""
        reason = str(self.error["message"]) if self.error else ""
        return TaskState(
            external_task_id=self.job_id,
            task_id=self.task_id,
            status=self.status,
            reason=reason,
            ended=self.ended,
        )


def _absolute(path: str | PathLike[str]) -> Path:
    return Path(path).absolute()


def _seconds(_: object, attribute: Attribute[float], value: float) -> None:
    seconds(attribute.name.lstrip("_"), value)


@define(eq=False)
class Jobs:
    """
    Makes whatever was accepted, for as long as it is open: `async with Kling() as kling, Jobs(kling, "jobs") as jobs`.

    *folder* has everything, and stays where it is; what another process left there is taken up first. Several processes may
    accept into one folder: one of them makes the jobs, another takes its place when it is gone. *task_timeout*
    bounds, in seconds, each wait for a task. After a trouble that is no single job's (an account that cannot pay, an
    outage), everything waits and is tried again each *retry_after* seconds; *trouble* is that error.
    """

    _kling: Kling
    # A job is known again by the paths of its pictures, whatever folder a process was started in.
    folder: Path = field(converter=_absolute)
    _task_timeout: float = field(default=1800.0, kw_only=True, validator=_seconds)
    _retry_after: float = field(default=10.0, kw_only=True, validator=_seconds)
    board: Board = field(factory=Board, init=False, repr=False)
    trouble: KlingError | None = field(default=None, init=False)
    _promises: Promises = field(init=False, repr=False)
    _arrived: deque[str] = field(factory=deque, init=False, repr=False)
    _news: asyncio.Event = field(factory=asyncio.Event, init=False, repr=False)
    # Those that the batch has now.
    _taken: set[str] = field(factory=set, init=False, repr=False)
    # Some of those ended in a way that may pass.
    _leftover: bool = field(default=False, init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    _unsubscribe: Callable[[], None] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._promises = Promises(self.folder)

    async def __aenter__(self) -> Self:
        engine = self._kling._engine  # noqa: SLF001  # the one owner of tasks, and the source of events
        engine.enter()
        await anyio.to_thread.run_sync(self._promises.prepare)
        self._unsubscribe = engine.emitter.subscribe(self._see)
        self._running = engine.background.begin(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.board.close()
        self._unsubscribe()
        if self._running is not None:
            self._running.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._running])

    @property
    def closed(self) -> bool:
        """Whether nothing more will be made here."""
        return self.board.closed

    async def accept(self, job: MultiImage) -> JobReport:
        """
        Promise to make *job*: when this returns, it is on the disk and will be made whatever happens to this process.

        Its pictures are copied. *external_task_id*, if it has one, is the name of the job, and accepting the same name
        again is no new job. Raises `InvalidJob`, and `JournalError` if the disk does not take it; then nothing is promised.
        """
        job_id = job.external_task_id or f"job-{secrets.token_hex(12)}"
        if await self._promises.keep(job_id, job):
            self.board.post(JobReport(job_id=job_id).state())
            self._arrived.append(job_id)
            self._news.set()
        found = await self.find(job_id)
        assert found is not None, "what was just kept is there"
        return found

    async def find(self, job_id: str) -> JobReport | None:
        """Return where a job stands, also one of earlier processes; None if there is no such job."""
        if not _ID.fullmatch(job_id):
            return None
        kept = await anyio.to_thread.run_sync(self._promises.find, job_id)
        if kept is None:
            return None
        if kept:
            images = [self.folder / name for name in kept.get("files", ())]
            return JobReport(
                job_id=job_id,
                status=kept["status"],
                task_id=kept.get("task_id") or "",
                pictures=tuple(images),
                error=kept.get("error"),
            )
        state = self.board.find(job_id)
        if state is None or state.ended:
            return JobReport(job_id=job_id)
        return JobReport(job_id=job_id, status=state.status, task_id=state.task_id)

    async def wait(self, job_id: str) -> JobReport | None:
        """Wait until a job has ended and return its report; None if there is no such job."""
        with self.board.follow([job_id]) as reader:
            while True:
                # Taken before it is looked at, or what happens in between would go unheard.
                reader.take()
                report = await self.find(job_id)
                if report is None or report.ended:
                    return report
                # What another process makes is not told here, but lies on the disk.
                with anyio.move_on_after(_LOOK_AROUND):
                    await reader.changed()

    async def recall(self, name: str) -> TaskState | None:
        """Return the state of a job that is not on the board, for `progress()`."""
        report = await self.find(name)
        return None if report is None else report.state()

    # Making.

    async def _run(self) -> None:
        while True:
            self._taken.clear()
            self._arrived.clear()
            self._leftover = False
            try:
                await self._make()
            except KlingError as error:
                self._heed(error)
            except OSError as error:
                self._heed(JournalError(f"{self.folder} cannot be used ({error.strerror}); check the disk"))
            await anyio.sleep(self._retry_after)

    async def _make(self) -> None:
        batch = self._kling.batch(self._feed(), out=self.folder, task_timeout=self._task_timeout)
        async with batch:
            async for outcome in batch:
                self.trouble = None
                await self._close(outcome)

    def _heed(self, error: KlingError) -> None:
        # It comes again and again while it lasts.
        level = logging.DEBUG if str(error) == str(self.trouble) else logging.ERROR
        _log.log(level, "accepted jobs wait: %s", error)
        self.trouble = error

    async def _feed(self) -> AsyncIterator[MultiImage]:
        """Yield what is open, oldest first, then what comes; end when something must be taken up again."""
        if isinstance(self.trouble, JournalError):
            self.trouble = None  # the journal is ours, or whole, again
        while True:
            self._news.clear()
            for job_id in await anyio.to_thread.run_sync(self._promises.open):
                if job_id not in self._taken:
                    self._arrived.append(job_id)
            while self._arrived:
                job_id = self._arrived.popleft()
                job = await anyio.to_thread.run_sync(self._promises.job, job_id)
                if job_id not in self._taken and job is not None:
                    self._taken.add(job_id)
                    yield job
            with anyio.move_on_after(_LOOK_AROUND) as idle:
                await self._news.wait()
            if idle.cancelled_caught and self._leftover:
                return

    async def _close(self, outcome: Outcome) -> None:
        job_id = outcome.key
        if isinstance(outcome, Failed) and isinstance(outcome.error, _PASSING):
            _log.warning("job %s stays open: %s", job_id, outcome.error)
            self._leftover = True
            return
        if isinstance(outcome, Skipped):
            report = await anyio.to_thread.run_sync(self._promises.earlier, job_id)
        else:
            report = _report(outcome, self.folder)
        await anyio.to_thread.run_sync(self._promises.end, job_id, report)
        self._taken.discard(job_id)
        found = await self.find(job_id)
        if found is not None:
            self.board.post(found.state())

    def _see(self, event: Event) -> None:
        state = state_after(event)
        if state is None or state.key not in self._taken or isinstance(event, Dropped):
            return  # what is dropped stays open, or is told when it is written down
        if isinstance(event, Finished):
            if event.status == "failed":
                return  # told when it is written down
            state = evolve(state, status="saving", ended=False)
        self.board.post(evolve(state, external_task_id=state.key, key="", reason=""))


def _report(outcome: Succeeded | Failed, folder: Path) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        task_id = outcome.task.task_id if outcome.task else ""
        return {"status": "failed", "task_id": task_id, "error": describe_error(outcome.error)}
    files = [Path(file).relative_to(folder).as_posix() for file in outcome.files]
    return {"status": "succeeded", "task_id": outcome.task.task_id, "files": files}
