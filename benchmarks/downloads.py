"""Downloads (S10): result pictures of 2 MB into files, beside a bare aiohttp loop that checks nothing."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import TIMES, Figure, Variants, compare, main, measured, median, spread

_NAME = "benchmarks.downloads"
_AT_ONCE = 16


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Save them as a batch does: length, signature and size checked, on the disk, renamed into place."""
    from kling_async.client.clock import Clock
    from kling_async.client.emitter import Emitter
    from kling_async.client.results import Downloads
    from kling_async.transport.downloads import FetchRules

    async def run() -> dict[str, float]:
        downloads = Downloads.under(FetchRules(allow_private=True), Clock(), Emitter())
        numbers = count()

        async def work() -> None:
            while (number := next(numbers)) < options["pictures"]:
                url = f"{options['url']}/result/{number}.png"
                await downloads.save(url, Path(options["folder"]), f"picture-{number}")

        try:
            with measured() as found:
                await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        finally:
            await downloads.aclose()
        return found

    return asyncio.run(run())


def bare(options: dict[str, Any]) -> dict[str, float]:
    """Write what comes."""
    import aiohttp

    async def run() -> dict[str, float]:
        numbers = count()
        async with aiohttp.ClientSession() as session:

            async def work() -> None:
                while (number := next(numbers)) < options["pictures"]:
                    path = Path(options["folder"]) / f"{number}.png"
                    async with session.get(f"{options['url']}/result/{number}.png") as reply:
                        with path.open("wb") as file:  # as a simple script does
                            async for chunk in reply.content.iter_chunked(65536):
                                file.write(chunk)

            with measured() as found:
                await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        return found

    return asyncio.run(run())


VARIANTS: Variants = {"ours": ours, "bare": bare}


def measure(repeat: int) -> list[Figure]:
    """Compare the rates, which are the inverse of the time."""
    server = {"picture_bytes": 2_000_000}
    runs = compare(_NAME, ("ours", "bare"), {"pictures": 200}, repeat=repeat, server=server)
    mine, loop = runs["ours"], runs["bare"]
    rate = median(loop, mine, "seconds")
    return [
        Figure(
            "S10",
            "rate of downloads of 2 MB, to a bare loop",
            f"≥ 0.8 {TIMES}",
            spread(loop, mine, "seconds"),
            rate >= 0.8,
        ),
        Figure("S10", "CPU of the same", "-", spread(mine, loop, "cpu"), met=True),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
