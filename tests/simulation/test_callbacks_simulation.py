"""The poll plan with callbacks, in virtual time: what they save, and what is lost when they stay away (faults C08)."""

from __future__ import annotations

import pytest

from kling_async.protocol.polling import PollBook

from .poll_service import Report, Simulation, World, lognormal

_FOR_EVER = 1e9


def _run(told_until: float, *, in_flight: int = 300, jobs: int = 3000, seconds: float = 24.0) -> Report:
    world = World(durations=lognormal(seconds), in_flight=in_flight, jobs=jobs, told_until=told_until)
    return Simulation(world, PollBook()).run()


def _quantile(delays: list[float], share: float) -> float:
    return sorted(delays)[int(share * (len(delays) - 1))]


@pytest.mark.parametrize(("in_flight", "jobs"), [(9, 300), (300, 3000), (3000, 12_000)])
def test_with_callbacks_an_end_is_seen_at_once(in_flight: int, jobs: int) -> None:
    """Once they are trusted, an end is known one query after its callback, and hardly a page is read."""
    plain, told = _run(0.0, in_flight=in_flight, jobs=jobs), _run(_FOR_EVER, in_flight=in_flight, jobs=jobs)

    assert told.ended == jobs
    assert _quantile(told.delays, 0.99) <= 0.05 + 0.02 + 0.001
    assert told.gets <= (1.25 if in_flight > 9 else 2.0) * jobs
    assert told.pages <= 0.5 * plain.pages + 10


def test_callbacks_that_never_come_cost_nothing() -> None:
    """C08: without any callback the plan is the same to the last request and the last moment."""
    world = World(durations=lognormal(24.0), in_flight=300, jobs=3000)
    before = Simulation(world, PollBook()).run()
    lost = _run(0.0)

    assert (lost.requests, lost.delays, lost.until) == (before.requests, before.delays, before.until)


@pytest.mark.parametrize("stop", [60.0, 100.0, 150.0])
def test_callbacks_that_stop_are_missed_once(stop: float) -> None:
    """Nothing is seen later than a stretched interval after they stop, and soon all is as without them."""
    plain, told = _run(0.0), _run(stop)

    worst = max(delay for _, delay in told.late)
    after = [delay for seen, delay in told.late if seen > stop + 15.0]
    usual = [delay for seen, delay in plain.late if seen > stop + 15.0]
    assert told.ended == 3000
    assert worst <= 4 * 1.1 * max(told.intervals) / 2 + 4 * 0.5
    assert sum(after) / len(after) <= 1.25 * sum(usual) / len(usual)
    assert told.until <= 1.05 * plain.until


def test_half_of_the_callbacks_are_no_ground_for_trust() -> None:
    """Where only some ends are told of, those are seen at once and the others as ever."""
    report = _run(_FOR_EVER)
    world = World(durations=lognormal(24.0), in_flight=300, jobs=3000, told_until=_FOR_EVER, told_share=0.5)
    half = Simulation(world, PollBook()).run()
    plain = _run(0.0)

    assert _quantile(half.delays, 0.99) <= 1.2 * _quantile(plain.delays, 0.99)
    assert sum(report.delays) < sum(half.delays) < sum(plain.delays)
