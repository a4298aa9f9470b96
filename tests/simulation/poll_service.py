"""
A service and a poller in virtual time: what a `PollBook` costs and how soon it sees, for any durations.

No sleeping, no sockets: a heap of events. The list is newest first unless told otherwise, holds the tasks of other
programs too, and may leave out, repeat, shuffle or shift what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Literal

from attrs import Factory, define, field, frozen

from kling_async.protocol.polling import Glance, PollBook, Turn

Draw = Callable[[Random, float], float]  # duration of a task that starts at a time


def constant(seconds: float) -> Draw:
    return lambda _dice, _now: seconds


def lognormal(seconds: float, sigma: float = 0.25) -> Draw:
    return lambda dice, _now: seconds * dice.lognormvariate(0.0, sigma)


def bimodal(quick: float, slow: float, share: float = 0.1) -> Draw:
    return lambda dice, _now: (
        quick * dice.uniform(0.9, 1.1) if dice.random() < share else slow * dice.lognormvariate(0.0, 0.1)
    )


def drifting(seconds: float, over: float, factor: float = 3.0) -> Draw:
    """From *seconds* to *factor* times that in the time *over*."""
    return lambda dice, now: seconds * factor ** min(1.0, now / over) * dice.lognormvariate(0.0, 0.1)


@frozen(kw_only=True)
class World:
    """How the service behaves."""

    durations: Draw
    in_flight: int
    jobs: int
    latency: float = 0.02
    readers: int = 1  # pages asked at the same time
    foreign_per_second: float = 0.0  # tasks of other programs, evenly in time
    older: int = 0  # tasks in the list from the start
    lag: float = 0.001  # from the end of one task seen to the create of the next
    order: Literal["newest", "oldest", "shuffled"] = "newest"
    hidden: float = 0.0  # share of a page's tasks that it leaves out
    repeated: float = 0.0  # share that it shows twice
    failing: float = 0.0  # share of requests without an answer
    told_until: float = 0.0  # ends before this time are told of by a callback
    told_share: float = 1.0
    told_after: float = 0.05  # how long a callback takes
    stamps: bool = True  # whether the times the service tells are right
    seed: int = 1


@define(eq=False)
class Report:
    """What happened."""

    world: World
    requests: int = 0
    gets: int = 0
    pages: int = 0
    ended: int = 0
    delays: list[float] = Factory(list)
    late: list[tuple[float, float]] = Factory(list)  # when an end was seen, and how long after it
    relatives: list[float] = Factory(list)
    intervals: list[float] = Factory(list)
    seen: set[str] = Factory(set)
    wakes: int = 0
    until: float = 0.0
    get_times: list[float] = Factory(list)

    @property
    def per_job(self) -> float:
        """Requests for each job, its create included."""
        return 1 + self.requests / max(1, self.ended)

    @property
    def interval(self) -> float:
        return sum(self.intervals) / len(self.intervals)

    def relative(self, share: float | None = None) -> float:
        """
        Delay in intervals as they were when it was seen: the mean, or the quantile at *share*.

        Without the first tasks in flight, which run before anything is known.
        """
        delays = sorted(self.relatives[self.world.in_flight :])
        return sum(delays) / len(delays) if share is None else delays[int(share * (len(delays) - 1))]


@define(eq=False)
class Simulation:
    """Keep *in_flight* tasks running until *jobs* have ended, asking what the book plans."""

    world: World
    book: PollBook
    now: float = 0.0
    report: Report = field(init=False)
    dice: Random = field(init=False)
    _events: list[tuple[float, int, Callable[[], None]]] = field(init=False, factory=list)
    _order: Iterator[int] = field(init=False, factory=count)
    _listed: list[str] = field(init=False, factory=list)
    _ends: dict[str, tuple[float, float]] = field(init=False, factory=dict)  # beginning and end
    _started: int = field(init=False, default=0)
    _foreign: int = field(init=False, default=0)
    _wake: float | None = field(init=False, default=None)
    _chain: list[int] = field(init=False, factory=list)
    _size: int = field(init=False, default=500)

    def __attrs_post_init__(self) -> None:
        self.report = Report(self.world)
        self.dice = Random(self.world.seed)

    def at(self, time: float, act: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._order), act))

    def run(self) -> Report:
        self._listed += [f"older-{number}" for number in range(self.world.older)]
        for number in range(self.world.in_flight):
            # Creates take a moment each, so the tasks are not born at once.
            self.at(number * 0.002, self._create)
        self.at(0.0, self._plan)
        while self._events and self.report.ended < self.world.jobs:
            self.now, _, act = heappop(self._events)
            act()
        self.report.until = self.now
        return self.report

    def _create(self) -> None:
        if self._started >= self.world.jobs:
            return
        self._list_foreign()
        name = f"task-{self._started}"
        self._started += 1
        self._listed.append(name)
        begin = self.now - self.world.latency
        self._ends[name] = (begin, max(self.now, begin + self.world.durations(self.dice, begin)))
        due = self.book.watch(name, self.now, age=self.world.latency)
        if self._wake is None or due < self._wake:
            self._wake_at(due)
        end = self._ends[name][1]
        if end < self.world.told_until and self._started % 100 < 100 * self.world.told_share:
            self.at(end + self.world.told_after, lambda: self._tell(name))

    def _tell(self, name: str) -> None:
        due = self.book.hint(name, self.now)
        if due is not None and (self._wake is None or due < self._wake):
            self._wake_at(due)

    def _list_foreign(self) -> None:
        listed = int(self.now * self.world.foreign_per_second)
        self._listed += [f"foreign-{number}" for number in range(self._foreign, listed)]
        self._foreign = max(self._foreign, listed)

    def _wake_at(self, time: float) -> None:
        self._wake = time
        self.at(time, lambda: self._plan() if self._wake == time else None)

    def _plan(self) -> None:
        self.report.wakes += 1
        turn: Turn = self.book.plan(self.now, self.dice.random())
        self._wake = None
        if turn.wake_at is not None:
            self._wake_at(turn.wake_at)
        if turn.pages:
            assert not self._chain, "a sweep while another is being read"
            self.report.intervals.append(self.book.interval)
            self._chain, self._size = list(turn.pages), turn.page_size
            for _ in range(min(self.world.readers, len(self._chain))):
                self._ask_page()
        if turn.gets:
            self.report.intervals.append(self.book.interval)
            self.report.get_times += [self.now] * len(turn.gets)
        for name in turn.gets:
            self._ask_task(name)

    def _lost(self, what: str | int) -> bool:
        self.report.requests += 1
        if self.dice.random() >= self.world.failing:
            return False
        self.at(
            self.now + self.world.latency,
            lambda: self._answered(lambda: self.book.no_answer(what, self.now, self.dice.random())),
        )
        return True

    def _answered(self, tell: Callable[[], None]) -> None:
        tell()
        self._plan()

    def _ask_task(self, name: str) -> None:
        self.report.gets += 1
        if self._lost(name):
            return
        begin, end = self._ends[name]
        ended = end <= self.now + self.world.latency / 2
        seconds = self._seconds(begin, end)

        def tell() -> None:
            if self.book.saw_task(name, ended, self.now, seconds=seconds):
                self._ended(name)

        self.at(self.now + self.world.latency, lambda: self._answered(tell))

    def _ask_page(self) -> None:
        page = self._chain.pop(0)
        self.report.pages += 1
        if self._lost(page):
            if self._chain:
                self.at(self.now + self.world.latency, self._ask_page)
            return

        # The service reads its list half-way between the request and the answer.
        def read() -> None:
            glances = self._page(page)
            self.at(self.now + self.world.latency / 2, lambda: self._saw(page, glances))

        self.at(self.now + self.world.latency / 2, read)

    def _saw(self, page: int, glances: list[Glance]) -> None:
        seen = self.book.saw_page(page, glances, self.now)
        for name in seen.ended:
            self._ended(name)
        if seen.next_page is not None:
            self._chain.append(seen.next_page)
        if self._chain:
            self._ask_page()
        else:
            self._plan()

    def _page(self, page: int) -> list[Glance]:
        self._list_foreign()
        first = (page - 1) * self._size
        total = len(self._listed)
        last = max(0, total - first)
        names = {
            "newest": lambda: self._listed[max(0, last - self._size) : last][::-1],
            "oldest": lambda: self._listed[first : first + self._size],
            "shuffled": lambda: self.dice.sample(self._listed, total)[first : first + self._size],
        }[self.world.order]()
        shown = []
        for name in names:
            begin, end = self._ends.get(name, (0.0, 0.0))
            glance = Glance(name, end <= self.now, self._seconds(begin, end))
            if self.world.hidden and self.dice.random() < self.world.hidden:
                glance = Glance("foreign", True, 1.0)
            shown.append(glance)
            if self.world.repeated and self.dice.random() < self.world.repeated:
                shown.append(glance)
        return shown[: len(names)]

    def _seconds(self, begin: float, end: float) -> float | None:
        return end - begin if self.world.stamps and end <= self.now + self.world.latency else None

    def _ended(self, name: str) -> None:
        assert name not in self.report.seen, "a task ended twice"
        self.report.seen.add(name)
        self.report.ended += 1
        self.report.delays.append(self.now - self._ends[name][1])
        self.report.late.append((self.now, self.report.delays[-1]))
        self.report.relatives.append(self.report.delays[-1] / self.book.interval)
        self.at(self.now + self.world.lag, self._create)
