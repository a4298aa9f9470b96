"""
Whole jobs, from a row to a result in the caller's hand (S1, S2, S3, S11).

Ours is a batch with everything on: typed jobs and results, lanes, retries, the poll plan, a journal. Beside it run a
script as one writes it by hand (a semaphore, a POST, a GET each half second), and a loop that sweeps the list, without types,
retries, limits or journal.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Lag, Run, Variants, at_most, compare, main, measured

_NAME = "benchmarks.jobs"
_POLL = 0.5
_PATH = "/v1/images/multi-image2image"
# What grows with the jobs shows at this many; a hundred thousand take a minute and a half.
_MANY = 20_000
_PICTURES = ("https://example.com/woman.png", "https://example.com/dress.png")


def _summary(found: dict[str, float], options: dict[str, Any], seen: list[float]) -> dict[str, float]:
    assert len(seen) == options["jobs"], f"{len(seen)} of {options['jobs']} jobs came back"
    seen.sort()
    return found | {
        "cpu_per_job": 1e6 * found["cpu"] / options["jobs"],
        "delay_mean": sum(seen) / len(seen),
        "delay_p99": seen[int(0.99 * (len(seen) - 1))],
    }


# Ours.


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Run a batch with a journal; with *seen*, what counts is when an end was seen and not when its outcome was in hand."""
    import kling_async.batch.batch
    import kling_async.client.poller  # noqa: F401  # else imported in the time measured
    from kling_async import Kling, MultiImage, Succeeded
    from kling_async.protocol.events import Event, Finished

    told: dict[str, float] = {}

    def hear(event: Event) -> None:
        if isinstance(event, Finished):
            told[event.task_id] = time.time()

    def jobs() -> Iterator[MultiImage]:
        for number in range(options["jobs"]):
            yield MultiImage(subject_images=_PICTURES, prompt=f"Wearing the dress, number {number}")

    async def run(seen: list[float]) -> dict[str, float]:
        lag = Lag()
        kling = Kling(
            access_key="a" * 32,
            secret_key="s" * 32,
            base_url=options["url"],
            slots=options["in_flight"],
            min_poll_interval=options.get("poll", _POLL),
            on_event=hear if options.get("seen") else None,
        )
        async with kling:
            await kling.images.multi_image.list(page_size=1)
            lag.start()
            with measured() as found:
                journal = Path(options["folder"]) / "journal.db" if options.get("journal", True) else None
                async with kling.batch(jobs(), journal=journal) as batch:
                    async for outcome in batch:
                        assert isinstance(outcome, Succeeded), outcome
                        assert outcome.task.updated_at is not None
                        noticed = told.pop(outcome.task.task_id, None) or time.time()
                        seen.append(noticed - outcome.task.updated_at.timestamp())
            return found | lag.stop()

    seen: list[float] = []
    return _summary(asyncio.run(run(seen)), options, seen)


# By hand.


def _body(number: int) -> dict[str, Any]:
    return {
        "model_name": "kling-v2-1",
        "prompt": f"Wearing the dress, number {number}",
        "subject_image_list": [{"subject_image": url} for url in _PICTURES],
        "n": 1,
        "external_task_id": f"bench-{number}",
    }


def script(options: dict[str, Any]) -> dict[str, float]:
    """Run a script as one writes it by hand: a coroutine a job."""
    import aiohttp

    async def one(
        session: aiohttp.ClientSession, slots: asyncio.Semaphore, number: int, seen: list[float]
    ) -> None:
        async with slots:
            async with session.post(options["url"] + _PATH, json=_body(number)) as reply:
                task = (await reply.json())["data"]
            while task["task_status"] not in {"succeed", "failed"}:
                await asyncio.sleep(options.get("poll", _POLL))
                async with session.get(f"{options['url']}{_PATH}/{task['task_id']}") as reply:
                    task = (await reply.json())["data"]
        seen.append(time.time() - task["updated_at"] / 1000)

    async def run(seen: list[float]) -> dict[str, float]:
        lag = Lag()
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer token"}) as session:
            (await session.get(f"{options['url']}{_PATH}?pageNum=1&pageSize=1")).release()
            lag.start()
            with measured() as found:
                slots = asyncio.Semaphore(options["in_flight"])
                await asyncio.gather(
                    *(one(session, slots, number, seen) for number in range(options["jobs"]))
                )
            return found | lag.stop()

    seen: list[float] = []
    return _summary(asyncio.run(run(seen)), options, seen)


