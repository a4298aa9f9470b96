"""Emulators for these tests, opened with options and closed at their end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from emulator_kit import Caller, Opener

from kling_async.emulator import Emulator


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, the loop of aiohttp."""
    return "asyncio"


@pytest.fixture
async def emulate() -> AsyncIterator[Opener]:
    """A function that opens an emulator: time by hand and stamps for pictures unless told otherwise."""
    async with AsyncExitStack() as stack:

        async def opened(**options: Any) -> Caller:
            emulator = await stack.enter_async_context(
                Emulator(**{"speed": "manual", "paint": "stamp"} | options)
            )
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Caller(emulator, session)

        yield opened
