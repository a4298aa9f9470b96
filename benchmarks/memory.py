"""What waits in memory (S7): tasks in flight, the collector's pause over them, and a long manifest."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figure, Variants, compare, main, measured, resident

if TYPE_CHECKING:
    from kling_async import MultiImage

_NAME = "benchmarks.memory"
_URL = "https://example.com/woman.png"


def _full_collection() -> float:
    gc.collect()
    began = time.perf_counter()
    gc.collect()
    return 1000 * (time.perf_counter() - began)


def in_flight(options: dict[str, Any]) -> dict[str, float]:
    """Fill a batch with tasks that do not end, and weigh it."""
    import kling_async.batch.batch  # noqa: F401  # else imported in the time measured
    from kling_async import Kling, MultiImage

    def jobs() -> Iterator[MultiImage]:
        for number in range(options["jobs"]):
            yield MultiImage(subject_images=[_URL], prompt=f"number {number}")

    async def run() -> dict[str, float]:
        kling = Kling(api_key="k" * 40, base_url=options["url"], slots=options["jobs"], min_poll_interval=5.0)
        async with kling:
            await kling.images.multi_image.list(page_size=1)
            gc.collect()
            before = resident()
            async with kling.batch(jobs(), journal=Path(options["folder"]) / "journal.db") as batch:
                while batch.statistics().in_flight < options["jobs"]:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.2)
                gc.collect()
                return {
                    "bytes": (resident() - before) * 2**20 / options["jobs"],
                    "pause": _full_collection(),
                }

    return asyncio.run(run())


def coroutines(options: dict[str, Any]) -> dict[str, float]:
    """Keep a coroutine for each job, as a script does."""

    async def wait(number: int, gate: asyncio.Event) -> int:
        job = {"prompt": f"number {number}", "subject_image_list": [{"subject_image": _URL}]}
        task = json.loads(json.dumps({"task_id": f"{number:018d}", "task_status": "processing"}))
        await gate.wait()
        return len(job) + len(task)

    async def run() -> dict[str, float]:
        gate = asyncio.Event()
        gc.collect()
        before = resident()
        tasks = [asyncio.create_task(wait(number, gate)) for number in range(options["jobs"])]
        await asyncio.sleep(0)
        found = {"bytes": (resident() - before) * 2**20 / options["jobs"], "pause": _full_collection()}
        gate.set()
        await asyncio.gather(*tasks)
        return found

    return asyncio.run(run())


def manifest(options: dict[str, Any]) -> dict[str, float]:
    """Read a manifest of many rows to its end, as a batch does; and start a batch with it."""
    from kling_async import Kling
    from kling_async.batch.entries import entries
    from kling_async.batch.manifest import read_manifest

    path = Path(options["folder"]) / "jobs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(options["rows"]):
            row = {"key": f"row-{number:07d}", "prompt": f"number {number}", "subject_images": [_URL]}
            file.write(json.dumps(row) + "\n")

    async def first_create() -> float:
        async with Kling(api_key="k" * 40, base_url=options["url"], slots=9) as kling:
            began = time.perf_counter()
            async with kling.batch(read_manifest(path)) as batch:
                while not batch.statistics().creates:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.01)
                return time.perf_counter() - began

    async def read() -> int:
        return sum([1 async for _ in entries(read_manifest(path))])

    first = asyncio.run(first_create())
    with measured() as found:
        rows = asyncio.run(read())
    assert rows == options["rows"], f"{rows} rows were read"
    return found | {"first": first}


VARIANTS: Variants = {"in_flight": in_flight, "coroutines": coroutines, "manifest": manifest}


def measure(repeat: int, jobs: int = 20_000, rows: int = 200_000) -> list[Figure]:
    """Weigh once: memory does not vary as time does."""
    del repeat
    server = {"slots": jobs, "shortest": 600.0, "longest": 900.0}
    mine = compare(_NAME, ["in_flight"], {"jobs": jobs}, repeat=1, server=server)["in_flight"]
    hand = compare(_NAME, ["coroutines"], {"jobs": jobs}, repeat=1)["coroutines"]
    long = compare(_NAME, ["manifest"], {"rows": rows}, repeat=1, server=server)["manifest"]
    size, pause = mine["bytes"] / 1024, mine["pause"]
    return [
        Figure(
            "S7",
            f"memory a task in flight, {jobs:,} (a bare coroutine: {hand['bytes'] / 1024:.1f} KB)",
            "≤ 0.6 KB",
            f"{size:.1f} KB",
            size <= 0.6,
        ),
        Figure(
            "S7",
            f"a full collection over {jobs:,} in flight (bare coroutines: {hand['pause']:.0f} ms)",
            "≤ 60 ms at 100,000",
            f"{pause:.0f} ms",
            pause <= 60 * jobs / 100_000,
        ),
        Figure(
            "S7",
            f"memory to read a manifest of {rows:,} rows",
            "< 100 MB a million",
            f"{long['grown']:.0f} MB",
            long["grown"] < 100 * rows / 1_000_000,
        ),
        Figure("S7", "until the first create of it", "≤ 2 s", f"{long['first']:.2f} s", long["first"] <= 2),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=1)
