"""The lane: who may create now, told step by step."""

from __future__ import annotations

import sys
import weakref
from types import FrameType

import pytest

from kling_async.errors import InvalidJob
from kling_async.protocol.limits import Change, Limit
from kling_async.protocol.slots import Lane, NeverFits


def filled(slots: int, *weights: int, limit: Limit | None = None) -> Lane:
    """A lane whose limit is proven, with one running task for each of *weights*, called r0, r1, ..."""
    lane = Lane(limit or Limit.fixed(slots))
    lane.adopt("all", slots, 0.0)
    lane.release("all", 0.0)
    for number, weight in enumerate(weights):
        lane.adopt(f"r{number}", weight, 0.0)
    return lane


def ask(lane: Lane, *weights: int, first: int = 0) -> None:
    """Let tickets first, first + 1, ... ask for *weights* slots."""
    for number, weight in enumerate(weights, first):
        lane.ask(number, weight, 0.0)


def test_grants_in_the_order_of_asking_until_the_lane_is_full() -> None:
    """Tickets are granted in the order they asked, as long as their weights fit."""
    lane = filled(5)
    ask(lane, 2, 1, 2, 1)

    granted, again = lane.grant(0.0)

    assert granted == [0, 1, 2]
    assert again is None
    assert (lane.held, lane.in_flight, lane.waiting) == (5, 3, 1)


def test_slots_are_held_until_the_task_ends() -> None:
    """An accepted create frees nothing; only the end of its task lets the next one go."""
    lane = filled(1)
    ask(lane, 1, 1)
    lane.grant(0.0)
    lane.accepted(0, 1.0)

    before = lane.grant(2.0)
    lane.release(0, 3.0)

    assert before == ([], None)
    assert lane.grant(3.0) == ([1], None)


def test_a_limit_that_was_never_filled_is_approached_in_steps() -> None:
    """A wrong configured limit costs few refusals, because few unproven creates are under way at once."""
    lane = Lane(Limit.fixed(50))
    ask(lane, *[1] * 50)

    first, _ = lane.grant(0.0)
    for ticket in first:
        lane.accepted(ticket, 1.0)
    second, _ = lane.grant(1.0)

    assert first == [0, 1, 2]
    assert second == [3, 4, 5]


def test_a_ticket_heavier_than_the_lane_is_refused_at_once() -> None:
    """A job that can never fit fails when it asks, with what was found and what to do."""
    lane = Lane(Limit.known(5))

    with pytest.raises(NeverFits, match=r"n: expected at most 5, .*found 9; lower n") as caught:
        lane.ask("big", 9, 0.0)

    assert isinstance(caught.value, InvalidJob)
    assert lane.waiting == 0


def test_a_learned_lane_tries_a_heavy_ticket_alone() -> None:
    """Nobody knows whether nine slots exist, so the ticket is sent while nothing else is held."""
    lane = Lane(Limit.learned())
    lane.ask("big", 9, 0.0)

    assert lane.grant(0.0) == (["big"], None)
    assert lane.limit == 9


@pytest.mark.parametrize("slots", [0, -1])
def test_a_ticket_without_weight_is_a_mistake(slots: int) -> None:
    """Weights are positive."""
    with pytest.raises(ValueError, match="at least one slot"):
        Lane(Limit.fixed(5)).ask("odd", slots, 0.0)


def test_a_limit_without_slots_is_a_mistake() -> None:
    """A lane has at least one slot."""
    with pytest.raises(ValueError, match="slots"):
        Limit.fixed(0)


def test_a_ticket_asks_once() -> None:
    """The same ticket cannot be in the lane twice, waiting or running."""
    lane = filled(5, 1)

    with pytest.raises(ValueError, match="found 'r0' in the lane already"):
        lane.ask("r0", 1, 0.0)


