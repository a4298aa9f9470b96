"""X3, X4 and X6 to X12: the rest of what is promised of batches on clusters."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from cluster_kit import Cluster, cluster
from distributed import Client
from distributed.security import Security
from fault_server import Remote
from redis_kit import Server
from scale_driver import TERMS, jobs_of, stage_of
from scale_kit import LIMIT, accepted, assert_all_is_well, driver_of, environment, run
from scale_stages import EmptyStage, PoisonStage

from kling_async.errors import ClusterLost
from kling_async.protocol.auth import ApiKey, fingerprint
from kling_async.protocol.claims import Report
from kling_async.scale import Assignment, DaskEngine, Driver
from kling_async.slots import RedisSlots

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

_HERE = Path(__file__).parent


def _lane(service: Remote) -> str:
    return f"{fingerprint(ApiKey(service.api_key))}:kling-v2-1"


async def test_x3_the_driver_dies_again_and_again(
    service: Remote, store: Server, tmp_path: Path, size: int
) -> None:
    """X3. Five drivers are killed at random moments; the same command continues each time, and nothing is paid twice."""
    dice = random.Random(7)
    with cluster(environment(service, store), workers=2) as running:
        options = {
            "address": running.address,
            "url": service.url,
            "limit": LIMIT,
            "jobs": size,
            "out": str(tmp_path),
        }
        command = [sys.executable, str(_HERE.parent / "scale_driver.py"), json.dumps(options)]
        for _ in range(5):
            await anyio.to_thread.run_sync(_run_for, command, 2.5 + 3 * dice.random())
        last = await run(running, service, tmp_path, jobs_of(size))

    assert_all_is_well(service, last, size)


def _run_for(command: list[str], seconds: float) -> None:
    driver = subprocess.Popen(command)
    with suppress(subprocess.TimeoutExpired):
        driver.wait(seconds)
    driver.kill()
    driver.wait()


@pytest.mark.parametrize("comes_back", [False, True], ids=["for good", "and comes back"])
async def test_x4_the_scheduler_dies(
    service: Remote, store: Server, tmp_path: Path, size: int, *, comes_back: bool
) -> None:
    """X4. A driver notices that its scheduler is gone or knows nothing, says so, and the same call on a new cluster continues."""
    with cluster(environment(service, store), workers=2) as running:
        with pytest.raises(ClusterLost, match="run again to continue"):
            async with driver_of(running, service, tmp_path, patience=6.0) as driver:
                async with _raising(driver.run, jobs_of(size)):
                    await accepted(service, size // 4)
                    running.scheduler.kill()
                    running.scheduler.wait()
                    if comes_back:
                        running.start_scheduler()
    with cluster(environment(service, store), workers=2) as running:
        last = await run(running, service, tmp_path, jobs_of(size))

    assert_all_is_well(service, last, size)


@asynccontextmanager
async def _raising(work: Any, *arguments: Any) -> AsyncIterator[None]:
    """Run *work* beside what is inside, and raise what it raises as it is."""
    task = asyncio.ensure_future(work(*arguments))
    yield
    await task


async def test_x6_two_drivers_on_two_clusters_share_one_account(
    service: Remote, store: Server, tmp_path: Path, size: int
) -> None:
    """X6. Both get on, and together they never have more in use than the account has."""
    half = size // 2
    with ExitStack() as stack:
        clusters = [stack.enter_context(cluster(environment(service, store), workers=1)) for _ in range(2)]
        async with anyio.create_task_group() as group:
            for number, running in enumerate(clusters):
                jobs = jobs_of(half, f"run{number}-")
                group.start_soon(run, running, service, tmp_path / f"out{number}", jobs)
    books = service.books()
    order = [charge["label"][:4] for charge in books["charges"]]

    assert books["peak"] <= LIMIT
    assert len(books["accepted"]) == 2 * half
    assert books["paid_twice"] == {}
    # Neither waited until the other was done.
    assert {"run0", "run1"} <= set(order[: 3 * half // 2])


async def test_x7_the_limit_changes(service: Remote, store: Server, tmp_path: Path, size: int) -> None:
    """X7. Somebody says that the account has fewer slots now: what runs ends, and then no more are used."""
    operator = RedisSlots(store.url, terms=TERMS)
    with cluster(environment(service, store), workers=2) as running:
        async with driver_of(running, service, tmp_path) as driver, anyio.create_task_group() as group:
            group.start_soon(driver.run, jobs_of(size))
            await accepted(service, size // 4)
            await operator.exchange(_lane(service), Report(owner="operator", nonce="n", limit=9))
            await asyncio.sleep(2)
            service.change(slots=9)
            before = (await anyio.to_thread.run_sync(service.books))["overruns"]
    await operator.aclose()

    assert_all_is_well(service, driver, size)
    assert service.books()["overruns"] == before


async def test_x9_two_accounts_are_twice_as_fast(store: Server, tmp_path: Path) -> None:
    """X9. Accounts do not wait for each other: two of them do the same work in little more than half the time."""
    settings: dict[str, Any] = {"slots": 4, "enforce": False, "life": {"seconds": 0.5}}
    with Remote.spawn(**settings) as one, Remote.spawn(**settings) as two, ExitStack() as stack:
        first, second = (
            stack.enter_context(cluster(_keyed(each, store, base), workers=1))
            for base, each in enumerate((one, two))
        )
        alone = await _seconds(first, one, tmp_path / "alone", "alone-", 48)
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(_seconds, first, one, tmp_path / "first", "first-", 24)
            group.start_soon(_seconds, second, two, tmp_path / "second", "second-", 24)
        together = time.monotonic() - began
        peaks = [each.books(log=False)["peak"] for each in (one, two)]

    assert max(peaks) <= 4
    assert together < 0.8 * alone


def _keyed(service: Remote, store: Server, database: int) -> dict[str, str]:
    # The servers of the tests all have the same keys; another database of the store makes two accounts of them.
    return environment(service, store) | {"KLING_SLOTS_STORE": store.url.replace("/0", f"/{database}")}


async def _seconds(running: Cluster, service: Remote, out: Path, name: str, count: int) -> float:
    began = time.monotonic()
    await run(running, service, out, jobs_of(count, name, most=1), stage=stage_of(service.url, 4))
    return time.monotonic() - began


async def test_x10_many_empty_jobs(any_service: Remote, store: Server, tmp_path: Path) -> None:
    """X10. Twenty thousand jobs that do nothing pass at a thousand a second, in flat memory."""
    count = 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with cluster(environment(any_service, store), workers=1) as running:
        stage, jobs = stage_of(any_service.url, LIMIT, EmptyStage), jobs_of(count)
        began = time.monotonic()
        driver = await run(running, any_service, tmp_path, jobs, stage=stage, chunk=200)
        took = time.monotonic() - began
        scheduler = _resident(running.scheduler.pid)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    print(f"{count / took:.0f} rows/s, driver +{grown:.0f} MB, scheduler {scheduler:.0f} MB")  # noqa: T201  # measured
    assert driver.counts["succeeded"] == count
    assert scheduler < 200
    assert grown < 200
    assert count / took >= 1000


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def test_x11_no_secret_leaves_the_worker(any_service: Remote, store: Server, tmp_path: Path) -> None:
    """X11. No key is in what goes through the scheduler, in any log, in the folder, or in the store."""
    service, password = any_service, "a-password-of-the-store"
    assert store.ask("CONFIG", "SET", "requirepass", password) == b"+OK\r\n"
    told = {"KLING_SLOTS_STORE": store.url.replace("//", f"//:{password}@")}
    stage, jobs = stage_of(service.url, LIMIT), jobs_of(20)
    with cluster(environment(service, store) | told, workers=1) as running:
        async with (
            driver_of(running, service, tmp_path, stage=stage) as driver,
            anyio.create_task_group() as group,
        ):
            group.start_soon(driver.run, jobs)
            await accepted(service, len(jobs) // 2)
            scheduler, memory = _memory(running.scheduler.pid), _memory(store.process.pid)
        logs = b"".join(log.read_bytes() for log in running.logs)
    sent = pickle.dumps((stage, [Assignment("k", job, "id") for job in jobs]))
    files, kept = _bytes_in(tmp_path), _bytes_in(store.folder)

    assert_all_is_well(service, driver, len(jobs))
    for place, found in (("tasks", sent), ("logs", logs), ("folder", files), ("store", kept)):
        assert found, place
        for secret in (service.api_key, service.secret_key, password, "eyJ"):
            assert secret.encode() not in found, place
    names = service.books(log=False)["accepted"]
    for place, found in (("scheduler", scheduler), ("memory of the store", memory)):
        # What is looked through is what was meant: the jobs are in it.
        assert any(name.encode() in found for name in names), place
        for secret in (service.api_key, service.secret_key):
            assert secret.encode() not in found, place
    assert password.encode() not in scheduler


def _memory(pid: int) -> bytes:
    """Return what a process of ours has in its memory, as far as it can be written to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in span.split("-"))
                with suppress(OSError):
                    memory.seek(start)
                    found.append(memory.read(end - start))
    return b"".join(found)


