"""
Jobs handed out on a Dask cluster: a rolling window of tasks, one job each, under names that are the same in every run.

Dask runs a task again when its worker dies. A job that has lost its worker too often is under suspicion of killing it,
and so are all that ran beside it; those are done at the end in groups that are halved until the guilty one is alone.
A client whose scheduler has died waits for ever, so a watchdog asks the scheduler from time to time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeAlias

import anyio
from attrs import define, field

from kling_async.errors import ClusterLost, ConfigError, KlingError, MissingExtra
from kling_async.scale.stage import Assignment, KlingStage

__all__ = ["DaskEngine", "Deliver", "Take"]

# Brings so many jobs at most, none when there are no more; takes in jobs that have ended, with their rows.
Take: TypeAlias = Callable[[int], Awaitable[Sequence[Assignment]]]
Deliver: TypeAlias = Callable[[Sequence[tuple[Assignment, dict[str, Any]]]], Awaitable[None]]

_log = logging.getLogger("kling_async")

# Tasks in the cluster for each thread of its workers, so that no worker waits for the driver; and at least so many.
_AHEAD = 2
_LEAST_WINDOW = 8
# Seconds between questions to the scheduler.
_ASK_EVERY = 3.0


@define(eq=False)
class DaskEngine:
    """
    Hands jobs out through *client*, a `distributed.Client` opened with `asynchronous=True`.

    *window* is how many tasks are in the cluster at once (by default twice the threads of its workers), *chunk* how many
    jobs one task has: more than one only pays for jobs of a few milliseconds. After *allowed_failures* lost workers a job
    is tried apart from the others. A scheduler that does not answer for *patience* seconds is given up.
    """

    # Half of Dask's client has no types.
    _client: Any
    window: int | None = field(default=None, kw_only=True)
    chunk: int = field(default=1, kw_only=True)
    allowed_failures: int = field(default=3, kw_only=True)
    patience: float = field(default=30.0, kw_only=True)
    _suspects: list[Assignment] = field(factory=list, init=False, repr=False)
    _rounds: int = field(default=0, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            import distributed  # noqa: F401  # only whether it is there
        except ImportError as error:
            raise MissingExtra("DaskEngine needs Dask: pip install 'kling-async[dask]'", "dask") from error
        if not self._client.asynchronous:
            raise ConfigError("expected a Dask client made with asynchronous=True, found one that blocks")

    async def run(self, stage: KlingStage, take: Take, deliver: Deliver) -> None:
        """
        Have *stage* do every job that *take* brings until it brings none; the rows go to *deliver*.

        Raises `ClusterLost` if the scheduler goes away; what was handed out may still run there.
        """
        from kling_async.scale.workers import Workplace, prepare_scheduler

        name = f"kling-{stage.run_name}"
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch)
                await self._client.run_on_scheduler(prepare_scheduler, allowed_failures=self.allowed_failures)
                await self._client.register_plugin(Workplace(stage), name=name)
                await self._roll(stage, take, deliver)
                await self._clear_suspects(stage, deliver)
                await self._client.unregister_worker_plugin(name=name)
                group.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None

    # The window.

    async def _roll(self, stage: KlingStage, take: Take, deliver: Deliver) -> None:
        room = anyio.Condition()
        open_tasks = 0

        async def one(jobs: tuple[Assignment, ...]) -> None:
            nonlocal open_tasks
            try:
                self._suspects += await self._do(stage, jobs, deliver)
            finally:
                async with room:
                    open_tasks -= 1
                    room.notify()

        async with anyio.create_task_group() as group:
            window = await self._width()
            while jobs := tuple(await take(self.chunk)):
                async with room:
                    while open_tasks >= window:
                        await room.wait()
                    open_tasks += 1
                group.start_soon(one, jobs)
                # Workers come and go.
                window = self.window or max(window, self._threads() * _AHEAD)

    async def _width(self) -> int:
        if self.window is not None:
            return self.window
        await self._client.wait_for_workers(1)
        return max(_LEAST_WINDOW, self._threads() * _AHEAD)

    def _threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers)

    async def _do(
        self, stage: KlingStage, jobs: tuple[Assignment, ...], deliver: Deliver
    ) -> tuple[Assignment, ...]:
        """Do *jobs* as one task; returns them again if it has lost too many workers."""
        from distributed import KilledWorker

        from kling_async.scale.workers import do_all

        number = f"-{self._rounds}" if self._rounds else ""
        future = self._client.submit(
            do_all, stage, jobs, key=f"kling-{jobs[0].external_task_id}{number}", pure=False
        )
        try:
            rows = await future
        except KilledWorker:
            return jobs
        except CancelledError:
            # Of the future, not of ours: who cancels us raises asyncio's.
            raise ClusterLost("the scheduler has lost the run's tasks; run again to continue") from None
        finally:
            future.release()
        await deliver(tuple(zip(jobs, rows, strict=True)))
        return ()

    # Jobs that may kill their workers.

    async def _clear_suspects(self, stage: KlingStage, deliver: Deliver) -> None:
        groups: list[Sequence[Assignment]] = [self._suspects] if self._suspects else []
        while groups:
            group = groups.pop()
            self._rounds += 1
            _log.warning("%d jobs have lost their workers and are tried apart from others", len(group))
            killed: list[Assignment] = []

            async def one(job: Assignment, killed: list[Assignment] = killed) -> None:
                killed += await self._do(stage, (job,), deliver)

            async with anyio.create_task_group() as tasks:
                for job in group:
                    tasks.start_soon(one, job)
            if len(group) == 1 and killed:
                await deliver([(killed[0], _killed(killed[0]))])
            elif killed:
                half = (len(killed) + 1) // 2
                groups += [part for part in (killed[:half], killed[half:]) if part]
        self._suspects = []

    # The watchdog.

    async def _watch(self) -> None:
        silent = 0.0
        while True:
            await anyio.sleep(_ASK_EVERY)
            began = anyio.current_time()
            try:
                with anyio.fail_after(max(_ASK_EVERY, self.patience - silent)):
                    await self._client.scheduler.identity()
                silent = 0.0
            except (OSError, TimeoutError) as error:
                silent += anyio.current_time() - began + _ASK_EVERY
                _log.warning("the scheduler does not answer (%s)", type(error).__name__)
            if silent >= self.patience:
                message = f"the scheduler has not answered for {silent:.0f} s; run again to continue"
                raise ClusterLost(message)


def _first(error: BaseException) -> BaseException:
    """Take out of the groups that task groups make what whoever called can act on."""
    while isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(KlingError)
        error = (ours or error).exceptions[0]
    return error


def _killed(job: Assignment) -> dict[str, Any]:
    message = "the worker died each time that it did this job; it may have a task: ask by its external id"
    return {
        "key": job.key,
        "status": "failed",
        "task_id": None,
        "external_task_id": job.external_task_id,
        "account": None,
        "units": None,
        "files": [],
        "urls": [],
        "error": {"type": "WorkerDied", "code": None, "message": message, "request_id": None},
        "attempts": 1,
        "created_at": None,
        "finished_at": None,
        "final": False,
        "stops": False,
    }