def test_smaller_tickets_pass_one_that_does_not_fit_for_a_bounded_number_of_slots() -> None:
    """A head of weight 2 is passed by 24 slots, then room is kept for it."""
    lane = filled(2, 1)
    ask(lane, 2, *[1] * 40)
    passed = 0

    while lane.held < 2 or passed < 24:
        granted, _ = lane.grant(0.0)
        if granted != [passed + 1]:
            break
        lane.accepted(granted[0], 0.0)
        lane.release(granted[0], 0.0)
        passed += 1
    lane.release("r0", 1.0)

    assert passed == 24
    assert lane.grant(1.0) == ([0], None)


def test_the_heaviest_that_fits_fills_the_gap() -> None:
    """Gaps are filled by the heaviest ticket that fits, so that little stays empty."""
    lane = filled(9, 4)
    ask(lane, 9, 1, 2, 5, 1)

    assert lane.grant(0.0)[0] == [3]


def test_a_higher_priority_passes_the_queue() -> None:
    """An interactive create goes before a batch that asked long ago."""
    lane = filled(1)
    ask(lane, 1, 1)
    lane.ask("now", 1, 5.0, priority=1)

    assert lane.grant(5.0)[0] == ["now"]


def test_lower_priorities_fill_gaps_but_wear_out_the_patience_quickly() -> None:
    """A heavy interactive create is passed by its own weight of batch slots at most."""
    lane = filled(3, 1)
    ask(lane, *[1] * 9)
    lane.ask("now", 3, 0.0, priority=1)

    granted, _ = lane.grant(0.0)
    for ticket in granted:
        lane.accepted(ticket, 0.0)
    lane.release(0, 1.0)
    lane.release(1, 1.0)
    more, _ = lane.grant(1.0)
    lane.accepted(2, 1.0)
    lane.release(2, 2.0)

    assert granted == [0, 1]
    assert more == [2]
    assert lane.grant(2.0) == ([], None)


def test_two_parties_share_the_slots_evenly() -> None:
    """A party that holds less goes first, however long the queue of the other is."""
    lane = filled(6)
    for number in range(20):
        lane.ask(("a", number), 1, 0.0, party="a")
    for number in range(3):
        lane.ask(("b", number), 1, 1.0, party="b")

    granted, _ = lane.grant(1.0)

    assert granted == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_gap_goes_to_the_party_that_holds_least() -> None:
    """Backfill keeps the shares even too."""
    lane = filled(9)
    lane.adopt("old", 8, 0.0, party="a")
    lane.ask("big", 9, 0.0, party="a")
    lane.ask("small a", 1, 0.0, party="a")
    lane.ask("small b", 1, 0.0, party="b")
    lane.grant(0.0)

    assert lane.grant(0.0)[0] == []
    assert lane.in_flight == 2
    assert lane.withdraw("small a", 0.0)
    assert not lane.withdraw("small b", 0.0)


def test_withdrawing_leaves_no_trace() -> None:
    """A cancelled caller that waits is gone, even when it was the one room is kept for."""
    lane = filled(9, 5)
    ask(lane, 9, 4, 1)
    lane.grant(0.0)

    gone = lane.withdraw(0, 1.0)
    lane.release(1, 1.0)

    assert gone
    assert lane.grant(1.0) == ([2], None)
    assert lane.waiting == 0


def test_withdrawing_what_holds_slots_or_is_unknown_changes_nothing() -> None:
    """A ticket that was granted a moment ago must be released, not withdrawn."""
    lane = filled(9, 5)

    assert not lane.withdraw("r0", 0.0)
    assert not lane.withdraw("nobody", 0.0)
    assert lane.held == 5


def test_releasing_twice_frees_once() -> None:
    """A second release, or one of a ticket that waits, changes nothing."""
    lane = filled(3, 2)
    ask(lane, 2)

    assert lane.release("r0", 0.0)
    assert not lane.release("r0", 0.0)
    assert not lane.release(0, 0.0)
    assert (lane.held, lane.waiting) == (0, 1)


