"""What holds of the poll book whatever the service does."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kling_async.protocol.polling import PollBook
from kling_async.protocol.turns import Glance

_NAMES = [f"task-{number}" for number in range(40)]
_GETS = 8.0
_HINTS = 12.0


@settings(max_examples=80, stateful_step_count=60, deadline=None)
class HostileService(RuleBasedStateMachine):
    """A book, a service that answers anything or nothing, and a plain model of what may be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.watched: set[str] = set()
        self.out: dict[str, float] = {}
        self.pages: set[int] = set()
        self.size = 0
        self.swept = 0.0
        self.gets: list[float] = []

    @initialize(page_size=st.integers(1, 40), thrift=st.sampled_from([0.0, 1.0]))
    def open(self, page_size: int, thrift: float) -> None:
        self.book = PollBook(
            gets_per_second=_GETS,
            hints_per_second=_HINTS,
            page_size=page_size,
            answer_within=20.0,
            grace=30.0,
            max_interval=15.0,
            thrift=thrift,
        )
        self.page_size = page_size

    @rule(numbers=st.sets(st.integers(0, 39)), age=st.sampled_from([0.0, 0.1, 10.0, 1e6]))
    def watch(self, numbers: set[int], age: float) -> None:
        for number in numbers:
            due = self.book.watch(_NAMES[number], self.now, age=age)
            assert due <= self.now + 15.0
            self.watched.add(_NAMES[number])

    @rule(name=st.sampled_from(_NAMES))
    def forget(self, name: str) -> None:
        self.book.forget(name)
        self.watched.discard(name)

    @rule(names=st.sets(st.sampled_from(_NAMES)))
    def hint(self, names: set[str]) -> None:
        for name in names:
            assert (self.book.hint(name, self.now) is not None) == (name in self.watched)

    @rule(wait=st.floats(0.0, 3.0), dice=st.floats(0.0, 0.999))
    def plan(self, wait: float, dice: float) -> None:
        self.now += wait
        turn = self.book.plan(self.now, dice)

        assert set(turn.gets) <= self.watched, "only what is watched is asked"
        assert len(set(turn.gets)) == len(turn.gets)
        assert not turn.pages or not self.pages or self.now >= self.swept + 20.0, "one sweep at a time"
        assert list(turn.pages) == sorted(set(turn.pages))
        assert all(1 <= page <= 1000 for page in turn.pages)
        assert 1 <= turn.page_size <= self.page_size
        assert (turn.wake_at is None) == (not self.watched)
        assert turn.wake_at is None or self.now < turn.wake_at <= self.now + 61.0
        self.gets += [self.now] * len(turn.gets)
        self.out.update(dict.fromkeys(turn.gets, self.now))
        if turn.pages:
            self.pages, self.size, self.swept = set(turn.pages), turn.page_size, self.now

    @rule()
    def sleep(self) -> None:
        turn = self.book.plan(self.now, 0.5)
        self.gets += [self.now] * len(turn.gets)
        self.out.update(dict.fromkeys(turn.gets, self.now))
        if turn.pages:
            self.pages, self.size, self.swept = set(turn.pages), turn.page_size, self.now
        self.now = turn.wake_at or self.now

    @rule(name=st.sampled_from(_NAMES), ended=st.booleans(), seconds=st.none() | st.floats(-1e3, 1e6))
    def answer(self, *, name: str, ended: bool, seconds: float | None) -> None:
        news = self.book.saw_task(name, ended, self.now, seconds=seconds)

        assert news == (ended and name in self.watched)
        if ended:
            self.watched.discard(name)

    @rule(name=st.sampled_from(_NAMES))
    def not_found(self, name: str) -> None:
        if self.book.missed(name, self.now):
            self.watched.remove(name)

    @rule(
        what=st.sampled_from(_NAMES) | st.integers(1, 5),
        shared=st.booleans(),
        wish=st.none() | st.floats(0, 1e4),
    )
    def fail(self, *, what: str | int, shared: bool, wish: float | None) -> None:
        self.book.no_answer(what, self.now, 0.5, shared=shared, retry_after=wish)
        if isinstance(what, int):
            self.pages.discard(what)

    @precondition(lambda self: self.pages)
    @rule(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.1, 0.5]), full=st.booleans())
    def show_page(self, *, seed: int, share: float, full: bool) -> None:
        dice = Random(seed)
        names = dice.choices([*_NAMES, "foreign"], k=self.size if full else dice.randrange(self.size + 1))
        glances = [Glance(name, dice.random() < share, dice.choice([None, 3.0, -1.0])) for name in names]
        page = min(self.pages)

        seen = self.book.saw_page(page, glances, self.now)

        assert len(set(seen.ended)) == len(seen.ended)
        assert set(seen.ended) == {one.task_id for one in glances if one.ended} & self.watched
        self.watched -= set(seen.ended)
        self.pages.discard(page)
        if seen.next_page is not None:
            assert len(glances) >= self.size or seen.next_page <= page
            self.pages.add(seen.next_page)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "book"):
            assert len(self.book) == len(self.watched)
            assert all(name in self.book for name in self.watched)
            board = self.book._board
            places = [board.ready, board.queue, board.hinted, board.out]
            wanted = self.book._sweep.wanted if self.book._sweep else {}
            assert sum(map(len, places)) + len(board.wheel) + len(wanted) == len(self.watched)

    @invariant()
    def budget(self) -> None:
        for first, begin in enumerate(self.gets):
            flow = (self.now - begin) * (_GETS + _HINTS)
            assert len(self.gets) - first <= flow + _GETS / 4 + _HINTS / 4 + 0.01


