"""Workers of a Celery queue on one account (examples/scale/celery_worker.py)."""

from __future__ import annotations

import importlib

import pytest
from recipe_kit import EXAMPLES, JOBS, place


@pytest.mark.timeout(120)
# Celery's own workings close their sockets when they are collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_celery_workers_share_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers of a queue never pass the limit, and every job is made once."""
    threads = ("--pool", "threads", "--concurrency", "8", "-l", "ERROR")
    with place() as here, here.workers("celery", "-A", "celery_worker", "worker", *threads):
        for name, text in here.environment.items():
            monkeypatch.setenv(name, text)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        worker = importlib.import_module("celery_worker")

        handles = [worker.paint.delay(f"robot {number}") for number in range(JOBS)]
        links = [handle.get(timeout=90) for handle in handles]

        assert [len(urls) for urls in links] == [1] * JOBS
        here.assert_paid_once(JOBS)