@pytest.mark.parametrize("answer", ["accepted", "refused", "throttled", "paused"])
def test_an_answer_to_a_create_that_is_not_under_way_is_a_mistake(answer: str) -> None:
    """Verdicts belong to tickets that were granted and not answered yet."""
    lane = filled(3, 1)
    dice = {} if answer == "accepted" else {"dice": 0.0}

    for ticket in ("r0", "nobody"):
        with pytest.raises(LookupError, match="create is under way"):
            getattr(lane, answer)(ticket, 0.0, **dice)


def test_adopted_tasks_may_pass_the_limit_and_then_nothing_is_granted() -> None:
    """What runs on resume is counted as it is; creates wait until there is room again."""
    lane = filled(5, 3, 3)
    ask(lane, 1)

    over = lane.grant(0.0)
    lane.release("r0", 1.0)

    assert over == ([], None)
    assert lane.grant(1.0)[0] == [0]


def test_a_lower_limit_turns_away_what_can_never_fit() -> None:
    """A pack read later may be smaller: those who can never fit are named and leave the queue."""
    lane = Lane(Limit.learned(9))
    ask(lane, 2, 7, 5, 9)

    lost = lane.set_limit(Limit.known(5), 0.0)

    assert sorted(map(str, lost)) == ["1", "3"]
    assert (lane.limit, lane.ceiling, lane.waiting) == (5, 5, 2)
    assert lane.changes() == [Change(9, 5, "pack")]


def test_a_limit_nobody_knows_any_more_turns_nobody_away() -> None:
    """Without a ceiling every ticket may wait."""
    lane = filled(9)
    ask(lane, 9)

    assert lane.set_limit(Limit.learned(), 0.0) == []
    assert (lane.limit, lane.ceiling) == (5, None)


def test_a_stopped_lane_grants_nothing_and_forgets_nothing() -> None:
    """The breaker keeps the queue; the first reason stays; resuming goes on."""
    lane = filled(5, 1)
    ask(lane, 1)
    lane.stop("1102")
    lane.stop("later")

    stopped = lane.grant(0.0)
    reason = lane.stopped
    released = lane.release("r0", 0.0)
    lane.resume()

    assert stopped == ([], None)
    assert reason == "1102"
    assert released
    assert lane.grant(0.0)[0] == [0]


def test_slot_seconds_add_up_what_is_held_and_what_was_offered() -> None:
    """Utilisation is held slot-seconds by offered ones, counted from the first ticket."""
    lane = Lane(Limit.fixed(4))
    lane.ask(0, 2, 10.0)
    lane.grant(10.0)
    lane.accepted(0, 11.0)
    lane.release(0, 15.0)

    assert lane.slot_seconds(20.0) == pytest.approx(10.0)
    assert lane.offered_seconds(20.0) == pytest.approx(40.0)
    assert lane.slot_seconds(19.0) == pytest.approx(10.0)


def test_full_since_tells_how_long_somebody_has_waited_for_room() -> None:
    """A lane is full from the grant that left somebody waiting until slots come back."""
    lane = filled(1, 1)
    ask(lane, 1)
    lane.grant(3.0)
    lane.grant(4.0)

    full = lane.full_since
    lane.release("r0", 5.0)

    assert full == 3.0
    assert lane.full_since is None


def test_repr_tells_the_state() -> None:
    """A lane says in one line what it is doing."""
    lane = filled(5, 2, 2)
    ask(lane, 1)
    seen = [repr(lane)]
    lane.grant(0.0)
    lane.refused(0, 0.0, dice=0.0)
    seen.append(repr(lane))
    lane.grant(100.0)
    seen.append(repr(lane))
    lane.stop("1102")
    seen.append(repr(lane))

    assert seen == [
        "<Lane open, 4 of 5 slots held by 2, 1 waiting, 0 refusals>",
        "<Lane cooling, 4 of 4 slots held by 2, 1 waiting, 1 refusals>",
        "<Lane probing, 5 of 5 slots held by 3, 0 waiting, 1 refusals>",
        "<Lane stopped, 5 of 5 slots held by 3, 0 waiting, 1 refusals>",
    ]


