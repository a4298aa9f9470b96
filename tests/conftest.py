"""What all tests share: the loop they run on, and the package's own pytest plugin."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="kling_async"):
    # Run from a checkout, where nothing is installed that would announce it.
    pytest_plugins.append("kling_async.testing.plugin")


@pytest.fixture
def anyio_backend() -> str:
    """Run tests marked `anyio` on asyncio, the loop of aiohttp."""
    return "asyncio"
