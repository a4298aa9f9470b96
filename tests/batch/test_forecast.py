"""When a run will end: the forecast against simulated runs, and the statistics that show it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from statistics import mean

import pytest
from socket_kit import client, job

from kling_async import Succeeded
from kling_async.batch.forecast import Crowd, Lifetimes, seconds_left
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio


def known(*seconds: float) -> Lifetimes:
    lifetimes = Lifetimes()
    for each in seconds:
        lifetimes.add(each)
    return lifetimes


def run(
    jobs: int, slots: int, draw: Callable[[], float], begins: list[float], *, every: int = 1
) -> list[tuple[float, float]]:
    """
    Run jobs that take what *draw* gives on slots that open at *begins*.

    Returns the forecast at the ends of one job in *every*, as (time, seconds left); the last is that at the end of the run.
    """
    running = sorted((begin + draw(), begin) for begin in begins[:jobs])
    forecasts, began, lifetimes = [], len(running), Lifetimes()
    while running:
        now, since = heapq.heappop(running)
        lifetimes.add(now - since)
        if lifetimes.count % every == 0:
            ages = [now - since for _, since in running if since <= now]
            late = slots - 1 - len(ages) if began < jobs else 0
            forecasts.append((now, seconds_left(jobs - began, ages + [0.0] * late, lifetimes, free=1)))
        if began < jobs:
            heapq.heappush(running, (now + draw(), now))
            began += 1
    return forecasts


@pytest.mark.parametrize("queued", [1, 5, 10])
def test_no_run_ends_before_its_work_is_done(queued: int) -> None:
    """One job that took ninety times as long as the others does not make the rest take no time."""
    lifetimes = known(*[20.0] * 99, 1800.0)

    left = seconds_left(queued, [5.0], lifetimes)

    assert left >= queued * lifetimes.curve([5.0]).mean


def test_a_coarse_clock_is_no_trouble() -> None:
    """Jobs that took no time that could be told are as good as any."""
    assert 0.0 <= seconds_left(3, [0.0], known(0.0, 0.0), free=2) < 1.0


@pytest.mark.parametrize(
    ("jobs", "slots"), [(36, 9), (40, 9), (41, 9), (500, 50), (9, 9), (12, 9), (1000, 3)]
)
@pytest.mark.parametrize("staggered", [False, True], ids=["in step", "staggered"])
def test_the_forecast_of_a_constant_run_holds(jobs: int, slots: int, *, staggered: bool) -> None:
    """From a quarter of a run of equal jobs on, the forecast is within a fifth of the truth."""
    dice = Random(3)
    begins = [dice.uniform(0.0, 24.0) if staggered else 0.0 for _ in range(slots)]

    forecasts = run(jobs, slots, lambda: 24.0, begins)

    end = forecasts[-1][0]
    late = [(now, left) for now, left in forecasts if now >= end / 4]
    assert late
    assert all(abs(left - (end - now)) <= 0.2 * (end - now) + 0.01 for now, left in late)


KINDS: Mapping[str, Callable[[Random], float]] = {
    "nearly equal": lambda dice: dice.uniform(20.0, 28.0),
    "lognormal": lambda dice: dice.lognormvariate(3.1, 0.3),
    "bimodal": lambda dice: (8.0 if dice.random() < 0.7 else 60.0) * dice.uniform(0.9, 1.1),
}


@pytest.mark.parametrize(("jobs", "slots"), [(400, 20), (1000, 50), (2000, 200)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_forecast_of_a_run_of_unlike_jobs_holds(kind: str, jobs: int, slots: int) -> None:
    """
    From a quarter of the run on, the end that is foretold is within a fifth of the run's length, and true on average.

    What the last job takes is dice, so no forecast is within a fifth of the last few seconds.
    """
    shares = []
    for seed in range(10):
        dice = Random(seed)
        begins = [0.05 * at for at in range(slots)]
        forecasts = run(jobs, slots, partial(KINDS[kind], dice), begins, every=jobs // 50)
        end = forecasts[-1][0]
        late = [(now, left) for now, left in forecasts if now >= end / 4]
        assert all(abs(now + left - end) <= 0.2 * end for now, left in late)
        shares += [(left - (end - now)) / (end - now) for now, left in late if now <= 0.6 * end]

    assert abs(mean(shares)) < 0.06
    assert sorted(map(abs, shares))[int(0.9 * len(shares))] <= 0.2


def test_quick_jobs_that_ended_first_are_not_taken_for_typical() -> None:
    """The jobs that still run count as well: nine that ended in 8 seconds and nine that run for 50 are no run of 8."""
    lifetimes = known(*[8.0] * 9)

    assert lifetimes.curve().mean == pytest.approx(8.0)
    assert lifetimes.curve([50.0] * 9).mean == pytest.approx((8.0 + 92.0) / 2)


def test_a_million_jobs_weigh_nothing() -> None:
    """What is kept grows with the range of what jobs take, and not with their number."""
    dice, lifetimes = Random(1), Lifetimes()
    for _ in range(20_000):
        lifetimes.add(dice.uniform(1.0, 100.0))

    assert len(lifetimes.curve().points) < 250
    assert lifetimes.curve().mean == pytest.approx(50.5, rel=0.02)
    assert lifetimes.curve().typical() == pytest.approx(50.5, rel=0.04)
    assert "20000 jobs" in repr(lifetimes)


def test_the_forecast_knows_the_last_wave() -> None:
    """One job more than fits takes a whole time more; a job past its time takes as long again as it is late."""
    usual = known(*[24.0] * 20)

    assert seconds_left(1, [10.0] * 4, usual) == pytest.approx(14.0 + 24.0)
    assert seconds_left(5, [10.0] * 4, usual) == pytest.approx(14.0 + 48.0)
    assert seconds_left(0, [10.0, 4.0], usual) == pytest.approx(20.0, abs=0.01)
    assert seconds_left(0, [30.0], usual) == pytest.approx(6.0, abs=0.01)
    assert seconds_left(0, [], usual) == 0.0
    assert seconds_left(3, [], usual) == pytest.approx(24.0)


def test_the_crowd_is_what_an_account_gives_in_fact() -> None:
    """Slots that stood empty half of the time count half; what was long ago counts little."""
    crowd = Crowd()
    crowd.begin(0.0)
    for second in range(0, 60, 2):
        crowd.change(+4, float(second))
        crowd.change(-4, second + 1.0)
    before = crowd.usual(60.0)
    crowd.change(+9, 60.0)

    assert before == pytest.approx(2.0, abs=0.1)
    assert crowd.usual(3600.0) == pytest.approx(9.0, abs=0.1)
    assert Crowd().usual(0.0) == 0.0


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
