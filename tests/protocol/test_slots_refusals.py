"""The lane after a refusal, a throttle or a pause: exact delays, single probes, the way back."""

from __future__ import annotations

import math

import pytest

from kling_async.protocol.gates import Gate, sane
from kling_async.protocol.limits import Change, Limit
from kling_async.protocol.slots import Lane


def running(count: int, *, limit: Limit, waiting: int = 100) -> Lane:
    """A lane with *count* running tasks r0, r1, ... of one slot, and tickets 0, 1, ... that wait for one slot each."""
    lane = Lane(limit)
    for number in range(count):
        lane.adopt(f"r{number}", 1, 0.0)
    for number in range(waiting):
        lane.ask(number, 1, 0.0)
    return lane


def refuse(lane: Lane, now: float, dice: float = 0.0, retry_after: float | None = None) -> None:
    """Grant what fits and refuse it all."""
    granted, _ = lane.grant(now)
    assert granted
    for ticket in granted:
        lane.refused(ticket, now, dice=dice, retry_after=retry_after)


def test_a_refusal_lowers_the_limit_to_what_is_held_and_returns_the_ticket_to_the_front() -> None:
    """After 1303 the lane believes in what it still holds, and the refused ticket is next."""
    lane = running(4, limit=Limit.fixed(5))
    refuse(lane, 0.0)

    assert (lane.limit, lane.held, lane.refusals, lane.refused_since) == (4, 4, 1, 0.0)
    assert lane.changes() == [Change(5, 4, "refused")]
    lane.release("r0", 0.5)
    assert lane.grant(0.5)[0] == [0]


@pytest.mark.parametrize(
    ("dice", "delays"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        (0.5, [1.5, 2.5, 4.5, 8.5, 16.5, 30.5, 30.5, 30.5]),
        (1.0, [2, 4, 8, 16, 32, 60, 60, 60]),
    ],
)
def test_cool_downs_double_with_jitter_from_one_second_to_sixty(dice: float, delays: list[float]) -> None:
    """While everything is refused, one create leaves at the end of each cool-down and no other."""
    lane = running(0, limit=Limit.fixed(5))
    now = 0.0
    seen: list[float] = []
    lane.ask("probe", 1, now, priority=1)

    (first, *others), _ = lane.grant(now)
    lane.refused(first, now, dice=dice)
    for ticket in others:
        lane.refused(ticket, now, dice=dice)
    while len(seen) < len(delays):
        granted, again = lane.grant(now)
        assert granted == []
        assert again is not None
        seen.append(again - now)
        now = again
        refuse(lane, now, dice)

    assert seen == pytest.approx(delays)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(3.0, 3.0), (-5.0, None), (0.0, None), (1e9, 60.0), (math.nan, None), (math.inf, None), (None, None)],
)
def test_only_a_sensible_retry_after_counts(retry_after: float | None, expected: float | None) -> None:
    """The service may name a pause of up to sixty seconds; nonsense is as good as nothing."""
    assert sane(retry_after) == expected


def test_a_retry_after_is_waited_out_even_if_a_slot_becomes_free() -> None:
    """A backoff of ours ends early when a slot of ours is released, a pause the service asked for does not."""
    ours = running(4, limit=Limit.fixed(5))
    refuse(ours, 0.0, 0.9)
    theirs = running(4, limit=Limit.fixed(5))
    refuse(theirs, 0.0, 0.9, retry_after=3.0)

    ours.release("r0", 0.5)
    theirs.release("r0", 0.5)

    assert ours.grant(0.5) == ([0], None)
    assert theirs.grant(0.5) == ([], 3.0)
    assert theirs.grant(3.0)[0] == [0]


def test_one_probe_only_until_it_is_accepted() -> None:
    """After a cool-down a single create tests the water; its success opens the lane again."""
    lane = running(5, limit=Limit.fixed(6))
    refuse(lane, 0.0)
    for number in range(3):
        lane.release(f"r{number}", 0.5)

    probe = lane.grant(0.5)
    still = lane.grant(0.6)
    lane.accepted(0, 1.0)

    assert probe == ([0], None)
    assert still == ([], None)
    assert lane.refused_since is None
    assert lane.grant(1.0)[0] == [1, 2]


def test_a_burst_of_refusals_counts_as_one_strike() -> None:
    """Creates sent before the first refusal lower the limit, but do not lengthen the pause."""
    lane = running(2, limit=Limit.fixed(5))
    granted, _ = lane.grant(0.0)

    for ticket in granted:
        lane.refused(ticket, 0.0, dice=1.0)

    assert granted == [0, 1, 2]
    assert (lane.limit, lane.refusals) == (2, 3)
    assert lane.grant(0.0) == ([], 2.0)