TestHostileService = HostileService.TestCase


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 400),
    hidden=st.sampled_from([0.0, 0.3, 1.0]),
    order=st.sampled_from(["newest", "oldest", "shuffled", "foreign"]),
    failing=st.sampled_from([0.0, 0.1]),
)
def test_every_task_is_asked_about_again_within_the_bound(
    seed: int, count: int, hidden: float, order: str, failing: float
) -> None:
    """No task is left alone for longer than promised: each is shown by a page or gets its own GET in time."""
    dice, now = Random(seed), 0.0
    book = PollBook(answer_within=5.0, max_interval=10.0, page_size=dice.choice([20, 100, 500]))
    names = [f"task-{number}" for number in range(count)]
    for name in names:
        book.watch(name, now, age=dice.choice([0.0, 100.0]))
    listed = names + [f"foreign-{number}" for number in range(300 if order == "foreign" else 0)]
    asked = dict.fromkeys(names, now)
    bound = book.bound()

    while now < 3 * bound and now < 300:
        turn = book.plan(now, dice.random())
        for name in turn.gets:
            asked[name] = now
            if dice.random() < failing:
                book.no_answer(name, now, 0.5, shared=False)
            else:
                book.saw_task(name, False, now)
        pages = list(turn.pages)
        while pages:
            page = pages.pop(0)
            view = {"oldest": listed, "shuffled": dice.sample(listed, len(listed))}.get(order, listed[::-1])
            shown = view[(page - 1) * turn.page_size : page * turn.page_size]
            kept = [Glance(name, False) for name in shown if dice.random() >= hidden]
            asked.update({glance.task_id: now for glance in kept if glance.task_id in asked})
            seen = book.saw_page(page, kept, now)
            pages += [seen.next_page] if seen.next_page is not None else []
        if not turn.gets and not turn.pages:
            assert turn.wake_at is not None
            now = turn.wake_at
        assert now - min(asked.values()) <= bound


@given(st.integers(0, 10_000), st.floats(0.001, 50.0))
def test_a_hint_is_in_the_very_next_plan(seed: int, min_interval: float) -> None:
    """Whatever the book is doing, a hinted task that was not asked just now is asked by the next plan."""
    dice, now = Random(seed), 0.0
    book = PollBook(min_interval=min_interval)
    for number in range(dice.randrange(1, 50)):
        book.watch(f"task-{number}", 0.0)
    for _ in range(dice.randrange(6)):
        turn = book.plan(now, 0.5)
        for name in turn.gets:
            book.saw_task(name, False, now)
        for page in turn.pages:
            book.saw_page(page, [Glance(f"task-{number}", False) for number in range(40)], now)
        now = turn.wake_at or now
    now += min_interval

    book.hint("task-0", now)

    assert "task-0" in book.plan(now, 0.5).gets
