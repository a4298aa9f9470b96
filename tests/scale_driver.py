"""A driver in a process of its own, for tests that kill it: `python scale_driver.py '{"address": …, "jobs": 40, …}'`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from distributed import Client

from kling_async import MultiImage
from kling_async.protocol.endpoints import Timeouts
from kling_async.scale import DaskEngine, Driver, KlingStage
from kling_async.slots import Terms

__all__ = ["TERMS", "jobs_of", "stage_of"]

# Short, so that nobody waits long for what the dead hold; a create takes milliseconds here.
TERMS = Terms(settle=0.5, patience=4.0, orphan=6.0)
_TIMEOUTS = Timeouts(connect=2, request=4, settle=1.0)


def jobs_of(count: int, name: str = "k", most: int = 9) -> list[MultiImage]:
    """Return jobs of weights 1 to *most*."""
    picture = ["https://example.com/dress.png"]
    return [
        MultiImage(
            key=f"{name}{number}", subject_images=picture, prompt=f"{name} {number}", n=1 + number % most
        )
        for number in range(count)
    ]


def stage_of(url: str, limit: int | None, kind: type[KlingStage] = KlingStage) -> KlingStage:
    """Return a stage for the service at *url*."""
    return kind(run="", base_url=url, limit=limit, terms=TERMS, timeouts=_TIMEOUTS, min_poll_interval=0.1)


async def _run(options: dict[str, Any]) -> None:
    connect: Any = Client  # which has no types
    async with connect(options["address"], asynchronous=True, set_as_default=False) as client:
        engine = DaskEngine(client, patience=8.0)
        driver = Driver(engine, stage_of(options["url"], options["limit"]), options["out"])
        await driver.run(jobs_of(options["jobs"]))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
