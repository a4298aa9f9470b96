"""What the tests of recipes share: two workers of a queue, a service that keeps books, and a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from fault_server import Remote
from redis_kit import Server, server

import kling_async

__all__ = ["EXAMPLES", "JOBS", "Place", "place"]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "scale"
JOBS = 12
_PACKAGE = Path(kling_async.__file__).parents[1]
_LIMIT = 5


@frozen
class Place:
    """A service and a store, which is the queue's, too."""

    service: Remote
    store: Server

    @property
    def environment(self) -> dict[str, str]:
        """What workers are told."""
        return {
            "KLING_API_KEY": self.service.api_key,
            "KLING_BASE_URL": self.service.url,
            "KLING_SLOTS_STORE": self.store.url,
        }

    @contextmanager
    def workers(self, *command: str) -> Iterator[None]:
        """Run two processes of the module and options of *command*."""
        path = os.pathsep.join((str(_PACKAGE), str(EXAMPLES)))
        environment = {**os.environ, **self.environment, "PYTHONPATH": path}
        with ExitStack() as stack:
            for _ in range(2):
                worker = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    env=environment,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                stack.callback(_end, worker)
            yield

    def assert_paid_once(self, jobs: int) -> None:
        """Demand that *jobs* were accepted once each, within the slots of the account."""
        books = self.service.books(log=False)
        assert len(books["accepted"]) == jobs
        assert books["paid_twice"] == {}
        assert books["peak"] <= _LIMIT


def _end(worker: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        # Its own session, so nobody else's.
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@contextmanager
def place() -> Iterator[Place]:
    """Run a store, and a service of five slots that accepts more, and doubled ids, and writes both down."""
    settings: dict[str, Any] = {"slots": _LIMIT, "enforce": False, "unique": False, "life": {"seconds": 0.8}}
    with server() as store, Remote.spawn(**settings) as service:
        yield Place(service, store)
