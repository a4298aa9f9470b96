"""The fidelity page keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import fields_dict

from kling_async.emulator import EmulatorSettings
from kling_async.emulator.faults import ACTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")


def test_every_option_is_on_the_page() -> None:
    """Each field of the settings is explained."""
    named = set(re.findall(r"`(\w+)`", PAGE))

    assert set(fields_dict(EmulatorSettings)) <= named


def test_every_fault_is_on_the_page() -> None:
    """The table of faults has each action with its routes, and no other."""
    section = PAGE.partition("| action |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \|", section, re.MULTILINE))

    assert rows == {name: ", ".join(action.routes) for name, action in ACTIONS.items()}
