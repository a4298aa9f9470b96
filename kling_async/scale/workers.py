"""What runs on the workers and on the scheduler of a Dask cluster; sent there by name, so it is installed there too."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from kling_async.scale.stage import Assignment, KlingStage

__all__ = ["Workplace", "do_all", "prepare_scheduler"]


class Workplace(WorkerPlugin):
    """Closes on a worker what *stage* has opened there, when the run or the worker ends."""

    def __init__(self, stage: KlingStage) -> None:
        self.stage = stage

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002  # the signature is Dask's
        """Close the client and the store."""
        await self.stage.aclose()


async def do_all(stage: KlingStage, jobs: tuple[Assignment, ...]) -> list[dict[str, Any]]:
    """Do *jobs* at once and return their rows in the same order."""
    return list(await asyncio.gather(*(stage.run(job) for job in jobs)))


async def prepare_scheduler(allowed_failures: int, dask_scheduler: Any = None) -> None:
    """
    Set how often a job may lose its worker, and stop the stealing of work.

    A task that waits at a worker may have been sent by an earlier execution there; moving it gains nothing, since slots
    and not workers are scarce.
    """
    dask_scheduler.allowed_failures = allowed_failures
    stealing = dask_scheduler.extensions.get("stealing")
    if stealing is not None:
        stopping = stealing.stop()
        if inspect.isawaitable(stopping):
            await stopping
