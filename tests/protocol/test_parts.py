"""How one job becomes several tasks and one again, in pure code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import MultiImage
from kling_async.errors import InvalidJob
from kling_async.protocol.parts import (
    Made,
    fewest_parts,
    is_part,
    join,
    part_job,
    part_key,
    shares,
    shown_key,
    whole_key,
)
from kling_async.protocol.tasks import ResultImage, Task, TaskStatus

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


def job(**fields: Any) -> MultiImage:
    given: dict[str, Any] = {"subject_images": ["https://example.com/a.png"], "n": 9}
    return MultiImage(**(given | fields))


def task(name: str, indexes: list[int], **fields: Any) -> Task:
    images = tuple(ResultImage(index=index, url=f"https://x.example/{name}/{index}") for index in indexes)
    values: dict[str, Any] = {
        "task_id": name,
        "external_task_id": f"own-{name}",
        "status": TaskStatus.SUCCEED,
        "images": images,
    }
    return Task(**(values | fields))


@given(n=st.integers(1, 9), most=st.integers(1, 9))
def test_shares_are_the_fewest_that_fit_and_even(n: int, most: int) -> None:
    """The parts add up, none is too heavy, there are as few as can be, and none is two pictures larger than another."""
    parts = shares(n, fewest_parts(n, most))

    assert sum(parts) == n
    assert max(parts) <= most
    assert max(parts) - min(parts) <= 1
    assert (len(parts) - 1) * most < n
    assert list(parts) == sorted(parts, reverse=True)


@given(key=st.text(min_size=1).filter(lambda text: "\x1f" not in text), count=st.integers(1, 9))
def test_part_keys_tell_their_job(key: str, count: int) -> None:
    """Each part has a key of its own that leads back to its job's, and that no job can have."""
    keys = [part_key(key, number, count) for number in range(1, count + 1)]

    assert len(set(keys)) == count
    assert {whole_key(each) for each in keys} == {key}
    assert all(map(is_part, keys))
    assert not is_part(key)
    with pytest.raises(InvalidJob, match=r"U\+001F"):
        job(key=keys[0] if keys[0].strip() else "x")


def test_keys_are_shown_in_words() -> None:
    """People read the number of a part; other keys stay as they are."""
    assert shown_key(part_key("dress", 2, 3)) == "dress (part 2 of 3)"
    assert shown_key("dress") == "dress"


def test_parts_are_the_job_but_for_n() -> None:
    """A part asks for the same, for fewer pictures; a caller's own external id gets the number and stays short enough."""
    whole = job(prompt="x", external_task_id="o" * 64, key="k")

    parts = [part_job(whole, number, 2) for number in (1, 2)]

    assert [part.n for part in parts] == [5, 4]
    assert {part.prompt for part in parts} == {"x"}
    assert [part.external_task_id for part in parts] == [f"{'o' * 54}-1of2", f"{'o' * 54}-2of2"]
    assert part_job(job(), 1, 2).external_task_id is None


def test_joined_pictures_are_numbered_through() -> None:
    """Pictures keep their order, whatever the parts call them, and a missing one leaves its place free."""
    joined = join([Made(task("a", [2, 1]), 0), Made(task("b", [0, 1, 2]), 3)])

    assert [image.index for image in joined.images] == [0, 1, 3, 4, 5]
    assert [image.url[-3:] for image in joined.images] == ["a/1", "a/2", "b/0", "b/1", "b/2"]


def test_joined_figures_add_up() -> None:
    """Units are added, ids are listed, the time spans all parts, and the raw objects are kept."""
    first = task("a", [0], units=Decimal(80), created_at=NOON, updated_at=NOON + timedelta(seconds=9))
    second = task("b", [0], units=Decimal(64), created_at=NOON - timedelta(seconds=1), updated_at=NOON)

    joined = join([Made(first, 0), Made(second, 5)])

    assert joined.units == Decimal(144)
    assert (joined.task_id, joined.external_task_id) == ("a,b", "own-a,own-b")
    assert (joined.created_at, joined.updated_at) == (second.created_at, first.updated_at)
    assert joined.raw == {"parts": [{}, {}]}
    assert join([Made(task("c", [0]), 0)]).units is None


def test_a_failed_part_decides_the_status() -> None:
    """A whole with a failed part has failed, for the reason of that part."""
    bad = task("b", [], status=TaskStatus.FAILED, status_message="risk control")

    joined = join([Made(task("a", [0]), 0), Made(bad, 5)])

    assert joined.status == TaskStatus.FAILED
    assert joined.status_message == "risk control"
    assert len(joined.images) == 1
    with pytest.raises(ValueError, match="at least one task"):
        join([])
