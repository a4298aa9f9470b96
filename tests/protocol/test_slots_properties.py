"""What holds for a lane whatever happens, in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kling_async.protocol.limits import Limit
from kling_async.protocol.slots import Lane

LIMITS = st.one_of(
    st.integers(3, 12).map(Limit.fixed),
    st.integers(3, 12).map(Limit.known),
    st.integers(1, 9).map(Limit.learned),
)


class LaneMachine(RuleBasedStateMachine):
    """A lane beside the simplest model of it: who waits, who asks, who runs."""

    @initialize(limit=LIMITS)
    def begin(self, limit: Limit) -> None:
        self.lane = Lane(limit)
        self.now = 0.0
        self.number = 0
        self.weights: dict[object, int] = {}
        self.lines: dict[object, tuple[int, str, int]] = {}
        self.waiting: list[object] = []
        self.asking: list[object] = []
        self.running: list[object] = []

    @rule(slots=st.integers(1, 3), priority=st.integers(0, 1), party=st.sampled_from("ab"))
    def ask(self, slots: int, priority: int, party: str) -> None:
        self.number += 1
        self.lane.ask(self.number, slots, self.now, priority=priority, party=party)
        self.weights[self.number] = slots
        self.lines[self.number] = (priority, party, slots)
        self.waiting.append(self.number)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def grant(self) -> None:
        lane, ceiling = self.lane, self.lane.ceiling
        granted, again = lane.grant(self.now)

        assert again is None or again > self.now
        assert lane.held <= lane.limit or not granted
        assert ceiling is None or not granted or lane.held <= ceiling
        for ticket in granted:
            older = [other for other in self.waiting if self.lines[other] == self.lines[ticket]]
            assert ticket == min(older)  # type: ignore[type-var]  # tickets here are numbers
            self.waiting.remove(ticket)
            self.asking.append(ticket)

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), answer=st.sampled_from(["accepted", "refused", "throttled", "paused", "release"]))
    def answer(self, data: st.DataObject, answer: str) -> None:
        ticket = data.draw(st.sampled_from(self.asking))
        self.asking.remove(ticket)
        if answer == "accepted":
            self.lane.accepted(ticket, self.now)
            self.running.append(ticket)
        elif answer == "release":
            assert self.lane.release(ticket, self.now)
        else:
            dice, asked = data.draw(st.floats(0, 0.99)), data.draw(st.sampled_from([None, -1.0, 2.0, 1e9]))
            getattr(self.lane, answer)(ticket, self.now, dice=dice, retry_after=asked)
            self.waiting.append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.running))
        self.running.remove(ticket)
        assert self.lane.release(ticket, self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        assert self.lane.withdraw(ticket, self.now)
        assert not self.lane.withdraw(ticket, self.now)

    @rule(slots=st.integers(1, 3))
    def adopt(self, slots: int) -> None:
        self.number += 1
        self.lane.adopt(self.number, slots, self.now)
        self.weights[self.number] = slots
        self.running.append(self.number)

    @rule(limit=LIMITS)
    def set_limit(self, limit: Limit) -> None:
        lost = self.lane.set_limit(limit, self.now)
        assert lost == []

    @invariant()
    def counts_agree(self) -> None:
        lane = self.lane
        assert lane.held == sum(self.weights[ticket] for ticket in (*self.asking, *self.running))
        assert lane.in_flight == len(self.asking) + len(self.running)
        assert lane.waiting == len(self.waiting)
        assert lane.limit >= 1
        assert lane.ceiling is None or lane.limit <= lane.ceiling
        assert repr(lane).startswith("<Lane ")

    def teardown(self) -> None:
        """Nobody waits for ever: when every create is accepted and every task ends, the queue runs dry."""
        if not hasattr(self, "lane"):
            return
        for ticket in self.running:
            self.lane.release(ticket, self.now)
        turns = 0
        while self.lane.waiting or self.asking:
            turns += 1
            assert turns < 50 + 20 * self.number
            granted, again = self.lane.grant(self.now)
            self.asking += granted
            if again is not None:
                self.now = again
            for ticket in self.asking:
                self.lane.accepted(ticket, self.now)
                self.lane.release(ticket, self.now)
            self.asking.clear()
        assert self.lane.held == 0


TestLane = LaneMachine.TestCase
TestLane.__doc__ = "Whatever happens in whatever order, weights stay within the limit, counts agree, and nobody waits for ever."
TestLane.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
