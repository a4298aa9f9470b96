"""Tasks, their statuses and their pictures as values."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.tasks import ResultImage, Task, TaskStatus


class Shelf:
    """An image keeper that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def save(self, image: ResultImage, folder: str | PathLike[str], name: str | None) -> Path:
        """Note the call."""
        self.asked.append((image, folder, name))
        return Path("kept.png")

    async def read(self, image: ResultImage) -> bytes:
        """Note the call."""
        self.asked.append(image)
        return b"kept"


def run(coroutine: Any) -> Any:
    """Drive a coroutine that never waits."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("submitted", TaskStatus.SUBMITTED),
        ("processing", TaskStatus.PROCESSING),
        ("succeed", TaskStatus.SUCCEED),
        ("succeeded", TaskStatus.SUCCEED),
        ("failed", TaskStatus.FAILED),
        (" Succeeded\n", TaskStatus.SUCCEED),
        ("PROCESSING", TaskStatus.PROCESSING),
    ],
)
def test_known_words(word: str, status: TaskStatus) -> None:
    """Both generations' spellings, in any case, are the same members."""
    assert TaskStatus(word) is status


@given(st.text())
def test_any_word_is_a_status(word: str) -> None:
    """Unknown words are UNKNOWN, keep their text, and survive pickling and copying."""
    status = TaskStatus(word)

    again = pickle.loads(pickle.dumps(status))

    assert again == status == copy.deepcopy(status)
    assert again.value == status.value
    if status.name == "UNKNOWN":
        assert status.value == word
        assert not status.ended


def test_unknown_words_are_one_member_to_callers() -> None:
    """Whatever the text was, comparing, hashing and matching see UNKNOWN."""
    queued = TaskStatus("queued")

    assert queued == TaskStatus.UNKNOWN
    assert len({queued, TaskStatus.UNKNOWN, TaskStatus("paused")}) == 1
    assert queued != TaskStatus.FAILED
    assert queued != "queued"
    assert "queued" in repr(queued)
    match queued:
        case TaskStatus.UNKNOWN:
            pass
        case _:
            pytest.fail("an unknown status matches UNKNOWN")


def test_unknown_words_leave_the_members_alone() -> None:
    """A strange word adds no member and changes none."""
    TaskStatus("queued")

    assert [status.value for status in TaskStatus] == [
        "submitted",
        "processing",
        "succeed",
        "failed",
        "unknown",
    ]


def test_which_statuses_end() -> None:
    """Only `succeed` and `failed` end a task."""
    assert [status.name for status in TaskStatus if status.ended] == ["SUCCEED", "FAILED"]
    assert Task(task_id="t", status=TaskStatus.FAILED).ended


def test_a_picture_saves_itself_through_its_keeper() -> None:
    """`save()` and `read()` are the keeper's."""
    shelf = Shelf()
    image = ResultImage(index=1, url="https://host/a.png", keeper=shelf)

    path = run(image.save("out", name="dress"))
    data = run(image.read())

    assert (path, data) == (Path("kept.png"), b"kept")
    assert shelf.asked == [(image, "out", "dress"), image]


def test_a_picture_without_a_keeper_says_how_to_get_one() -> None:
    """A picture that was pickled belongs to no client any more and says so."""
    image = ResultImage(index=0, url="https://host/a.png", watermark_url="w", keeper=Shelf())

    again = pickle.loads(pickle.dumps(image))

    assert again == image
    for call in (again.save("out"), again.read()):
        with pytest.raises(errors.ConfigError, match="retrieve"):
            call.send(None)


def test_signatures_of_links_show_in_no_repr() -> None:
    """The query of a result's link is a signature, so it is left out of every repr."""
    image = ResultImage(
        index=0, url="https://host/a.png?ksSecret=abc", watermark_url="https://host/w.png?k=abc"
    )
    task = Task(task_id="t", status=TaskStatus.SUCCEED, images=(image,), raw={"url": "?ksSecret=abc"})

    assert "abc" not in repr(task)
    assert "https://host/a.png" in repr(task)
    assert "None" in repr(ResultImage(index=0, url="u"))


def test_unwrap() -> None:
    """A task that succeeded with pictures, or still runs, unwraps to itself; others raise what ended them."""
    image = ResultImage(index=0, url="u")
    whole = Task(task_id="t", status=TaskStatus.SUCCEED, images=(image,))
    running = Task(task_id="t", status=TaskStatus.PROCESSING)
    failed = Task(task_id="t", status=TaskStatus.FAILED)
    empty = Task(task_id="t", status=TaskStatus.SUCCEED)

    assert whole.unwrap() is whole
    assert running.unwrap() is running
    with pytest.raises(errors.TaskFailed, match="no reason given") as caught:
        failed.unwrap()
    assert (caught.value.task, caught.value.reason) == (failed, "no reason given")
    assert str(caught.value).endswith(f"; {caught.value.remedy}")
    with pytest.raises(errors.EmptyResult) as none:
        empty.unwrap()
    assert none.value.task_id == "t"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("Failure to pass the risk control system", "content check"),
        ("Image pixel is invalid", "make a new task"),
    ],
)
def test_a_failed_task_says_what_to_do(reason: str, remedy: str) -> None:
    """The reason is the service's free text; behind it stands what to do about it."""
    failed = Task(task_id="t", status=TaskStatus.FAILED, status_message=reason)

    with pytest.raises(errors.TaskFailed) as caught:
        failed.unwrap()

    assert str(caught.value).startswith(f"task t failed: {reason}; ")
    assert remedy in caught.value.remedy


def test_a_task_answers_to_its_ids() -> None:
    """A task is the one that was asked for by either id; one that does not say its external id may be it."""
    whole = Task(task_id="77", external_task_id="ka-1", status=TaskStatus.FAILED)
    bare = Task(task_id="77", status=TaskStatus.FAILED)

    assert whole.answers("77")
    assert whole.answers("ka-1")
    assert not whole.answers("78")
    assert bare.answers("ka-1")


def test_a_task_is_a_value() -> None:
    """Tasks compare and hash by what they say, and survive pickling and copying; `raw` does not count."""
    task = Task(
        task_id="t",
        status=TaskStatus("queued"),
        images=(ResultImage(index=0, url="u"),),
        raw={"new": {"field": 1}},
    )

    again = pickle.loads(pickle.dumps(task))

    assert again == task == copy.deepcopy(task) == copy.copy(task)
    assert len({again, task}) == 1
    assert again.raw == task.raw
    with pytest.raises(AttributeError):
        task.task_id = "other"  # type: ignore[misc]  # that it cannot be done is the claim


def test_a_status_says_how_far_a_task_has_come() -> None:
    """Words that are not known lie beside `processing`, so that neither of them counts as going back."""
    ranks = [TaskStatus(word).rank for word in ("submitted", "queued", "processing", "succeed", "failed")]

    assert ranks == [0, 1, 1, 2, 2]


def test_results_are_kept_for_thirty_days() -> None:
    """From the end of a task; nothing is known of one that runs, or that does not say when it ended."""
    end = datetime(2026, 11, 1, 12, tzinfo=UTC)

    assert Task(task_id="7", status=TaskStatus.SUCCEED, updated_at=end).kept_until == end + timedelta(days=30)
    assert Task(task_id="7", status=TaskStatus.PROCESSING, updated_at=end).kept_until is None
    assert Task(task_id="7", status=TaskStatus.SUCCEED).kept_until is None
