"""Faults as data: how they are written, read, counted and drawn."""

from __future__ import annotations

import pytest

from kling_async.emulator import Fault, Faults
from kling_async.emulator.faults import ACTIONS, Dice
from kling_async.errors import ConfigError


def test_the_storyboards_spec_is_read() -> None:
    """The text that the command line promises becomes the faults it names."""
    text = "1303:5%,5002-but-created:1%, drop-after-accept:1%,html-502:0.25,dup-callback:10%,delay@get=2.5s:x3,truncate@*,hang=1,"

    assert tuple(Faults.parse(text)) == (
        Fault(action="refuse", code=1303, probability=0.05),
        Fault(action="refuse-after-accept", code=5002, probability=0.01),
        Fault(action="reset-after-accept", probability=0.01),
        Fault(action="html-502", probability=0.25),
        Fault(action="duplicate-callback", probability=0.1),
        Fault(action="delay", route="get", seconds=2.5, times=3),
        Fault(action="truncate", route="*"),
        Fault(action="hang", seconds=1.0),
    )


@pytest.mark.parametrize("action", [name for name in ACTIONS if not name.startswith("refuse")])
def test_every_action_can_be_written(action: str) -> None:
    """Each action without a code is a name of the spec."""
    assert Faults.parse(action).rows == (Fault(action=action),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1303:5", r"expected NAME"),
        ("1303:5%%", r"expected NAME"),
        ("9999", "expected a code of the service"),
        ("nonsense:5%", "drop-after-accept"),
        ("refuse", "CODE-but-created"),
        ("html-502@moon", "expected a route of html-502"),
        ("1303:200%", "probability from 0 to 1"),
        ("dup-callback@create", "expected a route of duplicate-callback"),
    ],
)
def test_a_bad_spec_says_what_was_expected(text: str, words: str) -> None:
    """Each mistake is a ConfigError that names what could stand there."""
    with pytest.raises(ConfigError, match=words):
        Faults.parse(text)


@pytest.mark.parametrize(
    "row", [{"action": "refuse"}, {"action": "reset", "code": 1303}, {"action": "dance"}]
)
def test_a_fault_must_make_sense(row: dict[str, object]) -> None:
    """A refusal needs a code, nothing else takes one, and the action must exist."""
    with pytest.raises(ConfigError, match="expected"):
        Fault.from_row(row)


@pytest.mark.parametrize(
    "row", [3, {}, {"code": 1}, {"action": "reset", "nonsense": 1}, {"action": "reset", "probability": "a"}]
)
def test_a_row_that_is_no_fault_is_refused(row: object) -> None:
    """JSON that does not describe a fault is a ConfigError."""
    with pytest.raises(ConfigError, match="expected"):
        Fault.from_row(row)


def test_a_fault_survives_its_row() -> None:
    """What row() writes, from_row() reads."""
    fault = Fault(action="refuse", code=1303, times=2, after=5, match_external_id="demo-*", retry_after="3")

    assert Fault.from_row(fault.row()) == fault
    assert fault.row() == {
        "action": "refuse", "code": 1303, "times": 2, "after": 5, "match_external_id": "demo-*", "retry_after": "3"
    }  # fmt: skip


def test_faults_join() -> None:
    """Rows of faults are added up and counted."""
    both = Faults([Fault(action="reset")]) + Faults.parse("hang") + [Fault(action="close")]

    assert [each.action for each in both] == ["reset", "hang", "close"]
    assert len(both) == 3
    assert Faults.of(both) is both
    assert Faults.of([Fault(action="reset")]) == Faults([Fault(action="reset")])


def test_after_and_times_bound_a_fault() -> None:
    """The first *after* matching requests are spared, then *times* are struck; others are not counted."""
    dice = Dice(Faults([Fault(action="refuse", code=1303, after=2, times=2, match_external_id="a-*")]))

    struck = [
        dice.strike("before", "create", name) is not None
        for name in ("a-1", "b-1", "a-2", "a-3", "a-4", "a-5")
    ]

    assert struck == [False, False, False, True, True, False]
    assert dice.hits == [2]
    assert dice.strike("after", "create", "a-9") is None
    assert dice.strike("before", "get", "a-9") is None
    assert "2 hits" in repr(dice)


def test_dice_are_seeded() -> None:
    """The same seed strikes the same requests, another seed others, at about the asked rate."""

    def struck(seed: int) -> list[bool]:
        dice = Dice(Faults.parse("1303:20%"), seed)
        return [dice.strike("before", "create") is not None for _ in range(1000)]

    assert struck(1) == struck(1) != struck(2)
    assert 150 < sum(struck(1)) < 250


def test_a_star_covers_all_routes_of_the_action() -> None:
    """`@*` strikes wherever the action can, its default only where it belongs."""
    everywhere, usual = Fault(action="truncate", route="*"), Fault(action="truncate")

    assert [route for route in ("create", "get", "list", "costs", "result") if everywhere.covers(route, "")] == [
        "create", "get", "list", "costs", "result"
    ]  # fmt: skip
    assert usual.covers("create", "")
    assert not usual.covers("get", "")
