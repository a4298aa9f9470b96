"""The timer wheel: nothing early, nothing twice, nothing forgotten, no heap of dead entries."""

from __future__ import annotations

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kling_async.protocol.wheel import Wheel

_WIDTH = 0.25


@define(eq=False)
class Row:
    name: int
    due: float = -1.0
    entry: int | None = None


def test_rows_fire_in_the_bucket_after_they_are_due() -> None:
    """Nothing fires early, and nothing later than the width."""
    wheel: Wheel[Row] = Wheel(_WIDTH)
    row = Row(1)

    wheel.put(row, 1.1)

    assert wheel.next_at() == 1.25
    assert wheel.fire(1.2) == []
    assert wheel.fire(1.25) == [row]
    assert wheel.next_at() is None
    assert len(wheel) == 0


def test_dead_entries_are_swept_out() -> None:
    """Putting rows forward again and again leaves no more dead entries than living rows and a few."""
    wheel: Wheel[Row] = Wheel(_WIDTH)
    rows = [Row(number) for number in range(10)]

    for due in range(1000, 0, -1):
        for row in rows:
            wheel.put(row, float(due))

    entries = sum(len(bucket) for bucket in wheel._buckets.values())
    assert entries <= 2 * 10 + 64 + 1
    assert repr(wheel).startswith("<Wheel of 10 rows, ")
    assert set(wheel.fire(2.0)) == set(rows)


def test_a_million_drops_leave_nothing_behind() -> None:
    """Rows taken out are not kept alive by their entries."""
    wheel: Wheel[Row] = Wheel(_WIDTH)

    for number in range(5000):
        row = Row(number)
        wheel.put(row, 1e6 + number)
        wheel.drop(row)
        wheel.drop(row)

    assert sum(len(bucket) for bucket in wheel._buckets.values()) <= 66
    assert wheel.next_at() is None


@settings(max_examples=60, stateful_step_count=60, deadline=None)
class WheelAndModel(RuleBasedStateMachine):
    """A wheel beside a plain table of due times."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel: Wheel[Row] = Wheel(_WIDTH)
        self.rows = [Row(number) for number in range(8)]
        self.due: dict[int, float] = {}
        self.now = 0.0

    @rule(number=st.integers(0, 7), wait=st.floats(-1, 20))
    def put(self, number: int, wait: float) -> None:
        self.wheel.put(self.rows[number], self.now + wait)
        self.due[number] = self.now + wait

    @rule(number=st.integers(0, 7), times=st.integers(1, 40))
    def put_and_drop(self, number: int, times: int) -> None:
        for time in range(times):
            self.wheel.put(self.rows[number], self.now + 30 - time / 10)
            self.wheel.drop(self.rows[number])
        self.due.pop(number, None)

    @rule(wait=st.floats(0, 10))
    def fire(self, wait: float) -> None:
        self.now += wait

        fired = [row.name for row in self.wheel.fire(self.now)]

        assert len(fired) == len(set(fired))
        assert all(self.due.pop(name) <= self.now for name in fired)
        assert all(due > self.now - _WIDTH for due in self.due.values())

    @invariant()
    def agrees(self) -> None:
        assert len(self.wheel) == len(self.due)
        ahead = self.wheel.next_at()
        assert (ahead is None) == (not self.due)
        assert ahead is None or ahead <= min(self.due.values()) + _WIDTH


TestWheelAndModel = WheelAndModel.TestCase
