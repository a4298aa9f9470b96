"""X8: processes that share a lane through the book of leases, in virtual time: who waits how long, and how full it is."""

from __future__ import annotations

from random import Random
from statistics import quantiles

import pytest

from .shared import Shared


@pytest.mark.parametrize("limit", [20, 50])
def test_x8_heavy_jobs_wait_at_most_three_times_as_long(limit: int) -> None:
    """X8. Over three processes, 95 of 100 jobs of nine pictures wait at most thrice as long as those of one."""
    dice = Random(3)
    world = Shared(limit, 3, [dice.choice([1, 9]) for _ in range(300)])

    utilisation = world.run()

    light, heavy = (quantiles(world.waits[slots], n=20)[-1] for slots in (1, 9))
    assert heavy <= 3 * light
    assert utilisation >= 0.9


def test_the_store_keeps_the_lane_full() -> None:
    """Eight processes share fifty slots as well as one has them: what is lost is the time between exchanges."""
    dice = Random(5)
    world = Shared(50, 8, [dice.randint(1, 9) for _ in range(400)])

    assert world.run() >= 0.93
