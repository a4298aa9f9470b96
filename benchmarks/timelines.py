"""
Draw two runs of the same jobs as pictures for the docs: a batch, and a script as one writes it by hand.

The same 150 jobs of one to four pictures on 50 slots, with a second of the run for eight of the service's. The script
holds a semaphore of as many tasks as there are slots, sleeps on a refusal as most do, and asks for each task by itself.
The batch is drawn from its journal, as `kling-async timeline` does; a script has none, so it is drawn from the server's books.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.harness import ROOT, Server
from kling_async import Kling, MultiImage, Succeeded
from kling_async.report.bars import Bar, read_bars
from kling_async.report.timeline import draw

_SLOTS, _JOBS = 50, 150
_SCALE = 8
_TIMES = {"shortest": 20 / _SCALE, "longest": 28 / _SCALE}
_POLL = 0.5 / _SCALE
_SLEEP = 5 / _SCALE
_URL = "https://example.com/woman.png"
_FOLDER = ROOT / "docs" / "images"


def _weights() -> list[int]:
    dice = Random(3)
    return [dice.randint(1, 4) for _ in range(_JOBS)]


async def _batch(url: str, journal: Path) -> None:
    def jobs() -> Iterator[MultiImage]:
        for number, n in enumerate(_weights()):
            yield MultiImage(subject_images=[_URL], prompt=f"dress {number}", n=n, key=f"{number}")

    async with Kling(api_key="k" * 40, base_url=url, slots=_SLOTS, min_poll_interval=_POLL) as kling:
        async for outcome in kling.batch(jobs(), journal=journal):
            assert isinstance(outcome, Succeeded), outcome


async def _script(url: str) -> int:
    import aiohttp

    path, refused = f"{url}/v1/images/multi-image2image", 0

    async def one(session: aiohttp.ClientSession, slots: asyncio.Semaphore, body: dict[str, Any]) -> None:
        nonlocal refused
        async with slots:
            while True:
                async with session.post(path, json=body) as reply:
                    answer = await reply.json()
                if answer["code"] == 0:
                    break
                refused += 1
                await asyncio.sleep(_SLEEP)
            task = answer["data"]
            while task["task_status"] not in {"succeed", "failed"}:
                await asyncio.sleep(_POLL)
                async with session.get(f"{path}/{task['task_id']}") as reply:
                    task = (await reply.json())["data"]

    slots = asyncio.Semaphore(_SLOTS)
    bodies = [{"subject_image_list": [{"subject_image": _URL}], "n": n} for n in _weights()]
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, slots, body) for body in bodies))
    return refused


def _bars(spans: Sequence[tuple[float, float, int]]) -> list[Bar]:
    first = min(start for start, _, _ in spans)
    return [Bar(start=start - first, end=end - first, slots=slots) for start, end, slots in spans]


def main() -> None:
    """Run both and write `timeline-batch.svg` and `timeline-script.svg`."""
    with tempfile.TemporaryDirectory() as folder:
        with Server(slots=_SLOTS, **_TIMES) as server:
            asyncio.run(_batch(server.url, Path(folder) / "journal.db"))
            books = server.books()
        bars = read_bars(Path(folder) / "journal.db")
    _write("timeline-batch.svg", bars, f"kling.batch(), {books['refused']} refusals", books)
    with Server(slots=_SLOTS, **_TIMES) as server:
        refused = asyncio.run(_script(server.url))
        bars, books = tuple(_bars(server.spans())), server.books()
    _write("timeline-script.svg", bars, f"a script with a semaphore, {refused} refusals", books)


def _write(name: str, bars: Sequence[Bar], title: str, books: dict[str, Any]) -> None:
    (_FOLDER / name).write_text(draw(bars, slots=_SLOTS, title=title), encoding="utf-8")
    print(f"{title}: {books['utilisation']:.3f} of the slots used by the service's own books")


if __name__ == "__main__":
    main()
