"""
Downloads (S10): result pictures of 2 MB into files, beside a bare aiohttp loop that checks nothing.

Twice: on one core each for client and server, and with both free to use all cores, since the client hashes and writes in
threads. A third variant is the bare loop with a SHA-256 of what it writes: the one cost that no care can take away.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import TIMES, Figure, Run, Variants, compare, main, measured, median, spread

_NAME = "benchmarks.downloads"
_AT_ONCE = 16
_PICTURES = 1000


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Save them as a batch does: length, signature and size checked, hashed, on the disk, renamed into place."""
    from kling_async.client.clock import Clock
    from kling_async.client.emitter import Emitter
    from kling_async.client.results import Downloads
    from kling_async.transport.downloads import FetchRules
    from kling_async.transport.files import FolderShelf

    async def run() -> dict[str, float]:
        downloads = Downloads.under(FetchRules(allow_private=True), Clock(), Emitter())
        shelf = FolderShelf(Path(options["folder"]))
        numbers = count()

        async def work() -> None:
            while (number := next(numbers)) < options["pictures"]:
                await downloads.save(f"{options['url']}/result/{number}.png", shelf, f"picture-{number}")

        try:
            with measured() as found:
                await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        finally:
            await downloads.aclose()
        return found

    _spread_out(options)
    return asyncio.run(run())


def bare(options: dict[str, Any]) -> dict[str, float]:
    """Write what comes."""
    return _loop(options, hashed=False)


def hashing(options: dict[str, Any]) -> dict[str, float]:
    """Write what comes, and hash it."""
    return _loop(options, hashed=True)


def _loop(options: dict[str, Any], *, hashed: bool) -> dict[str, float]:
    import aiohttp

    async def run() -> dict[str, float]:
        numbers = count()
        async with aiohttp.ClientSession() as session:

            async def work() -> None:
                while (number := next(numbers)) < options["pictures"]:
                    path = Path(options["folder"]) / f"{number}.png"
                    digest = hashlib.sha256()
                    async with session.get(f"{options['url']}/result/{number}.png") as reply:
                        with path.open("wb") as file:  # as a simple script does
                            async for chunk in reply.content.iter_chunked(65536):
                                file.write(chunk)
                                if hashed:
                                    digest.update(chunk)

            with measured() as found:
                await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        return found

    _spread_out(options)
    return asyncio.run(run())


def _spread_out(options: dict[str, Any]) -> None:
    """Use all cores where that is asked for; by default a client has one."""
    if options.get("free"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


VARIANTS: Variants = {"ours": ours, "bare": bare, "hashing": hashing}


def measure(repeat: int) -> list[Figure]:
    """Compare the rates, which are the inverse of the time."""
    server = {"picture_bytes": 2_000_000}
    options = {"pictures": _PICTURES}
    pinned = compare(_NAME, ("ours", "bare", "hashing"), options, repeat=repeat, server=server)
    free = compare(_NAME, ("ours", "bare"), options | {"free": True}, repeat=repeat, server=server)
    return [
        _rate("rate of downloads of 2 MB to a bare loop, one core each", pinned["bare"], pinned["ours"], 0.8),
        _rate("the same, all cores for both", free["bare"], free["ours"], 0.8),
        _rate("the same, one core, to a loop that hashes too", pinned["hashing"], pinned["ours"], None),
        Figure("S10", "CPU, one core", "-", spread(pinned["ours"], pinned["bare"], "cpu"), met=True),
    ]


def _rate(what: str, loop: Run, mine: Run, least: float | None) -> Figure:
    wanted = f"≥ {least:g} {TIMES}" if least is not None else "-"
    met = least is None or median(loop, mine, "seconds") >= least
    return Figure("S10", what, wanted, spread(loop, mine, "seconds"), met)


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
