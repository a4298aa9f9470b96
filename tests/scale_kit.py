"""What the proofs on a cluster share: drivers, the environment of workers, and what must hold in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from cluster_kit import Cluster
from distributed import Client
from fault_server import Remote
from redis_kit import Server
from scale_driver import stage_of

from kling_async import MultiImage
from kling_async.scale import DaskEngine, Driver, KlingStage

__all__ = ["LIMIT", "accepted", "assert_all_is_well", "driver_of", "environment", "run"]

LIMIT = 20


def environment(service: Remote, store: Server) -> dict[str, str]:
    """Return what workers need to know; nothing of it goes through the scheduler."""
    return {
        "KLING_API_KEY": service.api_key,
        "KLING_SLOTS_STORE": store.url,
        # A worker that is not heard of is taken for dead soon.
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s",
    }


@asynccontextmanager
async def driver_of(
    running: Cluster, service: Remote, out: Path, *, stage: KlingStage | None = None, **options: Any
) -> AsyncIterator[Driver]:
    """Connect a driver to the cluster."""
    connect: Any = Client  # which has no types
    async with connect(running.address, asynchronous=True, set_as_default=False) as client:
        yield Driver(DaskEngine(client, **options), stage or stage_of(service.url, LIMIT), out)


async def run(
    running: Cluster, service: Remote, out: Path, jobs: Sequence[MultiImage], **options: Any
) -> Driver:
    """Run *jobs* to their end."""
    async with driver_of(running, service, out, **options) as driver:
        await driver.run(jobs)
    return driver


async def accepted(service: Remote, count: int) -> None:
    """Wait until the service has accepted *count* creates."""
    async with asyncio.timeout(120):
        while len((await _books(service))["accepted"]) < count:  # noqa: ASYNC110  # the books are another process's
            await asyncio.sleep(0.05)


async def _books(service: Remote) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(lambda: service.books(log=False))


def assert_all_is_well(service: Remote, driver: Driver, size: int) -> None:
    """Every job has its row, was accepted once, and the account never had more in use than it has."""
    books = service.books(log=False)
    rows = driver._out.joinpath("results.jsonl").read_text(encoding="utf-8").splitlines()
    assert driver.counts["succeeded"] + driver.counts["done before"] == size
    assert len(rows) == size
    assert books["paid_twice"] == {}
    assert len(books["accepted"]) == size
    assert books["peak"] <= LIMIT
    assert "1303" not in books["codes"]