def sweep(options: dict[str, Any]) -> dict[str, float]:
    """Run a hand-written loop that reads the list each half second and keeps a row a job."""
    import aiohttp

    async def create(
        session: aiohttp.ClientSession, numbers: Iterator[int], slots: asyncio.Semaphore, waiting: set[str]
    ) -> None:
        for number in numbers:
            await slots.acquire()
            async with session.post(options["url"] + _PATH, json=_body(number)) as reply:
                waiting.add((await reply.json())["data"]["task_id"])

    async def look(
        session: aiohttp.ClientSession, slots: asyncio.Semaphore, waiting: set[str], seen: list[float]
    ) -> None:
        page, expected = 1, len(waiting)
        while expected > 0:
            url = f"{options['url']}{_PATH}?pageNum={page}&pageSize=500"
            async with session.get(url) as reply:
                tasks = json.loads(await reply.read())["data"]
            for task in tasks:
                if task["task_id"] in waiting:
                    expected -= 1
                    if task["task_status"] in {"succeed", "failed"}:
                        waiting.discard(task["task_id"])
                        seen.append(time.time() - task["updated_at"] / 1000)
                        slots.release()
            page += 1
            if len(tasks) < 500:
                return

    async def run(seen: list[float]) -> dict[str, float]:
        lag = Lag()
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer token"}) as session:
            (await session.get(f"{options['url']}{_PATH}?pageNum=1&pageSize=1")).release()
            lag.start()
            with measured() as found:
                slots, waiting = asyncio.Semaphore(options["in_flight"]), set[str]()
                numbers = iter(range(options["jobs"]))
                creators = [asyncio.create_task(create(session, numbers, slots, waiting)) for _ in range(100)]
                while len(seen) < options["jobs"]:
                    await asyncio.sleep(options.get("poll", _POLL))
                    await look(session, slots, waiting, seen)
                await asyncio.gather(*creators)
            return found | lag.stop()

    seen: list[float] = []
    return _summary(asyncio.run(run(seen)), options, seen)


VARIANTS: Variants = {"ours": ours, "script": script, "sweep": sweep}


def measure(repeat: int) -> list[Figure]:
    """Compare at 1,000 and 5,000 in flight, then ours alone where only requests, delays or growth are asked for."""
    figures: list[Figure] = []
    for in_flight, jobs in ((1_000, 1_000), (5_000, 5_000)):
        options = {"jobs": jobs, "in_flight": in_flight}
        runs = compare(
            _NAME, ("ours", "script", "sweep"), options, repeat=repeat, server={"slots": in_flight}
        )
        figures += _compared(runs, jobs, f"{in_flight:,} in flight")
    return figures + _few() + _delays() + _growth(repeat)


def _compared(runs: dict[str, Run], jobs: int, where: str) -> list[Figure]:
    mine, hand, loop = runs["ours"], runs["script"], runs["sweep"]
    name = "cpu_per_job"
    return [
        at_most(
            "S1",
            f"client CPU a job, {where}, to a script: {mine[name]:.0f} to {hand[name]:.0f} µs",
            (mine, hand, name),
            0.2,
        ),
        at_most("S1", f"the same to a hand-written sweep of {loop[name]:.0f} µs", (mine, loop, name), 1.35),
        _requests(where, mine, jobs, 1.03, f" (script {hand['requests'] / jobs:.1f})"),
        # With the script it has most to do, so this says most of what it could do.
        _server(f"requests a second that the server could serve on its core, {where}", hand["server_rate"]),
    ]


def _server(what: str, found: float) -> Figure:
    return Figure("S1", what, "≥ 5,000", f"{found:,.0f}", found >= 5_000)


def _requests(where: str, run: Run, jobs: int, most: float, more: str = "") -> Figure:
    found = run["requests"] / jobs
    return Figure("S2", f"requests a job, {where}{more}", f"≤ {most:g}", f"{found:.3f}", found <= most)


def _delays() -> list[Figure]:
    """Say when ends are seen, and when their outcomes are in hand, their records on the disk."""
    figures = []
    for in_flight, jobs in ((10, 60), (1_000, 2_000), (5_000, 5_000)):
        server = {"slots": in_flight}
        for seen in (True, False):
            options = {"jobs": jobs, "in_flight": in_flight, "seen": seen}
            run = compare(_NAME, ["ours"], options, repeat=1, server=server)["ours"]
            mean, late = run["delay_mean"] / _POLL, run["delay_p99"] / _POLL
            what = "seen" if seen else "in hand"
            figures.append(
                Figure(
                    "S3",
                    f"poll intervals until an end is {what}, {in_flight:,} in flight, mean and p99",
                    "≤ 0.55 and 1.1" if seen else "-",
                    f"{mean:.2f} and {late:.2f}",
                    not seen or (mean <= 0.55 and late <= 1.1),
                )
            )
    return figures


def _few() -> list[Figure]:
    """Count requests where few tasks run; with nine slots a second here is sixteen of the service's."""
    options = {"jobs": 200, "in_flight": 100}
    hundred = compare(_NAME, ["ours"], options, repeat=1, server={"slots": 100})["ours"]
    scaled = {"jobs": 108, "in_flight": 9, "poll": _POLL / 16}
    server: dict[str, float] = {"slots": 9, "shortest": 18 / 16, "longest": 30 / 16}
    nine = compare(_NAME, ["ours"], scaled, repeat=1, server=server)["ours"]
    return [
        _requests("100 in flight", hundred, 200, 1.3),
        _requests("9 slots, tasks of 24 s, time scaled, learning included", nine, 108, 3.0),
    ]


def _growth(repeat: int) -> list[Figure]:
    """Run many jobs and few with the same number in flight at most."""
    found: dict[int, Run] = {}
    for jobs, times in ((1_000, repeat), (_MANY, 1)):
        options = {"jobs": jobs, "in_flight": 1_000}
        server = {"slots": 1_000, "shortest": 0.1, "longest": 0.3}
        runs = compare(_NAME, ["ours"], options, repeat=times, server=server)["ours"]
        found[jobs] = Run({"cpu_per_job": [runs["cpu_per_job"]]})
    few, many = found.values()
    return [at_most("S11", f"CPU a job of {_MANY:,} jobs to that of 1,000", (many, few, "cpu_per_job"), 1.1)]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
