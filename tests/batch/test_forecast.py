"""When a run will end: the forecast against simulated runs, and the statistics that show it."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from socket_kit import client, job

from kling_async import Succeeded
from kling_async.batch.forecast import seconds_left
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio


def run(jobs: int, slots: int, begins: list[float]) -> tuple[float, list[tuple[float, float]]]:
    """
    Run jobs of 24 seconds on slots that open at *begins*.

    Returns when the last ended, and the forecast at each end of one, as (time, seconds left).
    """
    running = sorted((begin + 24.0, begin) for begin in begins[:jobs])
    forecasts, began, now = [], len(running), 0.0
    while running:
        now, _ = heapq.heappop(running)
        ages = [now - since for _, since in running if since <= now]
        late = slots - 1 - len(ages) if began < jobs else 0
        forecasts.append((now, seconds_left(jobs - began, ages + [0.0] * late, 24.0, free=1)))
        if began < jobs:
            heapq.heappush(running, (now + 24.0, now))
            began += 1
    return now, forecasts


@pytest.mark.parametrize(
    ("jobs", "slots"), [(36, 9), (40, 9), (41, 9), (500, 50), (9, 9), (12, 9), (1000, 3)]
)
@pytest.mark.parametrize("staggered", [False, True], ids=["in step", "staggered"])
def test_the_forecast_of_a_constant_run_holds(jobs: int, slots: int, *, staggered: bool) -> None:
    """From a quarter of a run of equal jobs on, the forecast is within a fifth of the truth."""
    dice = Random(3)
    begins = [dice.uniform(0.0, 24.0) if staggered else 0.0 for _ in range(slots)]

    end, forecasts = run(jobs, slots, begins)

    late = [(now, left) for now, left in forecasts if now >= end / 4]
    assert late
    assert all(abs(left - (end - now)) <= 0.2 * (end - now) + 0.01 for now, left in late)


def test_the_forecast_knows_the_last_wave() -> None:
    """One job more than fits takes a whole time more; jobs past their time end at once."""
    assert seconds_left(1, [10.0] * 4, 24.0) == 14.0 + 24.0
    assert seconds_left(5, [10.0] * 4, 24.0) == 14.0 + 48.0
    assert seconds_left(0, [30.0, 4.0], 24.0) == 20.0
    assert seconds_left(0, [30.0], 24.0) == 0.0
    assert seconds_left(0, [], 24.0) == 0.0
    assert seconds_left(3, [], 24.0) == 24.0


async def test_statistics_of_a_run_over_sockets() -> None:
    """Lag and forecast are near the truth, and a later batch counts only its own time."""
    jobs = [job(key=f"{number}") for number in range(36)]
    shots = []
    async with Emulator(speed=1, task_seconds=0.5, paint="stamp") as emulator, client(emulator) as kling:
        async with kling.batch(jobs) as batch:
            async for outcome in batch:
                assert isinstance(outcome, Succeeded)
                shots.append(batch.statistics())
        first, again = batch.statistics(), batch.statistics()
        async with kling.batch([job()]) as batch:
            async for _ in batch:
                pass
        second = batch.statistics()

    assert first == again, "the books of a batch that is over are closed"
    assert first.eta is None
    assert first.lag is not None
    # Bounds that a machine busy with other tests keeps as well; how near the truth it is, is shown above without sockets.
    assert 0 <= first.lag < 1
    assert [(one.account, one.succeeded, one.failed, int(one.units)) for one in first.accounts] == [
        ("default", 36, 0, 576)
    ]
    assert first.slot_utilisation is not None
    assert first.slot_utilisation > 0.5
    quarter = [shot for shot in shots if first.seconds / 4 <= shot.seconds < 0.8 * first.seconds and shot.eta]
    assert quarter
    for shot in quarter:
        assert shot.eta == pytest.approx(first.seconds - shot.seconds, rel=0.5, abs=1.0)
    assert second.slot_utilisation is not None
    assert second.slot_utilisation == pytest.approx(1 / 9, abs=0.03)
    assert second.requests < first.requests
