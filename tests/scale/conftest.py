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


@pytest.fixture(params=[True, False], ids=["unique", "not unique"])
def service(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A service of twenty slots that accepts more and writes it down; with and without unique external ids."""
    settings = {"slots": 20, "enforce": False, "unique": request.param, "life": {"seconds": 0.4}}
    with Remote.spawn(**settings) as running:
        yield running


@pytest.fixture
def size() -> int:
    """How many jobs a run has: few, unless the session that proves it all asks for more."""
    return int(os.environ.get("KLING_TEST_SCALE", "40"))
