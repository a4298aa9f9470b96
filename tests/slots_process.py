"""A program among several that share an account: `python slots_process.py '{"url": …, "store": …, "jobs": 20, …}'`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from kling_async import Kling, MultiImage
from kling_async.protocol.endpoints import Timeouts
from kling_async.slots import RedisSlots, SlotStore, SqliteSlots, Terms

_TERMS = Terms(settle=0.5, patience=3.0, orphan=4.0)


async def _run(options: dict[str, Any]) -> None:
    named = options["store"]
    store: SlotStore
    if named.startswith("redis://"):
        store = RedisSlots(named, options["limit"], terms=_TERMS)
    else:
        store = SqliteSlots(Path(named), options["limit"], terms=_TERMS)
    picture = ["https://example.com/dress.png"]
    async with Kling(
        api_key=options["key"],
        base_url=options["url"],
        slots=store,
        timeout=Timeouts(connect=5, request=10, settle=0.5),
        min_poll_interval=0.05,
    ) as kling:
        jobs = (
            MultiImage(
                subject_images=picture,
                prompt=f"{options['name']} {number}",
                n=1 + number % 5,
                external_task_id=f"{options['name']}-{number}",
            )
            for number in range(options["jobs"])
        )
        await asyncio.gather(*(kling.images.multi_image.run(job, wait_timeout=100) for job in jobs))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