def test_a_late_retry_after_of_the_same_burst_lengthens_the_pause() -> None:
    """The longest pause the service asked for in a burst holds."""
    lane = running(2, limit=Limit.fixed(5))
    lane.grant(0.0)

    lane.refused(0, 0.0, dice=0.0)
    lane.refused(1, 0.0, dice=0.0, retry_after=7.0)
    lane.refused(2, 0.0, dice=0.0, retry_after=5.0)

    assert lane.grant(0.0) == ([], 7.0)


def test_refused_tickets_return_in_their_old_order() -> None:
    """Whatever the order of the answers, who asked first is first again."""
    lane = running(2, limit=Limit.fixed(5))
    lane.grant(0.0)
    for number in (1, 0, 2):
        lane.refused(number, 0.0, dice=0.0)
    for number in range(2):
        lane.release(f"r{number}", 1.0)

    order: list[object] = []
    while len(order) < 4:
        granted, _ = lane.grant(2.0)
        order += granted
        for ticket in granted:
            lane.accepted(ticket, 2.0)
            lane.release(ticket, 2.0)

    assert order == [0, 1, 2, 3]


def test_a_returned_ticket_goes_before_one_that_room_is_kept_for() -> None:
    """A light ticket that was refused is older than the heavy one it had passed; it goes first."""
    lane = Lane(Limit.fixed(9))
    lane.adopt("r0", 8, 0.0)
    lane.ask("light", 1, 0.0)
    lane.ask("heavy", 2, 0.0)
    lane.ask("late", 1, 0.0)
    lane.grant(0.0)
    lane.refused("light", 0.0, dice=0.0)
    lane.release("r0", 0.0)

    assert lane.grant(0.0)[0] == ["light"]


def test_probe_after_probe_refused_takes_ever_more_freed_slots() -> None:
    """When others take what we free, only every second, fourth, eighth release is tried."""
    lane = running(64, limit=Limit.fixed(65))
    refuse(lane, 0.0)
    tried = []
    for number in range(20):
        lane.release(f"r{number}", 0.0)
        granted, _ = lane.grant(0.0)
        if granted:
            tried.append(number + 1)
            lane.refused(granted[0], 0.0, dice=1.0)

    assert tried == [1, 2, 4, 8, 16]


def test_a_probe_that_fails_for_another_reason_lets_the_next_one_try() -> None:
    """A probe whose create never happened tells nothing about slots."""
    lane = running(1, limit=Limit.fixed(2))
    refuse(lane, 0.0)
    lane.release("r0", 0.0)
    lane.grant(0.0)

    assert lane.release(0, 0.5)
    assert lane.grant(0.5)[0] == [1]


def test_a_freed_slot_allows_a_probe_beside_one_of_unknown_fate() -> None:
    """A create whose reply was lost does not block the lane once a slot is certainly free."""
    lane = running(3, limit=Limit.fixed(4))
    refuse(lane, 0.0)
    lane.release("r0", 0.0)
    lane.grant(0.0)

    lane.release("r1", 30.0)

    assert lane.grant(30.0)[0] == [1]


def test_a_lowered_limit_is_probed_again_after_a_turn_of_the_lane() -> None:
    """One ticket goes beyond the limit after as many slots were released as the lane has; success raises it."""
    lane = running(4, limit=Limit.fixed(6))
    refuse(lane, 0.0)
    done: list[object] = []
    for number in range(5):
        lane.release(f"r{number}" if number < 4 else done.pop(0), 1.0)
        granted, _ = lane.grant(1.0)
        for ticket in granted:
            lane.accepted(ticket, 1.0)
            done.append(ticket)
        if lane.limit == 5:
            break

    assert number == 3
    assert lane.changes()[-1] == Change(4, 5, "probe")


def test_a_lowered_limit_is_probed_again_after_a_quiet_minute() -> None:
    """A lane whose tasks never end still asks for its slots again, and says when; refused, it waits twice as long."""
    lane = running(4, limit=Limit.fixed(5))
    refuse(lane, 0.0)

    waits = lane.grant(2.0)
    granted, _ = lane.grant(60.0)
    lane.refused(granted[0], 60.0, dice=0.0)

    assert waits == ([], 60.0)
    assert lane.grant(62.0) == ([], 180.0)


