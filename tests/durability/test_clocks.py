"""R7, H12, J20: tokens that expire in the middle of a batch, and clocks that jump."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from fault_kit import PACE, client_of, job
from fault_server import FaultServer, Life
from fault_server.checks import assert_paid_once

from kling_async import Kling, Succeeded

pytestmark = pytest.mark.anyio

# More than the life of a token.
_LATER = 2400.0


def set_wall(kling: Kling, ahead: float) -> None:
    """Have this machine's wall clock go wrong by *ahead* seconds from now on."""
    # Everything of a client tells the time by this one object.
    object.__setattr__(kling._engine.clock, "wall", lambda: time.time() + ahead)


async def test_h12_a_hundred_refusals_cause_one_renewal(server: FaultServer) -> None:
    """When the token of a hundred calls at once has expired, one new token is made for all."""
    async with client_of(server) as kling:
        first = await kling.images.multi_image.create(job("job-1"))
        server.service.clock.advance(_LATER)
        calls = [kling.images.multi_image.retrieve(first.task_id) for _ in range(100)]
        tasks = await asyncio.gather(*calls)

    assert {task.task_id for task in tasks} == {first.task_id}
    assert server.service.gate.tokens == 2


async def test_r7_a_batch_outlives_many_tokens(server: FaultServer) -> None:
    """A batch in which the token expires again and again goes on; each time costs one token and no job."""
    server.change(life=Life(seconds=0.02), slots=3)
    seen, leaps = 0, 0

    async with client_of(server, slots=3) as kling:
        async for outcome in kling.batch(
            [job(key=f"row-{number}", prompt=f"{number}.") for number in range(24)]
        ):
            assert isinstance(outcome, Succeeded)
            seen += 1
            if seen % 3 == 0:
                server.service.clock.advance(_LATER)
                leaps += 1

    assert (seen, leaps) == (24, 8)
    assert server.service.gate.tokens <= 1 + leaps
    assert_paid_once(server.books, 24)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_j20_a_wall_clock_that_jumps_during_a_run(
    server: FaultServer, tmp_path: Path, jump: float
) -> None:
    """An hour forwards or back changes no deadline; tokens follow the service's clock, at one refusal for all."""
    server.change(life=Life(seconds=0.05), slots=3)
    work = [job(key=f"row-{number}", prompt=f"{number}.") for number in range(12)]
    seen = 0

    async with client_of(server, slots=3) as kling:
        limit = 30.0 * PACE
        async for outcome in kling.batch(work, out=tmp_path / "out", task_timeout=limit, stall_after=limit):
            assert isinstance(outcome, Succeeded)
            seen += 1
            if seen == 3:
                set_wall(kling, jump)
                # A jump alone does not make the token in use wrong; the next one is made by the new clock.
                kling._engine.links[0].signer._token = None

    assert seen == 12
    assert server.service.gate.tokens <= 3
    assert_paid_once(server.books, 12)
