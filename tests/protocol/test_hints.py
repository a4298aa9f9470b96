"""What the poll book makes of hints: looks at once, doubt about false ones, and rarer turns once they prove true."""

from __future__ import annotations

import pytest

from kling_async.protocol.hints import Hints
from kling_async.protocol.pace import Bucket
from kling_async.protocol.polling import PollBook
from kling_async.protocol.turns import Turn


def _hints() -> Hints:
    return Hints(0.1, Bucket.of(1000.0))


def _proven(hints: Hints, count: int = 30) -> Hints:
    for number in range(count):
        hints.hear(f"former-{number}", out=False)
        hints.end(f"former-{number}", 0.0)
        hints.forget(f"former-{number}")
    return hints


def _plan(book: PollBook, now: float) -> Turn:
    return book.plan(now, 0.5)


def _go(book: PollBook, now: float, until: float) -> None:
    """Plan and answer that everything still runs."""
    while now < until:
        turn = _plan(book, now)
        for page in turn.pages:
            book.saw_page(page, [], now)
        for name in turn.gets:
            book.saw_task(name, False, now)
        if not turn.gets and not turn.pages:
            now = turn.wake_at or until


def test_without_hints_nothing_is_stretched() -> None:
    """Where callbacks never come, ends that nobody told of change nothing."""
    hints = _hints()

    for number in range(1000):
        hints.end(f"task-{number}", number / 10)

    assert hints.stretch(100.0) == 1.0
    assert not hints._untold


def test_hints_that_prove_true_stretch_the_turns() -> None:
    """The more ends were told of in succession, the rarer the turns, up to four times."""
    assert _proven(_hints(), 0).stretch(0.0) == 1.0
    assert _proven(_hints(), 15).stretch(0.0) == pytest.approx(2.5)
    assert _proven(_hints(), 30).stretch(0.0) == _proven(_hints(), 500).stretch(0.0) == 4.0


def test_one_end_that_nobody_told_of_ends_the_trust() -> None:
    """Five seconds after it was seen without a hint, turns come as without any."""
    hints = _proven(_hints())

    hints.end("silent", 10.0)

    assert hints.stretch(15.0) == 4.0
    assert hints.stretch(15.1) == 1.0


def test_trust_once_lost_takes_longer() -> None:
    """After a disappointment four times as many ends must have been told of, but never more than 2,000."""
    hints, wanted = _proven(_hints()), []

    for moment in range(10, 100, 10):
        hints.end("silent", float(moment))
        assert hints.stretch(moment + 6.0) == 1.0
        count = 0
        while hints.stretch(moment + 6.0) < 4.0:
            _proven(hints, 1)
            count += 1
        wanted.append(count)

    assert wanted == [120, 480, 1920, *[2000] * 6]


def test_a_hint_may_come_after_the_end_was_seen() -> None:
    """A turn that was quicker than the callback is no sign against callbacks."""
    hints = _proven(_hints())

    hints.end("quick", 10.0)
    hints.hear_late("quick")
    hints.hear_late("never seen")

    assert hints.stretch(100.0) == 4.0


def test_a_task_of_which_hints_were_false_is_doubted() -> None:
    """Each answer that it still runs doubles the time until a hint counts again, up to an interval."""
    hints = _hints()
    hints.hear("task", out=False)
    waits = []

    for _ in range(5):
        waits.append(hints.ripe("task", 10.0, 0.5) - 10.0)
        hints.deny("task")
        hints.again("task")

    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    assert hints.ripe("other", 10.0, 0.01) == pytest.approx(10.1)


def test_a_task_that_hints_were_false_of_proves_nothing() -> None:
    """Its end, long after, was not told of."""
    hints = _proven(_hints())
    hints.hear("task", out=False)
    for _ in range(4):
        hints.deny("task")
        hints.again("task")

    hints.end("task", 10.0)

    assert hints.stretch(20.0) == 1.0


def test_an_answer_may_lag_behind_a_callback() -> None:
    """A task that was said to have ended and still runs is asked three more times at once, and then as usual."""
    book = PollBook()
    book.watch("task", 0.0)
    book.hint("task", 0.5)
    asked = []

    for step in range(120):
        now = 0.5 + step / 100
        if _plan(book, now).gets:
            asked.append(now)
            book.saw_task("task", False, now)

    assert asked == pytest.approx([0.5, 0.7, 1.1, 1.6], abs=0.011)


def test_turns_are_stretched_and_come_back() -> None:
    """With callbacks the interval grows fourfold; the first that is missing brings it back."""
    book = PollBook()
    for number in range(60):
        book.watch(f"task-{number}", 0.0)
        if number < 40:
            book.hint(f"task-{number}", 1.0)
            book.ended(f"task-{number}", 1.0)
    plain = book.interval

    _go(book, 3.0, 4.0)
    stretched = book.interval
    book.ended("task-50", 4.1)
    _go(book, 4.2, 20.0)

    assert stretched == pytest.approx(4 * plain)
    assert book.interval < 2 * plain


def test_what_is_forgotten_leaves_nothing() -> None:
    """After an end nothing of a task is kept."""
    book = PollBook()
    book.watch("task", 0.0)
    book.hint("task", 0.1)
    _plan(book, 0.1)
    book.hint("task", 0.1)

    book.saw_task("task", True, 0.2)

    assert not book._hints._denied
    assert not book._hints._again
