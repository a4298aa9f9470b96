"""The journal (S8): events beside a standard-library commit each, and how soon a resumed run is back at work."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figure, Lag, Run, Variants, at_most, compare, main, measured

if TYPE_CHECKING:
    from kling_async.protocol.lifecycle import JobRecord

_NAME = "benchmarks.records"


def _lives(jobs: int) -> list[tuple[JobRecord, ...]]:
    from kling_async.protocol.lifecycle import JobRecord, JobState

    lives: list[tuple[JobRecord, ...]] = []
    for number in range(jobs):
        name = f"{number * 2654435761 % 2**32:08x}" * 4
        new = JobRecord(key=name[:16], fingerprint=name, external_task_id=f"ka-{name}", model="kling-v2-1")
        sent = new.moved(JobState.SUBMITTING, account="default", units=16, submitted_at=1.5e9)
        made = sent.moved(JobState.SUBMITTED, task_id=f"{number:018d}")
        ended = made.moved(JobState.SUCCEEDED, ended_at=1.5e9)
        result = {
            "key": new.key,
            "status": "succeeded",
            "task_id": made.task_id,
            "files": [f"images/{new.key}_0.png"],
        }
        lives.append((sent, made, ended, ended.moved(JobState.DONE, result=result)))
    return lives


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Record the lives of many jobs: the intent awaited, the rest noted, some hundred jobs at once."""
    from kling_async.journal.journal import Journal

    lives = _lives(options["events"] // 4)

    async def work(journal: Journal, numbers: count[int], stage: int) -> None:
        while (number := next(numbers)) < len(lives):
            if stage == 0:
                await journal.record(lives[number][stage])
            else:
                journal.note(lives[number][stage])
                await asyncio.sleep(0)

    async def run() -> dict[str, float]:
        journal, lag = await Journal.open(Path(options["folder"]) / "journal.db"), Lag()
        lag.start()
        with measured() as found:
            # A job's events lie seconds apart, so they never meet in one commit.
            for stage in range(4):
                numbers = count()
                await asyncio.gather(*(work(journal, numbers, stage) for _ in range(500)))
                await journal.flush()
        found |= lag.stop()
        await journal.aclose()
        return found

    return _by_event(asyncio.run(run()), 4 * len(lives))


def each(options: dict[str, Any]) -> dict[str, float]:
    """Commit each event by itself with the standard library, as durable."""
    db = sqlite3.connect(Path(options["folder"]) / "journal.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE jobs (key TEXT PRIMARY KEY, state TEXT, task_id TEXT, result TEXT)")
    events = [event for life in _lives(options["events"] // 4) for event in life]
    with measured() as found:
        for event in events:
            row = (event.key, event.state.value, event.task_id, str(event.result))
            db.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)", row)
    return _by_event(found, len(events))


def _by_event(found: dict[str, float], events: int) -> dict[str, float]:
    return found | {"each": found["seconds"] / events, "cpu_each": 1e6 * found["cpu"] / events}


def resume(options: dict[str, Any]) -> dict[str, float]:
    """Start a batch on the journal of a long run with some tasks under way, until their first request was answered."""
    from kling_async import Kling
    from kling_async.batch.batch import Batch
    from kling_async.journal.storage import Storage

    path = Path(options["folder"]) / "journal.db"
    lives = _lives(options["rows"])
    storage = Storage.open(path)
    storage.write(life[1] if number < options["live"] else life[3] for number, life in enumerate(lives))
    storage.close()
    os.sync()  # what the preparation left to be written is not what is measured

    async def run() -> float:
        answered = asyncio.Event()
        kling = Kling(
            api_key="k" * 40,
            base_url=options["url"],
            slots=options["live"],
            on_event=lambda _: answered.set(),
        )
        async with kling:
            began = time.perf_counter()
            batch: Batch = kling.batch((), journal=path)
            async with batch:
                await answered.wait()
                return time.perf_counter() - began

    return {"seconds": asyncio.run(run())}


def passed(options: dict[str, Any]) -> dict[str, float]:
    """Run a manifest whose rows are all done but the last, until the answer to that one's create is there."""
    from kling_async import Batch, Kling, MultiImage, read_manifest
    from kling_async.batch.manifest import digest_of
    from kling_async.journal.storage import Storage
    from kling_async.protocol.events import Submitted
    from kling_async.protocol.lifecycle import JobRecord, JobState

    folder = Path(options["folder"])
    row: dict[str, Any] = {
        "prompt": "Wearing the dress",
        "subject_images": ["https://example.com/dress.png"],
        "n": 1,
    }
    lines = [json.dumps({"key": f"row-{number:07}"} | row) for number in range(options["rows"])]
    (folder / "jobs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = JobRecord(
        key="", fingerprint=MultiImage(**row).fingerprint(), state=JobState.DONE, result={"files": ["a.png"]}
    )
    storage = Storage.open(folder / "journal.db")
    storage.set_meta({"run": "run", "clean": "yes", "rebuilt": "no", "pictures": ""})
    storage.write(
        done.revised(key=f"row-{number:07}", row=digest_of(line.encode()))
        for number, line in enumerate(lines[:-1])
    )
    storage.close()
    os.sync()  # what the preparation left to be written is not what is measured

    async def take(batch: Batch) -> None:
        async for _ in batch:
            pass

    async def run() -> dict[str, float]:
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def hear(event: object) -> None:
            if isinstance(event, Submitted):
                answered.set_result(time.perf_counter())

        kling = Kling(api_key="k" * 40, base_url=options["url"], slots=1, on_event=hear)
        with measured() as found:
            began = time.perf_counter()
            rows = read_manifest(folder / "jobs.jsonl")
            async with kling, kling.batch(rows, journal=folder / "journal.db") as batch:
                taking = asyncio.create_task(take(batch))
                # Not until the task has ended, which takes its own seconds.
                seconds = await asyncio.wait_for(answered, 120) - began
                taking.cancel()
        return found | {"seconds": seconds}

    return asyncio.run(run())


VARIANTS: Variants = {"ours": ours, "each": each, "resume": resume, "passed": passed}


def measure(repeat: int) -> list[Figure]:
    """Compare the time an event takes, and a job with a journal to one without; then resume."""
    mine = compare(_NAME, ["ours"], {"events": 20_000}, repeat=repeat)["ours"]
    other = compare(_NAME, ["each"], {"events": 2_000}, repeat=repeat)["each"]
    server = {"slots": 1_000}
    again = compare(_NAME, ["resume"], {"rows": 100_000, "live": 1_000}, repeat=1, server=server)["resume"]
    last = compare(_NAME, ["passed"], {"rows": 1_000_000}, repeat=1, server={"slots": 1})["passed"]
    load = {"jobs": 3_000, "in_flight": 1_000}
    kept = compare("benchmarks.jobs", ["ours"], load, repeat=repeat, server=server)["ours"]
    bare = compare("benchmarks.jobs", ["ours"], load | {"journal": 0}, repeat=repeat, server=server)["ours"]
    share = 1 - bare["cpu_per_job"] / kept["cpu_per_job"]
    return [
        at_most(
            "S8",
            f"time an event ({1 / mine['each']:,.0f}/s) to that of a commit each",
            (mine, other, "each"),
            1 / 25,
        ),
        _plain("CPU an event", mine, "cpu_each", 12, "µs"),
        _plain("lag of the loop meanwhile, p99", mine, "lag_p99", 5, "ms"),
        Figure("S8", "the journal's share of a job's CPU", "≤ 15 %", f"{share:.0%}", share <= 0.15),
        _plain("from start to the first answer, 100,000 rows, 1,000 live", again, "seconds", 1, "s"),
        _plain(
            f"the same behind 1,000,000 rows that are done ({last['cpu']:.1f} s of CPU)",
            last,
            "seconds",
            8,
            "s",
        ),
    ]


def _plain(what: str, run: Run, name: str, most: float, unit: str) -> Figure:
    return Figure("S8", what, f"≤ {most} {unit}", f"{run[name]:.2f} {unit}", run[name] <= most)


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
