"""
Workers of an arq queue that share an account's slots with each other and with everything else that uses the store.

Start as many as you like, on any machine: `arq arq_worker.WorkerSettings`. Each does up to fifty jobs at once. A job
that is delivered again, because its worker died or its message got lost, finds the task of the first time and is not
paid again. Credentials and KLING_SLOTS_STORE come from the environment; the queue is in the same server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from arq import Retry
from arq.connections import RedisSettings

from kling_async.scale import KlingStage

PICTURES = Path(__file__).parents[1] / "pictures"
# The run's name is part of what tells tasks apart: keep it, or the same jobs are made anew.
STAGE = KlingStage(run="shop", limit=5)


async def paint(context: dict[str, Any], prompt: str) -> list[str]:
    """Make one picture and return its links."""
    job = {"key": context["job_id"], "subject_images": [str(PICTURES / "robot.jpg")], "prompt": prompt}
    row = await STAGE.run(job)
    if not row["final"]:
        raise Retry(defer=5)
    if row["error"] is not None:
        raise RuntimeError(row["error"]["message"])
    urls: list[str] = row["urls"]
    return urls


async def close(_: dict[str, Any]) -> None:
    """Give back what the worker holds."""
    await STAGE.aclose()


class WorkerSettings:
    """What arq reads."""

    functions = (paint,)
    on_shutdown = close
    redis_settings = RedisSettings.from_dsn(os.environ["KLING_SLOTS_STORE"])
    max_jobs = 50
    job_timeout = 3600
    max_tries = 100
