"""The pace of polling: interval, budget, pauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.protocol.pace import Backoff, Bucket, Pace


def _pace(thrift: float = 1.0) -> Pace:
    return Pace(0.5, 60.0, thrift, 0.5)


def test_the_interval_is_a_fiftieth_of_a_typical_duration() -> None:
    """A quiet account is asked as often as precision wants, never more often than the minimum."""
    quick, slow = _pace(), _pace()

    quick.turn(0.0, 1, 3.0, 3.0, 0.5)
    slow.turn(0.0, 1, 100.0, 100.0, 0.5)

    assert quick.interval == 0.5
    assert slow.interval == 2.0
    assert slow.next_turn == pytest.approx(2.0)


@pytest.mark.parametrize(("waiting", "allowed"), [(9, 16.0), (100, 25.0), (5000, 105.0), (1_000_000, 1000.0)])
def test_thrift_keeps_requests_under_the_line(waiting: int, allowed: float) -> None:
    """In the long run the requests during a mean duration are those allowed for the tasks in flight."""
    pace, now, requests = _pace(), 0.0, 0

    for _ in range(500):
        cost = max(1, round(allowed / 12))
        pace.spend(cost)
        pace.turn(now, waiting, 24.0, 24.0, 0.5)
        requests += cost
        now = pace.next_turn

    assert requests * 24 / now == pytest.approx(allowed, rel=0.15)


def test_without_thrift_precision_alone_counts() -> None:
    """With thrift 0 dear turns do not slow the pace; with it they do, but not beyond an eighth of a duration."""
    free, thrifty = _pace(0.0), _pace()

    for number in range(50):
        for pace in (free, thrifty):
            pace.spend(10_000)
            pace.turn(float(number), 10, 50.0, 50.0, 0.5)

    assert free.interval == 1.0
    assert thrifty.interval == pytest.approx(6.0)


def test_two_turns_at_one_instant_do_no_harm() -> None:
    """A clock that stands still divides nothing by zero."""
    pace = _pace()
    pace._last_turn = 5.0

    pace.turn(5.0, 1, 10.0, 10.0, 0.0)

    assert pace.interval == 0.5


@given(st.floats(0.5, 50.0), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=80))
def test_a_bucket_never_gives_more_than_its_rate(rate: float, waits: list[float]) -> None:
    """Over any time no more tokens leave than the capacity and what flowed in."""
    bucket, now, taken = Bucket.of(rate), 0.0, 0

    for wait in waits:
        now += wait
        free = bucket.refill(now)
        bucket.take(free)
        taken += free

    assert taken <= bucket.capacity + rate * now + 1e-3


@given(st.floats(0.5, 50.0), st.integers(1, 100))
def test_the_wait_for_a_token_is_just_long_enough(rate: float, count: int) -> None:
    """After the wait there is at least one token, so a caller that waits never spins."""
    bucket = Bucket.of(rate)
    bucket.take(bucket.refill(0.0))

    wait = bucket.wait(count)

    assert wait > 0
    assert bucket.refill(wait) >= 1


def test_a_pause_doubles_with_each_failed_round() -> None:
    """Failures of one round count once; the next round's pause is twice as long, a minute at most; success resets."""
    backoff, pauses, now = Backoff(), [], 0.0

    for _ in range(9):
        for _ in range(5):
            backoff.fail(now, 0.5, 0.5, None)
        pauses.append(backoff.until - now)
        now = backoff.until
    backoff.succeed()
    backoff.fail(now, 0.5, 0.5, None)

    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert backoff.until - now == 0.5


def test_the_services_wish_is_honoured_up_to_a_minute() -> None:
    """Retry-After lengthens the pause, but not beyond a minute."""
    backoff = Backoff()

    backoff.fail(0.0, 0.5, 0.5, 7.0)
    first = backoff.until
    backoff.fail(1.0, 0.5, 0.5, 3600.0)

    assert first == 7.0
    assert backoff.until == 61.0
