"""What all tests share: the loop they run on, and the package's own pytest plugin."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from hypothesis import settings

# A busy machine is no slow code; how long a test may take as a whole is pytest-timeout's business.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="kling_async"):
    # Run from a checkout, where nothing is installed that would announce it.
    pytest_plugins.append("kling_async.testing.plugin")


@pytest.fixture
def anyio_backend() -> str:
    """Run tests marked `anyio` on asyncio, the loop of aiohttp."""
    return "asyncio"
