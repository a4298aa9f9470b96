"""
The poll plan in virtual time: requests for each job, and how soon an end is seen.

The same goals are measured on real sockets by the benchmarks; here they are held for every change of the plan.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from time import process_time

import pytest

from kling_async.protocol.polling import PollBook
from kling_async.protocol.turns import Glance

from .poll_service import Draw, Report, Simulation, World, bimodal, constant, drifting, lognormal
from .world import MANY

_DURATIONS: dict[str, Callable[[float, float], Draw]] = {
    "constant": lambda seconds, _over: constant(seconds),
    "lognormal": lambda seconds, _over: lognormal(seconds),
    "bimodal": lambda seconds, _over: bimodal(seconds / 15, seconds),
    "drifting": lambda seconds, over: drifting(seconds / 2, over),
}
_ALL = tuple(_DURATIONS)


def _run(durations: Draw, in_flight: int, jobs: int, **options: object) -> Report:
    world = World(durations=durations, in_flight=in_flight, jobs=jobs, **options)  # type: ignore[arg-type]  # checked by attrs
    return Simulation(world, PollBook()).run()


def _draw(kind: str, seconds: float, in_flight: int, jobs: int) -> Draw:
    return _DURATIONS[kind](seconds, seconds * jobs / in_flight)


@pytest.mark.parametrize("kind", _ALL)
@pytest.mark.parametrize(
    ("in_flight", "jobs", "per_job"),
    [(1, 100, 24.0), (9, 900, 3.1), (100, 3000, 1.3), (1000, 8000, 1.1), (5000, 25_000, 1.045)],
)
def test_long_tasks_need_few_requests(kind: str, in_flight: int, jobs: int, per_job: float) -> None:
    """With tasks of 24 seconds the requests for each job, the create and the learning included, stay under the line."""
    report = _run(_draw(kind, 24.0, in_flight, jobs), in_flight, jobs)

    assert report.ended == jobs
    # A drift to three times the duration is learned anew all the time, which a few slots notice.
    assert report.per_job <= per_job * (1.12 if kind == "drifting" and in_flight == 9 else 1.0)
    assert report.relative() <= (0.56 if in_flight > 1 else 1.2)


@pytest.mark.parametrize("kind", _ALL)
@pytest.mark.parametrize(
    ("in_flight", "jobs", "per_job"),
    [(10, 900, 1.9), (100, 3000, 1.1), (1000, 8000, 1.05), (5000, 20_000, 1.03)],
)
def test_an_end_is_seen_within_an_interval(kind: str, in_flight: int, jobs: int, per_job: float) -> None:
    """With tasks of three seconds and once they are known, the mean delay is half an interval, the 99th percentile one."""
    report = _run(_draw(kind, 3.0, in_flight, jobs), in_flight, jobs)

    assert report.per_job <= per_job
    assert report.interval == pytest.approx(0.5, rel=0.05)
    # Tasks of one duration, begun when others were seen to end, all end at one point of an interval: maybe a late one.
    assert report.relative() <= (0.95 if kind == "constant" else 0.57)
    assert report.relative(0.99) <= (1.3 if kind == "constant" else 1.13)


def test_a_hundred_thousand_jobs() -> None:
    """A hundred thousand jobs (in short a quarter), a fifth in flight, cost 1.03 requests each, and microseconds of planning."""
    begin = process_time()
    report = _run(lognormal(3.0), MANY // 5, MANY, readers=4)
    seconds = process_time() - begin

    assert report.ended == MANY
    assert report.per_job <= 1.03
    assert report.relative() <= 0.56
    assert report.relative(0.99) <= 1.12
    assert seconds < 30, "the simulation itself included"


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_the_plan_knows_no_scale(scale: float) -> None:
    """Milliseconds or minutes: with the minimum scaled, the requests for each job are the same."""
    world = World(
        durations=lognormal(24 * scale), in_flight=9, jobs=400, latency=0.02 * scale, lag=0.001 * scale
    )

    report = Simulation(world, PollBook(min_interval=0.5 * scale, gets_per_second=20 / scale)).run()

    assert 2.5 < report.per_job < 3.1


def test_thrift_can_be_switched_off() -> None:
    """Who pays by the slot rather than by the request sees an end within two hundredths of its duration."""
    world = World(durations=lognormal(24.0), in_flight=9, jobs=400)

    report = Simulation(world, PollBook(thrift=0.0)).run()

    assert sum(report.delays) / len(report.delays) < 0.012 * 24
    assert report.interval < 0.56


@pytest.mark.parametrize(
    ("name", "options", "per_job", "delay"),
    [
        ("stamps", {"stamps": False}, 1.1, 0.6),
        ("foreign", {"foreign_per_second": 100.0}, 1.2, 0.7),
        ("burial", {"older": 3000, "foreign_per_second": 300.0}, 1.6, 1.0),
        ("oldest", {"order": "oldest", "older": 300}, 1.15, 0.7),
        ("shuffled", {"order": "shuffled", "older": 300}, 1.8, 1.5),
        ("hidden", {"hidden": 0.2}, 1.3, 0.8),
        ("repeated", {"repeated": 0.2}, 1.2, 0.7),
        ("failing", {"failing": 0.1}, 1.2, 1.2),
        ("far", {"order": "oldest", "older": 30_000}, 2.4, 6.0),
        ("down", {"failing": 0.6}, 1.3, 15.0),
    ],
)
def test_odd_services(name: str, options: dict[str, object], per_job: float, delay: float) -> None:
    """Whatever the list does, every end is found once; it costs some requests and some delay, within reason."""
    report = _run(lognormal(3.0), 100, 1500, **options)

    assert report.ended == 1500, name
    assert report.per_job <= per_job
    assert report.relative() <= delay


def test_gets_keep_to_their_budget_when_the_list_is_useless() -> None:
    """A thousand tasks in a list that hides them all: twenty GETs a second, spread over the second."""
    report = _run(lognormal(3.0), 1000, 2000, hidden=1.0)

    times = report.get_times
    assert all(later - first >= 0.99 for first, later in zip(times, times[25:], strict=False))
    assert len(times) / report.until > 18


def test_a_plan_costs_what_is_due_not_what_is_watched() -> None:
    """A thousand plans beside 100,000 tasks that are not due cost no more than milliseconds, and a row 0.6 KB."""
    names = [f"task-{number:018}" for number in range(100_000)]
    former = PollBook()
    for _ in range(100):
        former.watch("former", -1000.0)
        former.ended("former", 0.0, seconds=1000.0)
    tracemalloc.start()
    for number, name in enumerate(names):
        former.watch(name, number / 1000)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    former.plan(100.0, 0.5)
    former.saw_page(1, [Glance(name, False) for name in names[:500]], 100.0)

    begin = process_time()
    for step in range(1000):
        former.plan(101.0 + step / 1000, 0.5)
    seconds = process_time() - begin

    assert size / len(names) <= 600
    assert seconds < 0.1
