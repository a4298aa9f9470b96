"""X1, X2 and X5: batches on a cluster whose parts die, judged by the service's books."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from cluster_kit import Cluster, cluster
from fault_server import Remote
from redis_kit import Server
from scale_driver import jobs_of
from scale_kit import LIMIT, accepted, assert_all_is_well, driver_of, environment, run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def test_x1_rows_are_accepted_once_within_the_limit(
    service: Remote, store: Server, tmp_path: Path, many: int
) -> None:
    """X1. Jobs of n 1 to 9 on three worker processes: a row each, each paid once, and no slot too many."""
    service.change(life={"seconds": 0.2})
    with cluster(environment(service, store), workers=3) as running:
        driver = await run(running, service, tmp_path, jobs_of(many))

    assert_all_is_well(service, driver, many)
    assert service.books(log=False)["peak"] >= LIMIT - 9
    assert len(list((tmp_path / "images").iterdir())) == sum(job.n for job in jobs_of(many))


def _kill(running: Cluster) -> None:
    os.kill(running.workers[0].pid, signal.SIGKILL)


def _kill_with_its_nanny(running: Cluster) -> None:
    os.killpg(running.workers[0].pid, signal.SIGKILL)


def _stop(running: Cluster) -> None:
    os.kill(running.workers[0].pid, signal.SIGSTOP)


@pytest.mark.parametrize(
    ("hurt", "nanny"),
    [(_kill, False), (_kill_with_its_nanny, True), (_stop, False)],
    ids=["worker", "worker and nanny", "stopped for a while"],
)
async def test_x2_a_worker_dies(
    service: Remote,
    store: Server,
    tmp_path: Path,
    size: int,
    stopped_for: float,
    hurt: Callable[[Cluster], None],
    *,
    nanny: bool,
) -> None:
    """X2. What a dead worker was doing is done by another, which finds its tasks; one that comes back sends nothing."""
    with cluster(environment(service, store), workers=3, nanny=nanny) as running:
        async with driver_of(running, service, tmp_path) as driver, anyio.create_task_group() as group:
            group.start_soon(driver.run, jobs_of(size))
            await accepted(service, size // 4)
            hurt(running)
            if hurt is _stop:
                await asyncio.sleep(stopped_for)
                os.kill(running.workers[0].pid, signal.SIGCONT)

    assert_all_is_well(service, driver, size)


@pytest.mark.parametrize("trouble", ["restarted", "flushed", "stopped"])
async def test_x5_the_store_fails(
    service: Remote, store: Server, tmp_path: Path, size: int, trouble: str
) -> None:
    """X5. A store that is killed and comes back, loses everything, or hangs: nothing is sent without it, or too much."""
    with cluster(environment(service, store), workers=2) as running:
        async with driver_of(running, service, tmp_path) as driver, anyio.create_task_group() as group:
            group.start_soon(driver.run, jobs_of(size))
            await accepted(service, size // 4)
            if trouble == "restarted":
                store.kill()
                await asyncio.sleep(1)
                store.start()
            elif trouble == "flushed":
                store.ask("FLUSHALL")
            else:
                store.send_signal(signal.SIGSTOP)
                await asyncio.sleep(5)
                store.send_signal(signal.SIGCONT)

    assert_all_is_well(service, driver, size)
