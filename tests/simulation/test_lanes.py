"""The lane against a simulated service: slots stay full, refusals stay few, nobody starves, cost stays flat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import pytest

from kling_async.protocol.limits import Limit

from .world import MANY, Findings, Scenario, bimodal, constant, lognormal, mixed, simulate

Seconds = Callable[[Random], float]
DURATIONS = pytest.mark.parametrize("seconds", [constant, lognormal, bimodal])


def ended(found: Findings, jobs: Sequence[int]) -> bool:
    """Tell whether every job ended and every slot came back."""
    return found.succeeded == len(jobs) and found.lane.held == 0 and found.lane.waiting == 0


@DURATIONS
@pytest.mark.parametrize("slots", [1, 2, 5, 9, 50, 1000, 5000])
def test_a_known_lane_stays_full_without_a_refusal(slots: int, seconds: Seconds) -> None:
    """With n = 1 and a true limit, 0.98 of the slots are used and nothing is refused, at any size."""
    jobs = [1] * max(200, 8 * slots)

    found = simulate(
        Scenario(
            limit=Limit.known(slots), true=slots, weights=jobs, seconds=seconds, latency=0.03, look_every=0.24
        )
    )

    assert ended(found, jobs)
    assert found.refusals == 0
    assert found.peak == slots
    assert found.utilisation >= 0.98


@DURATIONS
@pytest.mark.parametrize("slots", [9, 50, 1000])
def test_mixed_weights_reach_what_an_offline_packing_reaches(slots: int, seconds: Seconds) -> None:
    """With n from 1 to 9 the run takes at most 1/0.95 of the time of the best order, heaviest first, known beforehand."""
    jobs = mixed(max(2000, 4 * slots))
    common = Scenario(
        limit=Limit.known(slots), true=slots, weights=jobs, seconds=seconds, ahead=max(128, 2 * slots)
    )
    ideal = Scenario(
        limit=Limit.known(slots), true=slots, weights=sorted(jobs, reverse=True), seconds=seconds
    )

    found, best = simulate(common), simulate(ideal)

    assert ended(found, jobs)
    assert found.refusals == 0
    assert found.utilisation >= 0.95 * best.utilisation


@DURATIONS
@pytest.mark.parametrize("slots", [9, 50, 1000])
def test_the_heaviest_are_not_starved(slots: int, seconds: Seconds) -> None:
    """n = 9 waits at most twice as long as all do on average, in a queue kept filled as a batch does."""
    jobs = mixed(max(1000, 4 * slots))
    ahead = max(128, 2 * slots)

    found = simulate(
        Scenario(limit=Limit.known(slots), true=slots, weights=jobs, seconds=seconds, ahead=ahead)
    )

    means = {weight: sum(waits) / len(waits) for weight, waits in found.waits.items()}
    everyone = sum(map(sum, found.waits.values())) / len(jobs)
    assert means[9] <= 2 * everyone


@pytest.mark.parametrize("weights", ["ones", "mixed"])
@DURATIONS
@pytest.mark.parametrize("slots", [1, 2, 3, 5, 9, 20, 50, 200, 1000])
def test_an_unknown_limit_is_found_within_twenty_refusals(slots: int, seconds: Seconds, weights: str) -> None:
    """Starting from 5, the limit is found whatever it is, in twenty refusals for thousands of jobs."""
    most = min(9, slots)
    jobs = [1] * max(1000, 8 * slots) if weights == "ones" else mixed(max(1000, 4 * slots), most=most)

    found = simulate(
        Scenario(limit=Limit.learned(), true=slots, weights=jobs, seconds=seconds, ahead=max(128, 2 * slots))
    )

    assert ended(found, jobs)
    assert found.refusals <= 20
    assert found.peak >= 0.98 * slots
    assert found.utilisation >= (0.93 if weights == "ones" else 0.85)


@DURATIONS
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_limit_configured_ten_times_too_high_costs_few_refusals(seed: int, seconds: Seconds) -> None:
    """Real limit 5, configured 50: learned within three refusals, under ten in all for 200 jobs."""
    jobs = [1] * 200

    found = simulate(Scenario(limit=Limit.fixed(50), true=5, weights=jobs, seconds=seconds, seed=seed))

    lowered = [change.after for change in found.changes if change.reason == "refused"]
    assert ended(found, jobs)
    assert min(lowered[:3]) <= 5
    assert found.refusals < 10
    assert found.utilisation >= 0.97


def test_an_account_filled_by_others_is_probed_at_the_pace_of_the_cool_down() -> None:
    """1303 for ever: after the first few creates one leaves for each cool-down, and no job is lost."""
    refusing = Scenario(
        limit=Limit.known(9), true=9, weights=[1] * 50, seconds=constant, codes=lambda _now: 1303
    )

    found = simulate(refusing, until=3600)

    times = [at for at, _ in found.posts[3:]]
    assert len(times) <= 3600 / 20
    assert all(later - sooner >= 1.0 for sooner, later in pairwise(times))
    assert found.lane.waiting + found.lane.in_flight == 50
    assert found.lane.refused_since is not None


@pytest.mark.parametrize("limit", [Limit.known(50), Limit.learned()], ids=["known", "learned"])
def test_slots_that_others_took_for_a_while_come_back(limit: Limit) -> None:
    """Foreign tasks take 45 of 50 slots for five minutes; the lane yields, probes, and has them back afterwards."""
    jobs = [1] * 4000
    foreign = [(100.0, 45), (400.0, 0)]

    found = simulate(Scenario(limit=limit, true=50, weights=jobs, seconds=lognormal, foreign=foreign))

    assert ended(found, jobs)
    assert found.lane.limit >= 49
    assert found.refusals <= 0.01 * len(jobs)
    assert found.utilisation >= 0.8


def test_heavy_jobs_wait_for_others_without_blocking_light_ones() -> None:
    """With 6 of 9 slots taken by others for an hour, jobs of up to 3 go on; heavier ones run when the others leave."""
    jobs = mixed(300)
    foreign = [(0.0, 6), (4000.0, 0)]

    found = simulate(Scenario(limit=Limit.known(9), true=9, weights=jobs, seconds=lognormal, foreign=foreign))

    light = [wait for weight in (1, 2, 3) for wait in found.waits[weight]]
    assert ended(found, jobs)
    assert sorted(light)[len(light) * 9 // 10] < 4000


def test_too_many_requests_slow_the_lane_down_without_a_herd() -> None:
    """1302 for three seconds: a shared pause, then at most the old rate, and the speed returns."""
    jobs = [1] * 3000
    busy = Scenario(
        limit=Limit.known(50),
        true=50,
        weights=jobs,
        seconds=lognormal,
        codes=lambda now: 1302 if 100 < now < 103 else None,
    )

    found = simulate(busy)

    after = [at for at, _ in found.posts if 100 < at < 120]
    assert ended(found, jobs)
    assert found.lane.limit == 50
    assert found.lane.throttles < 10
    assert max(sum(at <= other < at + 1 for other in after) for at in after) <= 10
    assert found.utilisation >= 0.97


def test_an_outage_is_met_by_single_probes_and_no_herd() -> None:
    """5001 for a hundred seconds: a handful of creates, and a gentle start afterwards."""
    jobs = [1] * 2000
    down = Scenario(
        limit=Limit.known(50),
        true=50,
        weights=jobs,
        seconds=lognormal,
        codes=lambda now: 5001 if 100 < now < 200 else None,
    )

    found = simulate(down)

    refused = [at for at, code in found.posts if code]
    first = min(at for at, code in found.posts if at > 200)
    assert ended(found, jobs)
    assert len(refused) <= 15
    assert sum(first <= at < first + 0.1 for at, _ in found.posts) <= 10
    assert found.refusals == 0


def test_two_batches_share_a_lane_evenly() -> None:
    """While both have jobs waiting, neither holds much more than half of the slots."""
    jobs = mixed(2000)

    found = simulate(
        Scenario(limit=Limit.known(50), true=50, weights=jobs, seconds=lognormal, parties=2), until=1500
    )

    assert found.shares[0] / sum(found.shares.values()) == pytest.approx(0.5, abs=0.05)


def test_a_hundred_thousand_waiting_tickets_run_through_five_thousand_slots() -> None:
    """The largest run (in short a quarter of it) ends, every slot used, nothing refused: no step of the lane may be O(waiting)."""
    jobs, slots = mixed(MANY), MANY // 20

    found = simulate(Scenario(limit=Limit.known(slots), true=slots, weights=jobs, seconds=lognormal))

    assert ended(found, jobs)
    assert found.refusals == 0
    assert found.utilisation >= 0.98
