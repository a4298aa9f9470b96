"""
What to ask about the tasks that run, and when: the poll plan, as pure code.

One `PollBook` watches the tasks of one account and endpoint. Each task is a row, and a row is in one place:

    wheel   nothing to do before its time
    ready   due, waits for the next turn
    queue   due, gets a single GET as soon as the budget allows
    hinted  somebody says it may have ended: a single GET at once
    wanted  expected on a page of the sweep that is being read
    out     a single GET is being answered

A *turn* comes once an interval (see `pace`) at most, and only when a row is ready. It chooses the fewest requests: a list
page where at least two ready rows are expected on it (see `listing`), single GETs for the others. A row is due
when tasks of its age are known to end (see `durations`), then every interval, less and less often as a straggler.

Guaranteed, whatever the service does: absence from a list proves nothing; a row that a sweep should have shown and did
not gets a single GET (at once if such rows are few, at the second miss otherwise); a watched row is asked
about again within `PollBook.bound()`; single GETs never pass their budget; a lost answer loses no row, nor
does an answer that never comes; what has ended or was forgotten stays so until it is watched again.

The caller plans at *wake_at*, after the answers of a turn, after a hint, and when a watched task is due before; it reports
each answer as it comes. The pages of a turn are best read from the first to the last, a few at a time at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

from attrs import Attribute, define, field

from kling_async.errors import ConfigError
from kling_async.protocol.durations import Durations
from kling_async.protocol.hints import Hints
from kling_async.protocol.listing import Listing
from kling_async.protocol.pace import Backoff, Bucket, Pace
from kling_async.protocol.sweeps import Hidden, Sweep, choose
from kling_async.protocol.turns import Glance, Look, Seen, Turn
from kling_async.protocol.watched import Board, Place, Row

__all__ = ["Glance", "PollBook", "Seen", "Turn"]


def _above_zero(_book: object, attribute: Attribute[Any], number: float) -> None:
    if not 0 < number < inf:
        raise ConfigError(f"expected {attribute.name} to be a number above 0, got {number!r}")


@define(eq=False, repr=False, kw_only=True)
class PollBook:
    """
    The tasks watched on one account and endpoint. *now* is always seconds of one monotonic clock, *dice* drawn from [0, 1).

    At least *min_interval* seconds lie between two turns, at most *max_interval* between two wishes to look at one task;
    *grace* is how long a task that is not found is asked for; a request of which nothing is heard for *answer_within*
    seconds counts as lost. *thrift* 0 asks as often as precision wants, 1 keeps requests few.
    """

    min_interval: float = field(default=0.5, validator=_above_zero)
    max_interval: float = field(default=60.0, validator=_above_zero)
    gets_per_second: float = field(default=20.0, validator=_above_zero)
    hints_per_second: float = field(default=2000.0, validator=_above_zero)
    page_size: int = field(default=500, validator=_above_zero)
    grace: float = 120.0
    answer_within: float = field(default=90.0, validator=_above_zero)
    thrift: float = 1.0

    _pace: Pace = field(init=False)
    _durations: Durations = field(init=False)
    _listing: Listing = field(init=False)
    _gets: Bucket = field(init=False)
    _hints: Hints = field(init=False)
    _board: Board = field(init=False)
    _rows: Place = field(init=False)
    _backoff: Backoff = field(init=False, factory=Backoff)
    _sweep: Sweep | None = field(init=False, default=None)
    _broken_sweeps: int = field(init=False, default=0)
    _began: float = field(init=False, default=0.0)  # when the first of the watched was
    # What few rows have, kept apart to keep the others small.
    _hidden: Hidden = field(init=False, factory=Hidden)
    _lost: dict[str, float] = field(init=False, factory=dict)  # since when it is not found
    _troubles: dict[str, int] = field(init=False, factory=dict)  # its failures in succession

    def __attrs_post_init__(self) -> None:
        longest = max(self.min_interval, self.max_interval)
        self._pace = Pace(self.min_interval, longest, self.thrift, self.min_interval)
        self._durations = Durations(4 * self.min_interval)
        self._listing = Listing(self.page_size)
        self._gets = Bucket.of(self.gets_per_second)
        self._hints = Hints(self.min_interval / 5, Bucket.of(self.hints_per_second))
        self._board = Board(self.min_interval / 8)
        self._rows = self._board.rows

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._rows

    def __repr__(self) -> str:
        return f"<PollBook of {len(self._rows)} tasks, interval {self.interval:.3g} s, {self._listing!r}>"

    @property
    def interval(self) -> float:
        """The seconds between two turns, as learned so far."""
        return self._pace.interval

    @property
    def typical(self) -> float | None:
        """The median duration of a task in seconds, None before one has ended."""
        return self._durations.typical

    def bound(self) -> float:
        """
        Say within how many seconds each watched task is asked about again while the service answers.

        Two sweeps may miss it before it gets a single GET, and all tasks may need theirs at the same time.
        """
        rounds = self._pace.max_interval + 3 * (1.1 * self._pace.max_interval + self.answer_within)
        return rounds + 2 * len(self._rows) / self._gets.rate

    # What is watched.

    def watch(self, task_id: str, now: float, *, age: float = 0.0) -> float:
        """
        Watch a task that exists, and return when it is due: plan then, unless a plan is due before.

        *age* is the time since its create began; a task that may have ended already is due at once. Nothing
        changes for a task that is watched already.
        """
        row = self._rows.get(task_id)
        if row is not None:
            return row.due
        if not self._rows:
            self._began = now
        self._listing.advance(now)
        first = self._durations.next_look(0.0, self.interval)
        fresh = age < first
        row = self._rows[task_id] = Row(task_id, now - age, fresh)
        if fresh:
            self._listing.enter(row)
        wait = min(first - age, self._pace.max_interval) if fresh else 0.0
        self._board.wheel.put(row, now + wait)
        return row.due

    def forget(self, task_id: str) -> None:
        """Stop watching a task; whatever is heard of it later is ignored."""
        row = self._rows.get(task_id)
        if row is None:
            return
        self._board.remove(row)
        self._hints.forget(task_id)
        self._hidden.forgive(task_id)
        self._lost.pop(task_id, None)
        self._troubles.pop(task_id, None)

    def ended(self, task_id: str, now: float, *, seconds: float | None = None) -> bool:
        """Learn that a task has ended; return whether that is news. *seconds* as in `Glance`."""
        row = self._rows.get(task_id)
        if row is None:
            return False
        self._learn(row, now, seconds)
        self._hints.end(task_id, now)
        self.forget(task_id)
        return True

    def hint(self, task_id: str, now: float) -> float | None:
        """Have a task asked by the very next plan; return when to plan, None if it is not watched."""
        row = self._rows.get(task_id)
        if row is None:
            self._hints.hear_late(task_id)
            return None
        out = row.place is self._board.out
        self._hints.hear(task_id, out=out)
        if not out and row.place is not self._board.hinted:
            self._board.move(row, self._board.hinted)
        return max(now, self._ripe(row))

    # What is heard.

    def saw_task(self, task_id: str, ended: bool, now: float, *, seconds: float | None = None) -> bool:  # noqa: FBT001 - an answer has two sides
        """Take the answer to a single GET; return whether a watched task has ended, which then is no longer watched."""
        self._backoff.succeed()
        if ended:
            return self.ended(task_id, now, seconds=seconds)
        row = self._rows.get(task_id)
        if row is not None:
            self._hints.deny(task_id)
            self._alive(row, now)
        return False

    def saw_page(self, page: int, glances: Sequence[Look], now: float) -> Seen:
        """
        Take a list page as it was received: all its tasks, in its order.

        The ended tasks it returns are the caller's to structure; to have one asked again, watch it again.
        """
        self._backoff.succeed()
        sweep = self._sweep if self._sweep is not None and page in self._sweep.pages else None
        first = (page - 1) * sweep.size if sweep is not None else 0
        self._listing.advance(now)
        ended: list[str] = []
        ranks: dict[str, int] = {}  # a page may show a task twice
        shown: list[tuple[Row, int]] = []
        for glance in glances:
            task_id = glance.task_id
            rank = ranks.setdefault(task_id, first + len(ranks))
            row = self._rows.get(task_id)
            if row is None:
                continue
            shown.append((row, rank))
            if glance.ended:
                self.ended(task_id, now, seconds=glance.seconds)
                ended.append(task_id)
            else:
                self._hidden.forgive(task_id)
                self._alive(row, now)
        if sweep is None:
            return Seen(tuple(ended), None)
        self._listing.learn(shown)
        further = sweep.read(page, len(glances), self._listing, now)
        self._pace.spend(further is not None)
        self._close_if_read(sweep, now)
        return Seen(tuple(ended), further)

    def missed(self, task_id: str, now: float) -> bool:
        """Learn that a task was not found; return True when that went on for the grace: it is lost, and watched no more."""
        self._backoff.succeed()
        row = self._rows.get(task_id)
        if row is None:
            return False
        since = self._lost.setdefault(task_id, now)
        if now - since >= self.grace:
            self.forget(task_id)
            return True
        self._put_off(row, min(now + max(self.interval, 0.5 * (now - since)), since + self.grace))
        return False

    def no_answer(
        self,
        what: str | int,
        now: float,
        dice: float,
        *,
        retry_after: float | None = None,
        shared: bool = True,
    ) -> None:
        """
        Learn that a GET of a task id, or of a page by its number, got no usable answer; no task is lost by that.

        All requests pause, longer each time, unless *shared* is False: the fault was that answer's alone (the data of another
        task). *retry_after* is the service's wish in seconds.
        """
        if shared:
            self._backoff.fail(now, self.interval, dice, retry_after)
        if isinstance(what, int):
            if self._sweep is not None and what in self._sweep.pages:
                self._sweep.broken = True
                self._sweep.pages.discard(what)
                self._close_if_read(self._sweep, now)
            return
        row = self._rows.get(what)
        if row is not None and row.place is self._board.out:
            failures = self._troubles[what] = self._troubles.get(what, 0) + 1
            pause = min(self._pace.max_interval, self.interval * 2.0 ** min(failures, 30))
            self._put_off(row, now + pause)

    # What to ask.

    def plan(self, now: float, dice: float) -> Turn:
        """Decide what to ask now. The answers, or their failing, are to be reported one by one; then plan again."""
        self._listing.advance(now)
        self._give_up(now)
        self._board.fire(now)
        if now < self._backoff.until:
            return Turn((), (), self.page_size, self._backoff.until if self._rows else None)
        gets = self._take_hinted(now)
        pages: tuple[int, ...] = ()
        if self._sweep is None and self._is_due() and now >= self._pace.next_turn:
            pages = self._take_turn(now, dice)
        gets += self._take_queue(now)
        size = self._sweep.size if self._sweep else self.page_size
        return Turn(tuple(gets), pages, size, self._wake_at(now))

    def _is_due(self) -> bool:
        # Rows that wait for their GETs longer than a turn may be cheaper in a page by now.
        return bool(self._board.ready) or len(self._board.queue) > 1

    def _take_turn(self, now: float, dice: float) -> tuple[int, ...]:
        # As long as nothing has ended, tasks take as long as was waited.
        mean = self._durations.mean or now - self._began
        self._pace.stretch = self._hints.stretch(now)
        self._pace.turn(now, len(self._rows), self.typical or 0.0, mean, dice)
        due = [*self._board.queue.values(), *self._board.ready.values()]
        if self._broken_sweeps >= 2:
            # The list may fail where single tasks are answered: every so often a turn does without.
            self._broken_sweeps = 0
        else:
            listed = self._hidden.listed(due, self._gets.rate * self.interval)
            self._sweep = choose(listed, self._listing, now)
        wanted, pages = (self._sweep.wanted, sorted(self._sweep.pages)) if self._sweep else ({}, [])
        for row in due:
            self._board.move(row, wanted if row.task_id in wanted else self._board.queue)
        self._pace.spend(len(pages))
        return tuple(pages)

    def _take_hinted(self, now: float) -> list[str]:
        ripe, too_many = self._hints.choose(self._board.hinted.values(), now, self.interval)
        for row in too_many:
            self._board.move(row, self._board.ready)  # they are cheaper in a page
        return self._send(ripe, now)

    def _take_queue(self, now: float) -> list[str]:
        free = self._gets.refill(now)
        rows = [row for row, _ in zip(self._board.queue.values(), range(free), strict=False)]
        self._gets.take(len(rows))
        self._pace.spend(len(rows))
        return self._send(rows, now)

    def _send(self, rows: Iterable[Row], now: float) -> list[str]:
        ids = []
        for row in rows:
            self._board.move(row, self._board.out)
            row.asked = now
            ids.append(row.task_id)
        return ids

    def _wake_at(self, now: float) -> float | None:
        if not self._rows:
            return None
        times = [self._ripe(row) for row in self._board.hinted.values()]
        if self._board.queue:
            times.append(now + self._gets.wait(len(self._board.queue)))
        if self._board.out:
            times.append(next(iter(self._board.out.values())).asked + self.answer_within)
        if self._sweep is not None:
            times.append(self._sweep.since + self.answer_within)
        else:
            due = now if self._is_due() else self._board.wheel.next_at()
            if due is not None:
                times.append(max(due, self._pace.next_turn))
        # All that could be done now is done; the floor keeps rounding from making a plan that wakes up for nothing.
        return max(now + self._hints.spacing / 20, min(times))

    def _close_if_read(self, sweep: Sweep, now: float) -> None:
        if sweep.pages:
            return
        self._sweep = None
        self._broken_sweeps = self._broken_sweeps + 1 if sweep.broken else 0
        missing = list(sweep.wanted.values())
        self._listing.settle(now)
        if not sweep.broken:
            self._listing.judge(sweep.targets, sweep.targets - len(missing))
        few = not sweep.broken and len(missing) <= 1 + sweep.asked.total() // 2
        for row in missing:
            alone = not sweep.broken and self._hidden.miss(row)
            self._board.move(row, self._board.queue if few or alone else self._board.ready)

    def _ripe(self, row: Row) -> float:
        return self._hints.ripe(row.task_id, row.asked, self.interval)

    def _alive(self, row: Row, now: float) -> None:
        row.looked = now
        if self._lost or self._troubles:  # few rows are there, and there are pages of hundreds
            self._lost.pop(row.task_id, None)
            self._troubles.pop(row.task_id, None)
        if row.place is not None:
            age = now - row.born
            wait = min(self._durations.next_look(age, self.interval) - age, self._pace.max_interval)
            # Half an interval early, so that it is ready when the turn comes.
            self._put_off(row, now + wait - self.interval / 2)

    def _put_off(self, row: Row, due: float) -> None:
        if self._hints.again(row.task_id):
            self._board.move(row, self._board.hinted)
        elif row.place is not self._board.hinted:  # a hint is newer than the answer that is being read
            self._board.schedule(row, due)

    def _learn(self, row: Row, now: float, seconds: float | None) -> None:
        high, low = now - row.born, max(0.0, row.looked - row.born)
        # The service's clock may run at another speed (an emulator's does); what cannot be true is not heard.
        if seconds is not None and 0.0 < seconds <= 1.5 * high + self.min_interval:
            self._durations.add(min(max(seconds, low), high))
        elif low or row.fresh:
            self._durations.add_between(low, high)

    def _give_up(self, now: float) -> None:
        """Take requests of which nothing was heard for lost."""
        sweep = self._sweep
        if sweep is not None and now >= sweep.since + self.answer_within:
            sweep.broken = True
            sweep.pages.clear()
            self._close_if_read(sweep, now)
        while self._board.out:
            row = next(iter(self._board.out.values()))
            if now < row.asked + self.answer_within:
                return
            self._board.move(row, self._board.queue)
