"""A run as a picture: the numbers, the slots, the SVG, and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from cli_kit import call
from hypothesis import given
from hypothesis import strategies as st
from socket_kit import client, job

from kling_async.emulator import Emulator, Fault
from kling_async.report.bars import Bar, figures, place, read_bars
from kling_async.report.timeline import draw

NAME = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, the loop of aiohttp."""
    return "asyncio"


def waves(jobs: int, slots: int, seconds: float = 24.0) -> list[Bar]:
    """Jobs that all take the same time, in step."""
    return [
        Bar(start=seconds * (number // slots), end=seconds * (number // slots + 1), key=f"row-{number}")
        for number in range(jobs)
    ]


BARS = st.lists(
    st.builds(
        lambda start, long, slots: Bar(start=start, end=start + long, slots=slots, key="k"),
        st.floats(0, 100),
        st.floats(1, 50),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=40,
)


@given(bars=BARS)
def test_no_slot_holds_two_tasks_at_once(bars: list[Bar]) -> None:
    """Each task has as many slots as it weighs, and in none of them another task but for the slack of the books."""
    placed = place(bars)

    by_row = defaultdict(list)
    for one in placed:
        assert len(set(one.rows)) == one.bar.slots
        for row in one.rows:
            by_row[row].append(one.bar)
    for held in by_row.values():
        held.sort(key=lambda bar: (bar.start, bar.end))
        assert all(bar.end <= later.start + 0.25 for bar, later in pairwise(held))


@given(bars=BARS, steps=st.integers(1, 50))
def test_use_adds_up(bars: list[Bar], steps: int) -> None:
    """The slot-seconds over time are those of the tasks, and shares stay between none and all."""
    found = figures(bars, steps=steps)

    used = sum((bar.end - bar.start) * bar.slots for bar in bars)
    assert sum(found.held) * found.seconds / steps == pytest.approx(used)
    assert 0 <= found.utilisation <= 1.02
    assert found.utilisation * found.slots * found.seconds == pytest.approx(used)


def test_figures_of_full_waves() -> None:
    """Four full waves use all of the slots; one job more costs a whole time, but not until it begins."""
    full, more = figures(waves(36, 9)), figures(waves(37, 9))

    assert (full.tasks, full.slots, full.seconds, full.typical_seconds) == (36, 9, 96.0, 24.0)
    assert full.utilisation == full.utilisation_filled == pytest.approx(1.0)
    assert more.utilisation == pytest.approx(37 / 45)
    assert more.utilisation_filled == pytest.approx(1.0)
    assert figures(waves(36, 9), slots=18).utilisation == pytest.approx(0.5)


def test_nothing_has_a_picture_too() -> None:
    """A run without tasks is drawn empty."""
    assert figures([]).utilisation == 0.0
    assert "0 tasks on 1 slot" in texts(draw([]))[0]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{NAME}text")]


def test_few_tasks_are_drawn_one_by_one() -> None:
    """Each of 24 tasks has its shape, its key and its words for whoever points at it or cannot see."""
    bars = [*waves(24, 9), Bar(start=48, end=60, slots=2, key="<bad> & \x00", state="failed")]

    svg = draw(bars, slots=9, title="a run")

    root = ET.fromstring(svg)
    titles = [element.text or "" for element in root.iter(f"{NAME}title")]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert titles[0] == "a run: 25 tasks on 9 slots in 72 s"
    assert "24 succeeded" in (root.findtext(f"{NAME}desc") or "")
    assert "row-7: succeeded, 1 slot, 0 s to 24 s" in titles
    assert "<bad> & \N{REPLACEMENT CHARACTER}: failed, 2 slots, 48 s to 60 s" in titles
    assert {"row-0", "row-23", "1", "9", "100%", "1 failed"} <= set(texts(svg))
    assert "prefers-color-scheme: dark" in svg


def test_many_tasks_are_few_shapes_in_a_small_file() -> None:
    """Five thousand tasks on a thousand slots are one shape for each kind, well within what a page can show."""
    svg = draw(waves(5000, 1000))

    classes = [element.get("class") or "" for element in ET.fromstring(svg).iter(f"{NAME}path")]
    assert [name for name in classes if name.startswith("succeeded")] == ["succeeded0", "succeeded1"]
    assert svg.count("z") > 5000
    assert len(svg) < 300_000


def test_everything_stays_on_the_page() -> None:
    """No shape lies outside the picture, however long or short the run is."""
    for seconds in (0.001, 0.7, 24.0, 90_000.0):
        root = ET.fromstring(draw(waves(20, 3, seconds)))
        _, _, width, height = map(float, (root.get("viewBox") or "").split())
        for shape in root.iter(f"{NAME}rect"):
            x, y, wide, high = (float(shape.get(name) or 0) for name in ("x", "y", "width", "height"))
            assert x >= 0
            assert y >= 0
            assert x + wide <= width + 1
            assert y + high <= height + 1


@pytest.mark.anyio
async def test_a_journal_is_drawn_by_the_command(tmp_path: Path) -> None:
    """The tasks of a real run, parts of split jobs among them, are read with their slots, times and ends."""
    jobs = [job(key=f"row-{number}", n=n) for number, n in enumerate([1, 3, 2, 1, 9])]
    faults = [Fault(action="fail-task", times=1)]
    async with Emulator(slots=4, speed=1, task_seconds=0.2, paint="stamp", faults=faults) as emulator:
        async with client(emulator, slots=4) as kling:
            async with kling.batch(jobs, out=tmp_path, split=True) as batch:
                told = [outcome async for outcome in batch]

    bars = read_bars(tmp_path / "journal.db")
    said = call("timeline", tmp_path, "--slots", "4", "--json", cwd=tmp_path)
    missing = call("timeline", tmp_path / "none", cwd=tmp_path)

    assert len(told) == 5
    assert len(bars) == len(emulator.tasks) == 7
    assert sum(bar.slots for bar in bars) == 16
    assert sorted(bar.state for bar in bars) == ["failed"] + ["succeeded"] * 6
    assert {"row-4 (part 1 of 3)", "row-4 (part 3 of 3)"} <= {bar.key for bar in bars}
    assert all(0.19 <= bar.end - bar.start < 2 for bar in bars)
    assert max(max(one.rows) for one in place(bars)) < 6
    numbers = json.loads(said.out)
    assert (numbers["tasks"], numbers["slots"], numbers["states"]) == (7, 4, {"failed": 1, "succeeded": 6})
    assert 0.4 < numbers["utilisation"] <= 1
    assert (tmp_path / "timeline.svg").samefile(numbers["file"])
    assert missing.code == 3
    assert re.search("expected a journal at .*none", missing.err)


def test_reading_needs_nothing_of_the_client() -> None:
    """The picture is made without network code: the module imports neither asyncio nor aiohttp."""
    code = "import sys, kling_async.report.timeline as t; assert 'aiohttp' not in sys.modules; print(len(t.draw([])))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000
