"""The poll book: what is asked, when, and what is made of the answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kling_async.errors import ConfigError
from kling_async.protocol.polling import PollBook
from kling_async.protocol.turns import Glance, Turn


def _names(count: int, prefix: str = "task") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def _running(names: list[str]) -> list[Glance]:
    return [Glance(name, ended=False) for name in names]


def _watching(count: int, **options: float) -> PollBook:
    book = PollBook(**options)  # type: ignore[arg-type]  # page_size is an int, given as such
    for name in _names(count):
        book.watch(name, 0.0)
    return book


def _learned(book: PollBook, seconds: float = 24.0) -> None:
    for number in range(100):
        book.watch(f"former-{number}", -seconds)
        book.ended(f"former-{number}", 0.0, seconds=seconds)


def _plan(book: PollBook, now: float) -> Turn:
    turn = book.plan(now, 0.5)
    assert turn.wake_at is None or turn.wake_at > now
    return turn


def _drive(
    book: PollBook, until: float, get: Callable[[str, float], object], page: Callable[[int, float], object]
) -> None:
    """Plan and answer from 0 to *until*, each answer in an instant."""
    now = 0.0
    while now < until:
        turn = _plan(book, now)
        for name in turn.gets:
            get(name, now)
        for number in turn.pages:
            page(number, now)
        if not turn.gets and not turn.pages:
            now = until if turn.wake_at is None else turn.wake_at


@pytest.mark.parametrize(
    "name", ["min_interval", "max_interval", "gets_per_second", "page_size", "answer_within"]
)
@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf")])
def test_options_must_be_numbers_above_zero(name: str, number: float) -> None:
    """An option that would make the plan spin or stall is refused by name."""
    with pytest.raises(ConfigError, match=f"expected {name} to be a number above 0, got"):
        PollBook(**{name: number})  # type: ignore[arg-type]  # wrong on purpose


def test_nothing_watched_asks_nothing() -> None:
    """An empty book has no requests and wants no wake-up."""
    book = PollBook()

    turn = _plan(book, 5.0)

    assert turn == Turn((), (), 500, None)
    assert len(book) == 0
    assert repr(book).startswith("<PollBook of 0 tasks, interval 0.5 s")


def test_a_single_task_gets_single_requests() -> None:
    """One task is looked at after a couple of seconds, then every interval, by GETs."""
    book = PollBook()

    due = book.watch("task", 10.0)
    early, first = _plan(book, 10.0), _plan(book, 12.0)
    news = book.saw_task("task", False, 12.1)
    second = _plan(book, _plan(book, 12.2).wake_at or 0.0)

    assert due == 12.0
    assert "task" in book
    assert early == Turn((), (), 500, 12.0)
    assert first.gets == ("task",)
    assert not news
    assert second.gets == ("task",)


def test_watching_twice_changes_nothing() -> None:
    """A task that is watched already keeps its time."""
    book = PollBook()

    first = book.watch("task", 10.0)
    again = book.watch("task", 11.0, age=500.0)

    assert first == again
    assert len(book) == 1


def test_many_tasks_share_a_page() -> None:
    """Two tasks due at the same turn are one request, on the smallest page that shows them."""
    turn = _plan(_watching(15), 2.0)

    assert turn.gets == ()
    assert turn.pages == (1,)
    assert turn.page_size == 30


def test_only_the_pages_with_due_tasks_are_read() -> None:
    """Tasks too young to have ended cost no page: only the deeper pages, where the old ones stand, are read."""
    book = PollBook()
    _learned(book)
    for number in range(3000):
        book.watch(f"task-{number}", number / 100)

    turn = _plan(book, 30.0)

    assert turn.pages == (5, 6)
    assert turn.page_size == 500


def test_a_page_tells_what_has_ended() -> None:
    """Ended tasks of ours are returned once; those of others, and ours again, are ignored."""
    book = _watching(3)
    _plan(book, 2.0)
    glances = [
        Glance("task-2", True, 1.5),
        Glance("foreign", True),
        Glance("task-2", False),
        *_running(_names(2)),
    ]

    seen = book.saw_page(1, glances, 2.1)
    again = book.saw_page(1, glances, 2.2)

    assert seen.ended == ("task-2",)
    assert seen.next_page is None
    assert again.ended == ()
    assert len(book) == 2
    assert book.typical == pytest.approx(1.5, rel=0.05)


def test_terminal_is_final() -> None:
    """What has ended or was forgotten is not asked again, whatever is heard of it later."""
    book = _watching(3)

    first, second = book.ended("task-0", 1.0), book.ended("task-0", 1.0)
    book.forget("task-1")
    book.forget("task-1")
    late = book.saw_task("task-1", True, 1.5)
    book.saw_task("task-0", False, 1.5)
    turn = _plan(book, 2.0)

    assert (first, second, late) == (True, False, False)
    assert turn.gets == ("task-2",)
    assert book.hint("task-0", 2.0) is None
    assert not book.missed("task-1", 500.0)


def test_a_task_ends_by_its_own_answer() -> None:
    """The answer to a single GET ends a task, once."""
    book = _watching(1)
    _plan(book, 2.0)

    assert book.saw_task("task-0", True, 2.1)
    assert not book.saw_task("task-0", True, 2.2)
    assert _plan(book, 3.0).wake_at is None


def test_a_hint_is_asked_by_the_next_plan() -> None:
    """A hinted task is asked at once, long before its time and between turns."""
    book = _watching(1)

    when = book.hint("task-0", 0.5)
    book.hint("task-0", 0.5)

    assert when == 0.5
    assert _plan(book, 0.5).gets == ("task-0",)


def test_a_hint_during_a_request_asks_once_more() -> None:
    """An answer may be older than the hint that came while it was under way, so the task is asked again after it."""
    book = _watching(1)
    _plan(book, 2.0)

    book.hint("task-0", 2.05)
    during = _plan(book, 2.06)
    book.saw_task("task-0", False, 2.1)
    after = _plan(book, 2.11)

    assert during.gets == ()
    assert after.gets == ("task-0",)


def test_a_flood_of_hints_is_no_flood_of_requests() -> None:
    """One task of which a thousand hints a second say falsely that it has ended is asked once an interval in the end."""
    book, gets = _watching(1), 0

    for step in range(10_000):
        now = 0.2 + step / 1000
        book.hint("task-0", now)
        gets += len(_plan(book, now).gets)
        book.saw_task("task-0", False, now)

    assert 18 <= gets <= 23


def test_hints_survive_a_page_that_is_older() -> None:
    """A page on its way while a hint comes in does not answer the hint."""
    book = _watching(2)
    assert _plan(book, 2.0).pages == (1,)

    book.hint("task-0", 2.01)
    book.saw_page(1, _running(_names(2)), 2.02)

    assert _plan(book, 2.03).gets == ("task-0",)


def test_too_many_hints_at_once_share_pages() -> None:
    """Hints beyond their budget are served by list pages instead."""
    book = _watching(300, hints_per_second=20.0)
    for name in _names(300):
        book.hint(name, 1.0)

    turn = _plan(book, 1.0)

    assert len(turn.gets) == 5
    assert turn.pages == (1,)


def test_few_rows_missing_from_a_sweep_get_single_requests() -> None:
    """A task that its page should have shown and did not is asked by itself at once."""
    book = _watching(20)
    _plan(book, 2.0)

    seen = book.saw_page(1, _running(_names(19)), 2.1)

    assert seen.next_page is None
    assert _plan(book, 2.1).gets == ("task-19",)


def test_many_rows_missing_wait_for_a_second_sweep() -> None:
    """When a sweep misses many, reading again is cheaper than asking each; who is missed twice is asked alone."""
    book, half = _watching(20), _running(_names(10))
    _plan(book, 2.0)

    again = book.saw_page(1, half, 2.1).next_page
    end = book.saw_page(1, half, 2.2).next_page
    between = _plan(book, 2.2)
    second = _plan(book, between.wake_at or 0.0)
    last = [book.saw_page(1, half, 2.7).next_page for _ in range(2)]
    third = _plan(book, 2.8)

    assert (again, end) == (1, None)
    assert between.gets == ()
    assert second.pages == (1,)
    assert last == [1, None]
    assert set(third.gets) == {"task-10", "task-11", "task-12", "task-13", "task-14"}


def test_a_sweep_reads_on_while_it_pays() -> None:
    """Adopted tasks may lie anywhere: the sweep goes deeper until they are found or the list ends."""
    book, names = PollBook(), _names(1200)
    for name in names:
        book.watch(name, 0.0, age=3600.0)

    turn = _plan(book, 0.0)
    first = book.saw_page(1, _running(_names(400, "foreign") + names[:100]), 0.1)
    second = book.saw_page(2, _running(names[100:600]), 0.2)
    third = book.saw_page(3, _running(names[600:1000]), 0.3)

    assert (turn.pages, turn.page_size) == ((1,), 500)
    assert (first.next_page, second.next_page, third.next_page) == (2, 3, None)
    assert _plan(book, 0.4).pages == ()


def test_pages_that_show_nothing_end_the_search() -> None:
    """Ten tasks are not worth three pages in vain."""
    book = PollBook()
    for name in _names(10):
        book.watch(name, 0.0, age=3600.0)
    _plan(book, 0.0)
    foreign = _running(_names(500, "foreign"))

    pages = [book.saw_page(page, foreign, 0.1).next_page for page in (1, 2, 3)]

    assert pages == [2, 3, None]


def test_an_unasked_page_is_welcome() -> None:
    """A list read by somebody else ends tasks too, and starts no sweep."""
    book = _watching(1)

    seen = book.saw_page(7, [Glance("task-0", True)], 1.0)

    assert (seen.ended, seen.next_page) == (("task-0",), None)


def test_an_unknown_task_is_lost_after_the_grace() -> None:
    """A task that is not found is asked for two minutes, less and less often, and then given up, once."""
    book = _watching(1)
    asked: list[tuple[float, bool]] = []

    _drive(book, 500, lambda name, now: asked.append((now, book.missed(name, now))), lambda _page, _now: None)

    times = [time for time, _ in asked]
    assert times[0] == 2.0
    assert 122.0 <= times[-1] < 122.2
    assert len(times) < 20
    assert [lost for _, lost in asked] == [False] * (len(asked) - 1) + [True]
    assert len(book) == 0


def test_a_task_found_again_is_not_lost() -> None:
    """The grace begins anew once a task has been seen again."""
    book = _watching(1, grace=10.0)

    results = [book.missed("task-0", 1.0), book.missed("task-0", 9.0)]
    _plan(book, 9.5)
    book.saw_page(1, _running(["task-0"]), 9.5)
    results += [book.missed("task-0", 12.0), book.missed("task-0", 21.9), book.missed("task-0", 22.0)]

    assert results == [False, False, False, False, True]


def test_failures_pause_all_requests_and_lose_none() -> None:
    """After a failed GET nothing is asked for a while, hints included; then everything is."""
    book = _watching(1)
    _plan(book, 2.0)

    book.no_answer("task-0", 2.1, 0.5, retry_after=5.0)
    book.hint("task-0", 3.0)
    pause = _plan(book, 3.0)
    after = _plan(book, pause.wake_at or 0.0)

    assert pause.gets == ()
    assert pause.wake_at == pytest.approx(7.1)
    assert after.gets == ("task-0",)


def test_a_pause_with_nothing_watched_wants_no_wake_up() -> None:
    """The last task may be forgotten during a pause."""
    book = _watching(1)
    _plan(book, 2.0)
    book.no_answer("task-0", 2.1, 0.5)

    book.forget("task-0")

    assert _plan(book, 2.2).wake_at is None


def test_one_poisoned_task_does_not_slow_the_others() -> None:
    """A fault of one answer alone backs off that task and pauses nobody else."""
    book = PollBook()
    asked: list[str] = []
    for name in ("good", "bad"):
        book.watch(name, 0.0)

    def get(name: str, now: float) -> None:
        asked.append(name)
        if name == "bad":
            book.no_answer("bad", now, 0.5, shared=False)
        else:
            book.saw_task(name, False, now)

    _drive(book, 60, get, lambda page, now: book.saw_page(page, _running(["good"]), now))

    assert 3 <= asked.count("bad") < 12
    assert asked.count("good") > 12


def test_an_answer_given_up_may_fail_late() -> None:
    """A failure reported for a request that counted as lost already changes nothing."""
    book = _watching(1, answer_within=5.0)
    first = _plan(book, 2.0)

    second = _plan(book, 7.0)
    book.no_answer("task-0", 7.5, 0.5, shared=False)
    book.no_answer("task-0", 7.5, 0.5, shared=False)
    book.no_answer("unknown", 7.5, 0.5, shared=False)
    book.no_answer(3, 7.5, 0.5, shared=False)

    assert first.gets == second.gets == ("task-0",)
    assert first.wake_at == 7.0
    assert len(book) == 1


def test_a_sweep_that_is_never_answered_is_given_up() -> None:
    """A page without any answer holds its tasks for the stated time only, and three failed sweeps lead to GETs."""
    book, turns, now = _watching(40, answer_within=5.0), [], 2.0

    for _ in range(3):
        turn = _plan(book, now)
        turns.append(turn)
        now = turn.wake_at or 0.0
    sent = turns[2].gets

    assert [turn.pages for turn in turns] == [(1,), (1,), ()]
    assert len(sent) == 5
    assert _plan(book, now + 0.6).pages == (1,)


def test_a_failing_page_breaks_its_sweep() -> None:
    """When one page of a sweep fails, no task is blamed for being missing from it, and the sweep does not read on."""
    book = PollBook()
    for number in range(1200):
        book.watch(f"task-{number}", 0.0)
    turn = _plan(book, 3.0)

    seen = [book.saw_page(1, _running(_names(500, "foreign")), 3.1)]
    book.no_answer(2, 3.2, 0.5)
    seen.append(book.saw_page(3, _running(_names(500, "foreign")), 3.3))

    assert turn.pages == (1, 2, 3)
    assert [one.next_page for one in seen] == [None, None]
    assert not len(book._hidden)
    assert len(book) == 1200


def test_the_get_budget_holds_when_everything_is_due() -> None:
    """A list that shows nothing leaves a thousand tasks to single GETs: never more than the budget a second."""
    book = _watching(1000)
    times: list[float] = []

    def get(name: str, now: float) -> None:
        times.append(now)
        book.saw_task(name, False, now)

    _drive(book, 60, get, lambda page, now: book.saw_page(page, [], now))

    assert len(times) > 900
    assert all(later - first >= 0.99 for first, later in zip(times, times[25:], strict=False))


def test_hidden_tasks_are_looked_for_in_the_list_again() -> None:
    """Tasks that the list once hid come back to cheap sweeps when it shows them again."""
    book = _watching(60)
    gets: list[float] = []
    pages: list[float] = []

    def get(name: str, now: float) -> None:
        gets.append(now)
        book.saw_task(name, False, now)

    def page(number: int, now: float) -> None:
        pages.append(now)
        book.saw_page(number, _running(_names(60)) if now > 20 else [], now)

    _drive(book, 120, get, page)

    assert sum(time > 60 for time in pages) > 4
    assert sum(time > 60 for time in gets) < 10


def test_ages_of_resumed_tasks_are_used() -> None:
    """A task old enough to have ended is due at once; one resumed early waits for its time."""
    book = PollBook()
    _learned(book)

    old, young = book.watch("old", 100.0, age=3600.0), book.watch("young", 100.0, age=10.0)

    assert old == 100.0
    assert 106 < young < 114


def test_what_cannot_be_true_is_not_learned() -> None:
    """A service whose clock runs twenty times as fast does not confuse the durations; nor does the end of a resumed task."""
    book = PollBook()
    book.watch("fast", 0.0)
    _plan(book, 2.0)
    book.saw_task("fast", False, 2.0)

    book.ended("fast", 3.0, seconds=60.0)
    learned = book.typical
    book.watch("resumed", 3.0, age=3600.0)
    book.ended("resumed", 4.0)

    assert learned == pytest.approx(2.5, rel=0.05)
    assert book.typical == learned


def test_the_bound_is_stated_and_grows_with_the_tasks() -> None:
    """The promise of being asked again is a number of seconds, and covers the GETs of all tasks."""
    few, many = _watching(1), _watching(10_000)

    assert 0 < few.bound() < 1000
    assert many.bound() - few.bound() == pytest.approx(2 * 9999 / 20)


def test_pages_beyond_the_services_limit_are_not_asked() -> None:
    """The service has a thousand pages; tasks that lie deeper are asked one by one."""
    book = _watching(10)
    book._listing._depth += 600_000.0

    turn = _plan(book, 2.0)

    assert turn.pages == ()
    assert len(turn.gets) == 5
