"""
Workers of a Celery queue that share an account's slots with each other and with everything else that uses the store.

Start as many as you like: `celery -A celery_worker worker --pool threads --concurrency 50`. Celery's tasks are plain
functions, so each process keeps one event loop in a thread of its own, which all of them use. A job that is delivered
again, because its worker died, finds the task of the first time and is not paid again. Credentials and
KLING_SLOTS_STORE come from the environment; the queue is in the same server.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from celery import Celery, Task

from kling_async.scale import KlingStage

PICTURES = Path(__file__).parents[1] / "pictures"
# The run's name is part of what tells tasks apart: keep it, or the same jobs are made anew.
STAGE = KlingStage(run="shop", limit=5)

app = Celery("shop", broker=os.environ["KLING_SLOTS_STORE"], backend=os.environ["KLING_SLOTS_STORE"])
# A message is done with when its job is, not when a worker has taken it.
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)

_lock = threading.Lock()
_open = ExitStack()
_portals: list[BlockingPortal] = []


def portal() -> BlockingPortal:
    """Return the way to this process's event loop."""
    with _lock:
        if not _portals:
            _portals.append(_open.enter_context(start_blocking_portal()))
        return _portals[0]


@app.task(bind=True, max_retries=None)
def paint(self: Task, prompt: str) -> list[str]:
    """Make one picture and return its links."""
    job = {"key": self.request.id, "subject_images": [str(PICTURES / "robot.jpg")], "prompt": prompt}
    row: dict[str, Any] = portal().call(STAGE.run, job)
    if not row["final"]:
        raise self.retry(countdown=5)
    if row["error"] is not None:
        raise RuntimeError(row["error"]["message"])
    urls: list[str] = row["urls"]
    return urls