def test_a_stretch_that_lasts_doubles_the_next_one() -> None:
    """When foreign tasks have gone the limit comes back by 1, 2, 4, ... tickets for each quiet period."""
    lane = running(10, limit=Limit.known(50))
    refuse(lane, 0.0)
    sizes = []
    for minute in range(1, 6):
        before = lane.held
        for _ in range(20):
            for ticket in lane.grant(minute * 60.0)[0]:
                lane.accepted(ticket, minute * 60.0)
        sizes.append(lane.held - before)

    assert sizes == [1, 2, 4, 8, 16]


def test_a_learned_limit_rises_whenever_it_is_full_until_the_first_refusal() -> None:
    """Nobody named a limit of 20, and it is found within one refusal, at a few creates at a time."""
    lane = running(0, limit=Limit.learned())
    under_way = []

    while not lane.refusals:
        granted, _ = lane.grant(0.0)
        under_way.append(len(granted))
        for ticket in granted:
            if isinstance(ticket, int) and ticket < 20:
                lane.accepted(ticket, 0.0)
            else:
                lane.refused(ticket, 0.0, dice=0.0)

    assert max(under_way) == 3
    assert lane.limit <= 20


def test_a_lane_that_is_not_full_does_not_grow() -> None:
    """Without anybody waiting there is no evidence, and the limit stays."""
    lane = running(0, limit=Limit.learned(), waiting=5)
    for _ in range(5):
        for ticket in lane.grant(0.0)[0]:
            lane.accepted(ticket, 0.0)

    assert (lane.held, lane.limit) == (5, 5)


def test_what_a_heavy_refusal_does_not_contradict_comes_back_at_once() -> None:
    """Nine more were too many; the four that were proven before still fit without a quiet period."""
    lane = Lane(Limit.fixed(20))
    for name, slots in (("a", 10), ("b", 4)):
        lane.adopt(name, slots, 0.0)
    lane.release("b", 0.0)
    lane.ask("heavy", 9, 0.0)
    lane.grant(0.0)
    lane.refused("heavy", 0.0, dice=0.0)
    lane.ask("light", 4, 0.0)

    lowered = lane.limit
    granted, _ = lane.grant(2.0)

    assert lowered == 10
    assert granted == ["light"]
    assert lane.limit == 14


def test_a_heavy_ticket_refused_alone_lets_lighter_ones_try() -> None:
    """Others hold part of the account: who fits into the rest goes on, and the heavy one is tried again after a while."""
    lane = Lane(Limit.fixed(9))
    lane.ask("heavy", 9, 0.0)
    lane.ask("light", 2, 0.0)
    lane.grant(0.0)
    lane.refused("heavy", 0.0, dice=0.0)

    granted, _ = lane.grant(1.0)
    lane.accepted("light", 1.0)
    lane.release("light", 5.0)

    assert granted == ["light"]
    assert lane.grant(5.0)[0] == ["heavy"]
    lane.accepted("heavy", 5.0)
    assert lane.limit == 9


def test_a_full_account_is_probed_by_the_lightest_ticket() -> None:
    """With nothing of ours held, the limit is one and somebody is tried at each cool-down."""
    lane = Lane(Limit.fixed(9))
    lane.ask("heavy", 9, 0.0)
    lane.ask("light", 2, 0.0)
    tried = []
    now = 0.0
    for _ in range(3):
        granted, again = lane.grant(now)
        if not granted:
            assert again is not None
            now = again
            granted, _ = lane.grant(now)
        tried += granted
        lane.refused(granted[0], now, dice=0.0)

    assert tried == ["heavy", "light", "light"]
    assert lane.limit == 1
    assert lane.refused_since == 0.0


def test_a_pack_read_later_does_not_undo_what_a_refusal_taught() -> None:
    """A name of nine slots raises the ceiling; the believed limit rises by evidence."""
    lane = running(4, limit=Limit.learned())
    refuse(lane, 0.0)

    lane.set_limit(Limit.known(9), 1.0)

    assert (lane.limit, lane.ceiling) == (4, 9)


def test_too_many_requests_halve_the_rate_and_leave_the_limit_alone() -> None:
    """After 1302 creates leave at half the speed they had, spaced, and the slots stay what they are."""
    lane = running(50, limit=Limit.fixed(50))
    for number in range(20):
        lane.release(f"r{number}", 0.0)
    granted, _ = lane.grant(0.0)
    for ticket in granted:
        lane.throttled(ticket, 0.5, dice=0.0)

    assert len(granted) == 20
    assert (lane.rate, lane.limit, lane.throttles, lane.refusals) == (10.0, 50, 20, 0)
    assert lane.grant(0.5) == ([], 1.5)
    assert lane.grant(1.5)[0] == [0]
    lane.accepted(0, 1.55)
    sent, again = lane.grant(1.6)
    assert sent == [1, 2, 3]
    assert again is not None
    assert 1.6 < again < 1.75