def _bytes_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_x12_a_poison_row_fails_alone(service: Remote, store: Server, tmp_path: Path) -> None:
    """X12. A row that kills its process, again and again, is the only one without a picture."""
    jobs = [*jobs_of(12), *jobs_of(1, "poison"), *jobs_of(12, "other")]
    stage = stage_of(service.url, LIMIT, PoisonStage)
    with cluster(environment(service, store), workers=2, nanny=True) as running:
        driver = await run(running, service, tmp_path, jobs, stage=stage, allowed_failures=1)

    books = service.books(log=False)
    assert driver.counts == {"succeeded": 24, "unfinished": 1}
    assert books["paid_twice"] == {}
    assert len(books["accepted"]) == 24


async def test_a_cluster_behind_tls(any_service: Remote, store: Server, tmp_path: Path) -> None:
    """Driver, scheduler and workers talk over TLS; who has no certificate is not let in."""
    service = any_service
    pem = str(_HERE / "loopback.pem")
    names = ("--tls-ca-file", pem, "--tls-cert", pem, "--tls-key", pem)
    make: Any = Security  # which has no types
    security = make(tls_ca_file=pem, tls_client_cert=pem, tls_client_key=pem, require_encryption=True)
    connect: Any = Client  # which has no types
    with cluster(environment(service, store), workers=1, security=names) as running:
        async with connect(running.address, asynchronous=True, security=security) as client:
            driver = Driver(DaskEngine(client), stage_of(service.url, LIMIT), tmp_path)
            await driver.run(jobs_of(10))
        answer = await _knock(running.port, pem)

    assert_all_is_well(service, driver, 10)
    assert answer == b""


