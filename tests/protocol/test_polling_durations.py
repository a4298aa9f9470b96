"""The learned durations: where they look, and how they follow the service."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.protocol.durations import Durations


def test_nothing_known_means_a_first_look_and_then_a_growing_distance() -> None:
    """Before anything has ended, looks begin at the given age and their distance grows with the age."""
    durations = Durations(2.0)

    ages = [durations.next_look(0.0, 0.5)]
    while ages[-1] < 60:
        ages.append(durations.next_look(ages[-1], 0.5))

    assert ages[:2] == [2.0, 2.5]
    assert 3.0 < ages[-1] - ages[-2] < 4.0
    assert durations.typical is None
    assert durations.mean is None


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_first_look_comes_shortly_before_tasks_begin_to_end(scale: float) -> None:
    """The first look is near the early quantile whatever the scale, and the median is right."""
    durations, dice = Durations(2.0), Random(1)

    for _ in range(500):
        durations.add(scale * dice.uniform(20, 30))

    assert 17 * scale < durations.next_look(0.0, 0.5 * scale) <= 20.1 * scale
    assert durations.typical == pytest.approx(25 * scale, rel=0.08)
    assert durations.mean == pytest.approx(25 * scale, rel=0.05)
    assert durations.next_look(25 * scale, 0.5 * scale) == pytest.approx(25.5 * scale)


def test_durations_all_alike_are_looked_at_just_after() -> None:
    """When all tasks take the same time, one look shortly after it sees them; one before it would be in vain."""
    durations = Durations(2.0)

    for _ in range(500):
        durations.add(3.0)

    assert 3.0 <= durations.next_look(0.0, 0.5) < 3.15
    assert 2.85 < durations.next_look(0.0, 0.1) <= 3.0


def test_a_few_observations_leave_a_margin() -> None:
    """Eight durations have not shown the whole range, so the first look is earlier than all of them."""
    durations = Durations(2.0)

    for _ in range(8):
        durations.add(24.0)

    assert 18 < durations.next_look(0.0, 0.5) < 23


def test_ages_between_two_habits_are_passed_over() -> None:
    """Between quick refusals and slow pictures nobody looks, apart from once at the end of each look's interval."""
    durations, dice = Durations(2.0), Random(1)

    for number in range(1000):
        durations.add(dice.uniform(1.5, 1.8) if number % 10 == 0 else dice.uniform(22, 26))

    assert durations.next_look(0.0, 0.5) < 1.6
    assert durations.next_look(1.6, 0.5) == pytest.approx(2.1)
    assert durations.next_look(3.0, 0.5) > 18
    assert durations.next_look(18.0, 9.0) == 27.0


def test_stragglers_are_asked_less_and_less() -> None:
    """Beyond the late quantile the distance between two looks grows."""
    durations = Durations(2.0)

    for _ in range(100):
        durations.add(10.0)

    assert durations.next_look(11.0, 0.5) == 11.5
    assert durations.next_look(100.0, 0.5) > 108


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_drift_is_followed(factor: float) -> None:
    """After a thousand tasks of another duration the old habit is forgotten, in both directions."""
    durations = Durations(2.0)

    for seconds in (24.0, 24.0 * factor):
        for _ in range(2500):
            durations.add(seconds)

    assert durations.typical == pytest.approx(24.0 * factor, rel=0.05)
    assert durations.next_look(0.0, 0.1) == pytest.approx(24.0 * factor, rel=0.15)


def test_weights_never_overflow() -> None:
    """A client that runs for months goes on learning: the weights are scaled down in time."""
    durations = Durations(2.0)

    for _ in range(100_000):
        durations.add(5.0)
    for _ in range(5_000):
        durations.add(10.0)

    assert durations.typical == pytest.approx(10.0, rel=0.05)
    assert repr(durations) == "<Durations of 105000 tasks, typically 10.1 s>"


def test_an_end_before_the_first_look_counts_as_shorter() -> None:
    """A task found ended at its first look draws the next first looks earlier; one seen alive lies between its looks."""
    early, between = Durations(2.0), Durations(2.0)

    early.add_between(0.0, 10.0)
    between.add_between(9.0, 10.0)

    assert early.typical == pytest.approx(8.5, rel=0.03)
    assert between.typical == pytest.approx(9.5, rel=0.03)


@given(
    st.lists(st.floats(0.0, 1e9), max_size=60),
    st.floats(0.0, 1e6),
    st.floats(0.001, 100.0),
)
def test_the_next_look_is_always_later(seconds: list[float], age: float, interval: float) -> None:
    """Whatever was learned, the next look lies ahead: no plan can spin."""
    durations = Durations(2.0)

    for one in seconds:
        durations.add(one)

    assert durations.next_look(age, interval) > age