def test_a_rate_recovers_step_by_step_and_then_opens() -> None:
    """Half the old rate widens by a twentieth of the old one for each second of use, to twice the old rate."""
    gate = Gate()
    for _ in range(10):
        gate.passed(0.5)
    gate.passed(1.5)
    gate.widen()
    gate.narrow()
    rates = []
    while gate.rate is not None:
        rates.append(gate.rate)
        gate.widen()

    assert rates[:2] == pytest.approx([5.0, 5.1])
    assert rates[-1] < 20
    assert rates == sorted(rates)
    assert gate.wait_until(1.5) is None


def test_a_rate_never_falls_below_one_create_in_five_seconds() -> None:
    """However often the service complains, somebody asks."""
    gate = Gate()
    for _ in range(20):
        gate.narrow()
    gate.passed(100.0)

    assert gate.rate == 0.2
    assert gate.wait_until(100.0) == pytest.approx(104.75)


def test_a_service_that_is_down_is_asked_by_one_create_at_a_time() -> None:
    """5001 pauses the lane without touching the limit, and a release does not end the pause."""
    lane = running(2, limit=Limit.fixed(5))
    for ticket in lane.grant(0.0)[0]:
        lane.paused(ticket, 0.0, dice=1.0)

    lane.release("r0", 0.5)

    assert lane.limit == 5
    assert lane.grant(1.0) == ([], 2.0)
    assert lane.grant(2.0) == ([0], None)
    lane.accepted(0, 2.1)
    assert lane.grant(2.1)[0] == [1, 2, 3]


def test_a_probe_never_passes_the_ceiling() -> None:
    """A lane of nine that holds eight sends nothing heavier than one slot, however long it has been quiet."""
    lane = Lane(Limit.known(9))
    lane.adopt("r0", 8, 0.0)
    lane.ask("light", 1, 0.0)
    refuse(lane, 0.0)
    lane.withdraw("light", 0.0)
    lane.ask("heavy", 2, 0.0)

    assert lane.grant(10_000.0) == ([], None)


def test_a_late_acceptance_does_not_end_a_cool_down() -> None:
    """A create sent before the refusal says nothing about now; its slots are held all the same."""
    lane = running(2, limit=Limit.fixed(5))
    lane.grant(0.0)
    lane.refused(0, 0.0, dice=1.0)

    lane.accepted(1, 0.5)

    assert lane.grant(0.5) == ([], 2.0)
    assert lane.refused_since == 0.0


def test_an_accepted_probe_makes_the_next_pause_short_again() -> None:
    """Backoff counts refusals in a row; one success starts it anew."""
    lane = running(3, limit=Limit.fixed(3), waiting=10)
    for number in range(2):
        lane.release(f"r{number}", 0.0)
        refuse(lane, number * 10.0, dice=1.0)
        lane.grant(number * 10.0)
    lane.release("r2", 30.0)
    (probe, *_), _ = lane.grant(30.0)
    lane.accepted(probe, 30.0)
    lane.release(probe, 31.0)

    refuse(lane, 31.0, dice=1.0)

    assert lane.grant(31.0) == ([], 33.0)


def test_a_heavy_ticket_that_was_accepted_after_all_is_not_held_back_again() -> None:
    """Once nine slots were seen to be held, older refusals of nine say nothing any more, however many there were."""
    lane = Lane(Limit.fixed(9))
    lane.ask("heavy", 9, 0.0)
    now = 0.0
    for _ in range(6):
        refuse(lane, now)
        now += 1000.0
    lane.grant(now)
    lane.accepted("heavy", now)
    lane.release("heavy", now)
    lane.adopt("r0", 1, now)
    lane.ask("heavy", 9, now)
    for number in range(20):
        lane.ask(number, 8, now)
        for ticket in lane.grant(now)[0]:
            lane.accepted(ticket, now)
            lane.release(ticket, now)
    lane.release("r0", now)

    assert lane.waiting == 1 + 20 - 14  # fourteen of eight slots are more than twelve of nine
    assert lane.grant(now)[0] == ["heavy"]


def test_the_last_slots_below_a_refused_limit_are_not_taken_by_a_herd() -> None:
    """When forty tasks of a thousand are seen to have ended at once, the last twenty slots are proven ten at a time."""
    lane = running(1000, limit=Limit.learned(1000))
    refuse(lane, 0.0)
    for number in range(41):
        lane.release(f"r{number}", 10.0)
    (probe,), _ = lane.grant(10.0)
    lane.accepted(probe, 10.0)

    granted, _ = lane.grant(10.0)

    assert lane.limit == 1000
    assert len(granted) == 30
