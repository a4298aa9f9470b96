"""J18 and J19: what is flushed before what, and a power cut at every step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from crash_kit import Work, Zygote, assert_kept
from fault_server import Remote

# Places that six jobs pass in a run; a nox session tries all of them, otherwise some are chosen.
_PLACES = 150
CUTS = range(1, _PLACES, 1 if os.environ.get("KLING_TEST_CUTS") else 11)


@pytest.mark.parametrize("cut", CUTS)
def test_j19_a_power_cut_loses_nothing_that_was_paid(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], cut: int
) -> None:
    """With everything gone that was not flushed, the run goes on as after a crash: paid once, done, files the same."""
    service.change(unique=False)

    first = zygote.live(work.order(service, cut=cut))
    if first.killed:
        shutil.rmtree(work.out)
        left = Path(f"{work.out}.left")
        if left.exists():
            left.rename(work.out)
    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_j18_what_is_flushed_before_what(zygote: Zygote, service: Remote, tmp_path: Path) -> None:
    """A picture is on the disk before it has its name, and the name before the journal says that the job is done."""
    work = Work(out=tmp_path / "out", weights=(2,))

    zygote.live(work.order(service, cut_at="after-done"))
    events = [tuple(event) for event in json.loads(Path(f"{work.out}.left.events").read_bytes())]

    parts = [name for what, name in events if what == "fsync" and name.endswith(".part")]
    names = [name for what, name in events if what == "link"]
    assert len(parts) == 2
    assert sorted(names) == ["row-0_0.png", "row-0_1.png"]
    for name in names:
        part = next(part for part in parts if part.startswith(name.removesuffix(".png")))
        flushed, linked = events.index(("fsync", part)), events.index(("link", name))
        named = events.index(("fsync folder", "images"), linked)
        done = events.index(("place", "done"))
        assert flushed < linked < named < done


def test_j18_the_name_of_the_run_is_flushed_before_anything_is_sent(
    zygote: Zygote, service: Remote, work: Work
) -> None:
    """What tasks are found by when the journal is lost is on the disk before the first create, as is its folder."""
    zygote.live(work.order(service, cut_at="after-intent"))
    events = [tuple(event) for event in json.loads(Path(f"{work.out}.left.events").read_bytes())]

    assert service.books()["requests"].get("create", 0) == 0
    written = events.index(("fsync", "run.json.new"))
    assert (
        written
        < events.index(("replace", "run.json"), written)
        < events.index(("fsync folder", "out"), written)
    )
    assert ("fsync folder", work.out.parent.name) in events
    assert {path.name for path in Path(f"{work.out}.left").iterdir()} >= {"run.json", "images", "journal.db"}
