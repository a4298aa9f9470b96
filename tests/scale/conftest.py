"""What the proofs on a cluster share: a service that keeps books, a store, and how large the proofs are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fault_server import Remote
from redis_kit import Server, server


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, the loop of Dask."""
    return "asyncio"


@pytest.fixture
def store() -> Iterator[Server]:
    """A server that keeps what it has over a restart."""
    with server(durable=True) as running:
        yield running


# The session that proves it all asks for many jobs, and also for a service that refuses doubled ids; the other is harder.
_MANY = os.environ.get("KLING_TEST_SCALE")
_MODES = {False: "not unique"} | ({True: "unique"} if _MANY else {})


@pytest.fixture(params=list(_MODES), ids=list(_MODES.values()))
def service(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A service of twenty slots that accepts more and writes it down; with and without unique external ids."""
    settings = {"slots": 20, "enforce": False, "unique": request.param, "life": {"seconds": 0.4}}
    with Remote.spawn(**settings) as running:
        yield running


@pytest.fixture
def any_service() -> Iterator[Remote]:
    """The same service in one mode, for what has nothing to do with doubled ids."""
    with Remote.spawn(slots=20, enforce=False, unique=False, life={"seconds": 0.4}) as running:
        yield running


@pytest.fixture
def size() -> int:
    """How many jobs a run has in which something dies."""
    return 40


@pytest.fixture
def stopped_for() -> float:
    """How many seconds a worker is stopped; after ten it is given up by scheduler and store, and its jobs are done again."""
    return 30.0 if _MANY else 12.0


@pytest.fixture
def many() -> int:
    """How many jobs a run has in which nothing does."""
    return int(_MANY or "60")
