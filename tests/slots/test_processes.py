"""Processes that share an account's slots, as web workers do, and one of them is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_server import Remote
from redis_kit import Server

import kling_async

_TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_processes_share_the_slots_also_when_one_is_killed(
    kind: str, redis_server: Server, tmp_path: Path
) -> None:
    """Three processes on one account; one dies by kill -9: the others finish, and never is a slot too many in use."""
    store = str(tmp_path / "slots.db") if kind == "sqlite" else redis_server.url
    life = {"seconds": 0.3}
    with Remote.spawn(slots=5, enforce=False, unique=False, life=life) as service:
        processes = [_start(service, store, name) for name in ("one", "two", "victim")]
        _wait_for(service, "victim", 2)
        processes[-1].kill()
        codes = [process.wait(timeout=100) for process in processes]
        books = service.books()

    finished = [name for name in books["accepted"] if not name.startswith("victim")]
    assert codes == [0, 0, -9]
    assert len(finished) == 20
    assert books["paid_twice"] == {}
    assert books["peak"] <= 5


def _start(service: Remote, store: str, name: str) -> subprocess.Popen[bytes]:
    options = {
        "url": service.url,
        "key": service.api_key,
        "store": store,
        "limit": 5,
        "jobs": 10,
        "name": name,
    }
    path = os.pathsep.join((str(Path(kling_async.__file__).parents[1]), str(_TESTS)))
    command = [sys.executable, str(_TESTS / "slots_process.py"), json.dumps(options)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


def _wait_for(service: Remote, name: str, count: int) -> None:
    end = time.monotonic() + 60
    while sum(one.startswith(name) for one in service.books(log=False)["accepted"]) < count:
        assert time.monotonic() < end, "the service has accepted nothing"
        time.sleep(0.05)