async def _knock(port: int, pem: str) -> bytes:
    """Connect without a certificate, and return what the scheduler says to that."""
    context = ssl.create_default_context(cafile=pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    with suppress(OSError):
        return await reader.read(1)
    writer.transport.abort()
    return b""


async def test_the_command_line_runs_on_a_cluster(any_service: Remote, store: Server, tmp_path: Path) -> None:
    """`run --engine dask://…` makes the same folder as a run in one process, and continues it."""
    service = any_service
    manifest = tmp_path / "jobs.jsonl"
    rows = [
        {"key": f"k{n}", "subject_images": ["https://example.com/a.png"], "prompt": f"p{n}"} for n in range(6)
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with cluster(environment(service, store), workers=1) as running:
        address = running.address.replace("tcp", "dask")
        words = ["run", str(manifest), "-o", str(tmp_path / "out"), "--yes", "--json", "--slots", "20"]
        words += ["--base-url", service.url, "--engine", address, "--slots-store", store.url]
        ended = [await _command(words), await _command(words)]

    assert [one["exit_code"] for one in ended] == [0, 0]
    assert [one["succeeded"] for one in ended] == [6, 0]
    assert [one["skipped"] for one in ended] == [0, 6]
    assert len(service.books(log=False)["accepted"]) == 6


async def _command(words: list[str]) -> dict[str, Any]:
    program = [sys.executable, "-m", "kling_async", *words]
    path = os.pathsep.join((str(Path(sys.modules["kling_async"].__file__ or "").parents[1]), *sys.path))
    told = {**os.environ, "PYTHONPATH": path}
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(program, check=False, capture_output=True, env=told)
    )
    assert done.stdout, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