def calls_of_one_cycle(waiting: int) -> int:
    """Count the function calls of ask, grant, accepted and release beside *waiting* other tickets."""
    lane = filled(9, 5)
    ask(lane, *(1 + number % 9 for number in range(waiting)))
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        lane.ask("last", 1, 0.0)
        granted, _ = lane.grant(0.0)
        lane.accepted(granted[0], 0.0)
        lane.release(granted[0], 0.0)
        lane.grant(0.0)
    finally:
        sys.setprofile(None)
    return calls


def test_the_length_of_the_queue_costs_nothing() -> None:
    """A cycle makes as many calls beside ten thousand waiting tickets as beside a hundred."""
    # A collection of garbage that falls into one of them adds a few.
    assert calls_of_one_cycle(100) == pytest.approx(calls_of_one_cycle(10_000), abs=20)


def test_parties_that_are_gone_are_forgotten() -> None:
    """A web application may name a party for each caller: nothing stays of those who left, however they left."""
    lane = filled(5)
    for number in range(100):
        lane.ask(number, 1, 0.0, party=number)
        if number % 2:
            lane.withdraw(number, 0.0)
        for ticket in lane.grant(0.0)[0]:
            lane.release(ticket, 0.0)

    level = lane._lines.party(0, "new").level

    assert list(level.parties) == ["new"]


def test_the_slots_of_a_party_are_known() -> None:
    """What a party holds is the sum over its tickets at all priorities; a stranger holds nothing."""
    lane = Lane(Limit.fixed(9))
    for name, slots, priority in (("a", 2, 0), ("b", 3, 1)):
        lane.ask(name, slots, 0.0, priority=priority, party="batch")
    lane.ask("c", 1, 0.0, party="other")

    lane.grant(0.0)

    assert (lane.held_by("batch"), lane.held_by("other"), lane.held_by("nobody")) == (5, 1, 0)


def test_spare_slots_are_those_nobody_waits_for() -> None:
    """A lane has slots to offer only while it is open, nobody waits, and it is not full; each party's share is known."""
    lane = Lane(Limit.fixed(5))
    before = lane.spare(0.0)
    lane.ask("a", 2, 0.0, party="one")
    waiting = lane.spare(0.0)
    lane.grant(0.0)
    granted, shares = lane.spare(0.0), (lane.held_by("one"), lane.held_by("two"))
    lane.refused("a", 1.0, dice=0.5)
    lane.withdraw("a", 1.0)
    cooling, later = lane.spare(1.0), lane.spare(100.0)
    lane.stop("reason")

    assert (before, waiting, granted, shares) == (5, 0, 3, (2, 0))
    assert cooling == 0
    assert later == lane.limit == 1, "after a refusal, what was held then, for one probe"
    assert lane.spare(200.0) == 0


def test_tasks_that_run_alike_share_what_stands_for_them() -> None:
    """However many tasks of one party and weight run, the lane keeps one ticket; each still ends by itself and once."""
    lane = filled(9)
    for key in range(6):
        lane.adopt(key, 1 + key % 2, 0.0, party="batch")

    kept = {id(ticket) for ticket in lane._tickets.values()}
    ended = [lane.release(1, 1.0), lane.release(1, 1.0)]

    assert len(kept) == 2
    assert ended == [True, False]
    assert (lane.held, lane.in_flight, lane.held_by("batch")) == (7, 5, 7)


def test_a_party_that_is_gone_needs_no_collector() -> None:
    """Callers come and go: what stood for one goes with its last task, without a circle left behind."""
    lane = filled(9)
    lane.adopt("task", 1, 0.0, party="caller")
    party = weakref.ref(lane._tickets["task"].party)

    lane.release("task", 1.0)

    assert party() is None
