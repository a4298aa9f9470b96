"""The loop of the tests of the batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# `socket_kit` lies beside this folder; the tests are no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, the loop of aiohttp."""
    return "asyncio"
