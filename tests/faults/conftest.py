"""Servers for the fault tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fault_server import FaultServer


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, the loop of aiohttp."""
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A server with nine slots that refuses doubled external ids, and nothing wrong with it yet."""
    async with FaultServer() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["unique", "not unique"])
def server_in_two_modes(server: FaultServer, request: pytest.FixtureRequest) -> FaultServer:
    """A server that refuses doubled external ids, and one that would bill them."""
    server.change(unique=request.param)
    return server
