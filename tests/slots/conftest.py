"""One server for all tests of a process: they use lanes of different names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_kit import Server, server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Run a server for the whole session."""
    with server() as running:
        yield running
