"""Workers of an arq queue and a web worker on one account (examples/scale/arq_worker.py)."""

from __future__ import annotations

import asyncio

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from recipe_kit import JOBS, place

from kling_async import Kling
from kling_async.slots import RedisSlots


@pytest.mark.timeout(120)
def test_arq_workers_and_a_web_worker_share_the_slots() -> None:
    """Two workers of a queue and a client beside them never pass the limit; what is delivered again is found again."""
    asyncio.run(_share())


async def _share() -> None:
    with place() as here, here.workers("arq", "arq_worker.WorkerSettings"):
        pool = await create_pool(RedisSettings.from_dsn(here.store.url))
        names = [f"job{number}" for number in range(JOBS)]
        jobs = [await pool.enqueue_job("paint", f"robot {name}", _job_id=name) for name in names]
        slots = RedisSlots(here.store.url)
        async with Kling(api_key=here.service.api_key, base_url=here.service.url, slots=slots) as kling:
            web = kling.images.multi_image.run(
                subject_images=["https://example.com/a.png"], prompt="web", n=2
            )
            _, *links = await asyncio.gather(
                web, *(job.result(timeout=90) for job in jobs if job is not None)
            )
        # As if a worker's answer had been lost.
        await pool.delete("arq:result:job0")
        again = await pool.enqueue_job("paint", "robot job0", _job_id="job0")
        assert again is not None
        found = await again.result(timeout=60)
        await pool.aclose()

        assert [len(urls) for urls in links] == [1] * JOBS
        assert found == links[0]
        here.assert_paid_once(JOBS + 1)
