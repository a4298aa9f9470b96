"""Taking jobs from a source: the loop has its turn, and what waits is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from kling_async.batch.intake import Intake

pytestmark = pytest.mark.anyio


async def _numbers(most: int) -> AsyncGenerator[int, None]:
    for number in range(most):
        yield number


async def _waits() -> AsyncGenerator[int, None]:
    yield 1
    await asyncio.Event().wait()


async def test_a_source_that_never_waits_does_not_keep_the_loop() -> None:
    """However many are taken one after the other, others have their turn in between."""
    intake = Intake(_numbers(100_000), lambda: True, waits=False)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while not intake.ended:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    while await intake.take() is not None:
        pass
    await counting

    assert turns > 10


async def test_stopping_cuts_a_wait_short() -> None:
    """Who waits for a source that has nothing yet is told that nothing more is taken."""
    intake = Intake(_waits(), lambda: True, waits=True)
    first = await intake.take()
    taking = asyncio.create_task(intake.take())
    await asyncio.sleep(0)

    intake.stop()

    assert first == 1
    assert await asyncio.wait_for(taking, 30) is None
    await intake.aclose()
