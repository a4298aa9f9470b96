"""
A long run held against the service's own books: 5,000 jobs on 1,000 slots of an emulator in a process of its own.

Asserts that no limit was passed, that every job was accepted once, that no end of a task was seen late, and that the
client's loop never stood still. `python benchmarks/soak.py --json` prints the figures as one object.

A shared machine takes the processor away for longer than any stall of ours, so a stall is counted as the smaller of two
figures for each tick: how late the tick came, and how much processor time the thread of the loop used up meanwhile. What is loaded
before the run is frozen out of the garbage collector, as any long-lived program should do (see docs/scheduling.md): a
full collection looks at every object there is, and most of them are modules.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

import kling_async.batch.batch  # noqa: F401  # loaded before the clock starts, not at the first batch
from kling_async import Failed, Kling, MultiImage, Succeeded
from kling_async.emulator import Emulator

_TICK = 0.02


@frozen(kw_only=True)
class Plan:
    """What is run: emulated tasks last 24 seconds in the middle, *speed* times faster here."""

    jobs: int
    slots: int
    speed: float
    weights: tuple[int, ...]
    poll_every: float


@define
class Ticker:
    """Wakes up every 20 ms and notes how late it was, in seconds, and the processor time used meanwhile."""

    late: list[float] = field(factory=list)
    stalls: list[float] = field(factory=list)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            due, used = time.perf_counter() + _TICK, time.thread_time()
            await asyncio.sleep(_TICK)
            late = max(0.0, time.perf_counter() - due)
            self.late.append(late)
            self.stalls.append(min(late, time.thread_time() - used))


# The server's side.


async def serve(plan: Plan) -> None:
    """Be the service: print the address, and the books when a line comes in."""
    async with Emulator(
        slots=plan.slots, speed=plan.speed, paint="stamp", seed=11, units=1e9, keep_requests=1_000_000
    ) as emulator:
        print(json.dumps({"url": emulator.url, "key": emulator.api_key}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        accepted = Counter(task.external_task_id for task in emulator.tasks)
        routes = Counter(record.route for record in emulator.requests)
        books = {
            "accepted": len(emulator.tasks),
            "most_per_id": max(accepted.values()),
            "peak_slots": emulator.peak_slots,
            "refused": sum(record.code == 1303 for record in emulator.requests),
            "requests": dict(routes),
            "cpu": time.process_time(),
        }
        print(json.dumps(books), flush=True)


@contextmanager
def service(plan: Plan) -> Iterator[subprocess.Popen[str]]:
    """Run `serve()` in a process of its own, on another processor if there are two."""
    command = [sys.executable, __file__, "--serve", json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(cores) > 1:
            os.sched_setaffinity(process.pid, cores[1:2])
            os.sched_setaffinity(0, cores[:1])
        try:
            yield process
        finally:
            process.communicate()


def hear(process: subprocess.Popen[str]) -> Any:
    """Read one object that the service says."""
    assert process.stdout is not None, "asked for when it was started"
    return json.loads(process.stdout.readline())


# The client's side.


def jobs(plan: Plan) -> Iterator[MultiImage]:
    """Make the jobs, one when it is asked for."""
    for number in range(plan.jobs):
        yield MultiImage(
            subject_images=["https://pictures.example/woman.png"],
            prompt=f"dress {number}",
            n=plan.weights[number % len(plan.weights)],
            key=f"row-{number}",
        )


async def run(plan: Plan, address: dict[str, str], journal: Path) -> dict[str, Any]:
    """Run the jobs and tell what the client saw."""
    gc.collect()
    gc.freeze()
    ticker, lags, intervals = Ticker(), list[float](), list[float]()
    failed = 0
    ticking = asyncio.create_task(ticker.run())
    before = time.process_time()
    async with Kling(
        api_key=address["key"],
        base_url=address["url"],
        slots=plan.slots,
        min_poll_interval=plan.poll_every,
        trust_env=False,
    ) as kling:
        desks = kling._engine.poller._desks  # noqa: SLF001  # the learned interval is no public figure
        async with kling.batch(jobs(plan), journal=journal, total=plan.jobs) as batch:
            async for outcome in batch:
                now = time.time()
                failed += isinstance(outcome, Failed)
                if isinstance(outcome, Succeeded) and outcome.task.updated_at is not None:
                    lags.append(max(0.0, now - outcome.task.updated_at.timestamp()))
                intervals.append(max(desk.book.interval for desk in desks.values()))
            statistics = batch.statistics()
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    lags.sort()
    return {
        "seconds": statistics.seconds,
        "succeeded": statistics.succeeded,
        "failed": failed,
        "utilisation": statistics.slot_utilisation,
        "lag_mean": sum(lags) / len(lags),
        "lag_p99": lags[int(0.99 * len(lags))],
        "lag_max": lags[-1],
        "lag_told": statistics.lag,
        "poll_interval": max(intervals),
        "cpu_per_job_us": 1e6 * (time.process_time() - before) / plan.jobs,
        "requests_per_job": statistics.requests / plan.jobs,
        "late_max": max(ticker.late),
        "stall_max": max(ticker.stalls),
        "stall_p99": sorted(ticker.stalls)[int(0.99 * len(ticker.stalls))],
    }


def judge(plan: Plan, seen: dict[str, Any], books: dict[str, Any]) -> list[tuple[str, bool]]:
    """Say what had to hold, and whether it did."""
    return [
        (f"every job accepted once ({books['accepted']} of {plan.jobs})", books["accepted"] == plan.jobs),
        (f"no external id accepted twice ({books['most_per_id']})", books["most_per_id"] == 1),
        (f"no limit passed (peak {books['peak_slots']} of {plan.slots})", books["peak_slots"] <= plan.slots),
        (f"all succeeded ({seen['succeeded']})", seen["succeeded"] == plan.jobs),
        (
            f"lag p99 {seen['lag_p99']:.3f} s within 1.1 times the poll interval of {seen['poll_interval']:.3f} s",
            seen["lag_p99"] <= 1.1 * seen["poll_interval"],
        ),
        (f"no stall over 50 ms ({1000 * seen['stall_max']:.1f} ms)", seen["stall_max"] <= 0.05),
    ]


def main() -> int:
    """Run and judge; 0 if everything held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=5.0, help="how much faster than 24 s a task ends")
    parser.add_argument("--weights", default="1", help="the n of the jobs, in turn, such as 1,4,2")
    parser.add_argument("--poll-every", type=float, default=0.5, help="least seconds between two polls")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(Plan(**json.loads(given.serve))))
        return 0
    plan = Plan(
        jobs=given.jobs,
        slots=given.slots,
        speed=given.speed,
        weights=tuple(map(int, given.weights.split(","))),
        poll_every=given.poll_every,
    )
    with tempfile.TemporaryDirectory() as folder, service(plan) as process:
        seen = asyncio.run(run(plan, hear(process), Path(folder) / "journal.db"))
        assert process.stdin is not None, "asked for when it was started"
        print(file=process.stdin, flush=True)
        books = hear(process)
    verdicts = judge(plan, seen, books)
    if given.json:
        print(json.dumps({"plan": asdict(plan), "client": seen, "books": books, "held": dict(verdicts)}))
    else:
        for name, value in (*seen.items(), *books.items()):
            print(f"{name:>18}  {value:.4g}" if isinstance(value, float) else f"{name:>18}  {value}")
        for text, held in verdicts:
            print(f"{'held' if held else 'BROKEN':>18}  {text}")
    return 0 if all(held for _, held in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
