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

The caller asks for a plan at *wake_at*, after reporting the answers of a turn, and after a hint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple, TypeAlias

from attrs import define, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.durations import Durations
from kling_async.protocol.listing import DEEPEST_PAGE, Listing
from kling_async.protocol.pace import Backoff, Bucket, Pace
from kling_async.protocol.wheel import Wheel

__all__ = ["Glance", "PollBook", "Seen", "Turn"]

_HIDDEN_TURNS = 10  # a row that two sweeps did not show gets so many turns of GETs before it is looked for in the list again


class Glance(NamedTuple):
    """
    One task as a list page shows it; *seconds* from its creation to its end by the service's clock, if told.

    A named tuple, because a sweep makes hundreds of them and an attrs class takes three times as long.
    """

    task_id: str
    ended: bool
    seconds: float | None = None


@frozen
class Turn:
    """What to ask now: task ids one by one, and list pages, best in this order; the next plan is wanted at *wake_at*."""

    gets: tuple[str, ...]
    pages: tuple[int, ...]
    page_size: int
    wake_at: float | None


@frozen
class Seen:
    """What a page told: watched tasks that have *ended* (they are no longer watched), and a page to read next in this sweep."""

    ended: tuple[str, ...]
    next_page: int | None


@define(eq=False)
class _Row:
    task_id: str
    born: float
    fresh: bool  # its create was seen, so *born* is its true beginning
    mark: float | None  # its place in the list, see `listing`
    due: float = -inf
    entry: int = -1
    looked: float = -inf  # when it was last seen not to have ended
    asked: float = -inf  # when it last got a single GET
    place: _Place | None = None  # None: on the wheel


_Place: TypeAlias = dict[str, _Row]


@define(eq=False)
class _Sweep:
    since: float
    size: int
    pages: set[int]  # asked and not answered
    wanted: _Place  # rows not shown so far
    deepest: int
    targets: int
    asked: int
    shown: int = 0
    vain: int = 0  # pages in succession that showed none of the wanted
    full: bool = False  # the deepest page was a full one
    broken: bool = False  # a page was not answered


class PollBook:
    """
    The tasks watched on one account and endpoint. *now* is always seconds of one monotonic clock, *dice* drawn from [0, 1).

    At least *min_interval* seconds lie between two turns, at most *max_interval* between two wishes to look at one task;
    *grace* is how long a task that is not found is asked for; a request of which nothing is heard for *answer_within*
    seconds counts as lost. *thrift* 0 asks as often as precision wants, 1 keeps requests few.
    """

    def __init__(
        self,
        *,
        min_interval: float = 0.5,
        max_interval: float = 60.0,
        gets_per_second: float = 20.0,
        hints_per_second: float = 100.0,
        page_size: int = 500,
        grace: float = 120.0,
        answer_within: float = 90.0,
        thrift: float = 1.0,
    ) -> None:
        for name, number in (
            ("min_interval", min_interval),
            ("max_interval", max_interval),
            ("gets_per_second", gets_per_second),
            ("hints_per_second", hints_per_second),
            ("page_size", page_size),
            ("answer_within", answer_within),
        ):
            if not 0 < number < inf:
                raise ConfigError(f"expected {name} to be a number above 0, got {number!r}")
        self._grace = grace
        self._answer_within = answer_within
        self._page_size = page_size
        self._pace = Pace(min_interval, max(min_interval, max_interval), thrift, min_interval)
        self._durations = Durations(4 * min_interval)
        self._listing = Listing(page_size)
        self._gets = Bucket.of(gets_per_second)
        self._hints = Bucket.of(hints_per_second)
        self._backoff = Backoff()
        self._wheel: Wheel[_Row] = Wheel(min_interval / 8)
        self._rows: _Place = {}
        self._ready: _Place = {}
        self._queue: _Place = {}
        self._hinted: _Place = {}
        self._out: _Place = {}
        self._sweep: _Sweep | None = None
        self._broken_sweeps = 0
        # What few rows have, kept apart to keep the others small.
        self._again: set[str] = set()  # hinted while its GET was out
        self._hidden: dict[
            str, int
        ] = {}  # sweeps that should have shown it and did not, later its turns with GETs
        self._lost: dict[str, float] = {}  # since when it is not found
        self._troubles: dict[str, int] = {}  # its failures in succession

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
        rounds = self._pace.max_interval + 3 * (1.1 * self._pace.max_interval + self._answer_within)
        return rounds + 2 * len(self._rows) / self._gets.rate

    # What is watched.

    def watch(self, task_id: str, now: float, *, age: float = 0.0) -> float:
        """
        Watch a task that exists, and return when it is due: plan then, unless a plan is due before.

        *age* is the time since its create, if that was not just now. Nothing changes for a task that is watched already.
        """
        row = self._rows.get(task_id)
        if row is not None:
            return row.due
        fresh = age <= 0.0
        row = _Row(task_id, now - age, fresh, self._listing.enter() if fresh else None)
        self._rows[task_id] = row
        wait = min(self._durations.next_look(0.0, self.interval), self._pace.max_interval) if fresh else 0.0
        self._wheel.put(row, now + wait)
        return row.due

    def forget(self, task_id: str) -> None:
        """Stop watching a task; whatever is heard of it later is ignored."""
        row = self._rows.pop(task_id, None)
        if row is None:
            return
        self._move(row, None)
        self._wheel.drop(row)
        self._again.discard(task_id)
        self._clear(task_id)

    def ended(self, task_id: str, now: float, *, seconds: float | None = None) -> bool:
        """Learn that a task has ended; return whether that is news. *seconds* as in `Glance`."""
        row = self._rows.get(task_id)
        if row is None:
            return False
        self._learn(row, now, seconds)
        self.forget(task_id)
        return True

    def hint(self, task_id: str, now: float) -> float | None:
        """Have a task asked by the very next plan; return when to plan, None if it is not watched."""
        row = self._rows.get(task_id)
        if row is None:
            return None
        if row.place is self._out:
            self._again.add(task_id)
        elif row.place is not self._hinted:
            self._move(row, self._hinted)
        return max(now, row.asked + self._hint_spacing)

    # What is heard.

    def saw_task(self, task_id: str, ended: bool, now: float, *, seconds: float | None = None) -> bool:  # noqa: FBT001 - an answer has two sides
        """Take the answer to a single GET; return whether a watched task has ended, which then is no longer watched."""
        self._heard()
        if ended:
            return self.ended(task_id, now, seconds=seconds)
        row = self._rows.get(task_id)
        if row is not None:
            self._alive(row, now)
        return False

    def saw_page(self, page: int, glances: Sequence[Glance], now: float) -> Seen:
        """
        Take a list page as it was received: all its tasks, in its order.

        The ended tasks it returns are the caller's to structure; to have one asked again, watch it again.
        """
        self._heard()
        sweep = self._sweep if self._sweep is not None and page in self._sweep.pages else None
        first = (page - 1) * sweep.size if sweep is not None else 0
        ended: list[str] = []
        shown: list[tuple[_Row, int]] = []
        for rank, (task_id, has_ended, seconds) in enumerate(glances, first):
            row = self._rows.get(task_id)
            if row is None:
                continue
            shown.append((row, rank))
            if has_ended:
                self.ended(task_id, now, seconds=seconds)
                ended.append(task_id)
            else:
                self._hidden.pop(task_id, None)
                self._alive(row, now)
        if sweep is None:
            return Seen(tuple(ended), None)
        self._listing.learn([(row.mark, rank) for row, rank in shown], now)
        for row, rank in shown:
            row.mark = self._listing.mark(rank)
        return Seen(tuple(ended), self._read_on(sweep, page, len(glances), now))

    def missed(self, task_id: str, now: float) -> bool:
        """Learn that a task was not found; return True when that went on for the grace: it is lost, and watched no more."""
        self._heard()
        row = self._rows.get(task_id)
        if row is None:
            return False
        since = self._lost.setdefault(task_id, now)
        if now - since >= self._grace:
            self.forget(task_id)
            return True
        self._schedule(row, min(now + max(self.interval, 0.5 * (now - since)), since + self._grace))
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

        All requests pause, longer each time, unless *shared* is False: the fault was that answer's alone (another task's data).
        """
        if shared:
            self._backoff.fail(now, self.interval, dice, retry_after)
        if isinstance(what, int):
            if self._sweep is not None and what in self._sweep.pages:
                self._sweep.broken = True
                self._sweep.pages.discard(what)
                self._close_if_read(self._sweep)
            return
        row = self._rows.get(what)
        if row is not None and row.place is self._out:
            failures = self._troubles[what] = self._troubles.get(what, 0) + 1
            self._schedule(row, now + min(self._pace.max_interval, self.interval * 2.0 ** min(failures, 30)))

    # What to ask.

    def plan(self, now: float, dice: float) -> Turn:
        """Decide what to ask now. The answers, or their failing, are to be reported one by one; then plan again."""
        self._listing.advance(now)
        self._give_up(now)
        for row in self._wheel.fire(now):
            row.place = self._ready
            self._ready[row.task_id] = row
        if now < self._backoff.until:
            return Turn((), (), self._page_size, self._backoff.until if self._rows else None)
        gets = self._take_hinted(now)
        pages: tuple[int, ...] = ()
        size = self._page_size
        if self._sweep is None and self._ready and now >= self._pace.next_turn:
            pages, size = self._take_turn(now, dice)
        gets += self._take_queue(now)
        return Turn(tuple(gets), pages, size, self._wake_at(now))

    def _take_turn(self, now: float, dice: float) -> tuple[tuple[int, ...], int]:
        self._pace.turn(now, len(self._rows), self._durations, dice)
        due = [*self._queue.values(), *self._ready.values()]
        listed = [row for row in due if self._is_listed(row.task_id)]
        size = self._listing.size_for(max((self._listing.rank(row.mark) for row in listed), default=0.0))
        at = [int(self._listing.rank(row.mark)) // size + 1 for row in listed]
        crowds = Counter(page for page in at if page <= DEEPEST_PAGE)
        pages = {page for page, crowd in crowds.items() if crowd * self._listing.trust > 1.0}
        if self._broken_sweeps >= 2:
            # The list may fail where single tasks are answered: every other turn does without.
            pages, self._broken_sweeps = set(), 0
        elif not pages and any(crowd > 1 for crowd in crowds.values()):
            self._listing.forgive()
        wanted = {row.task_id: row for row, page in zip(listed, at, strict=True) if page in pages}
        for row in due:
            self._move(row, wanted if row.task_id in wanted else self._queue)
        if pages:
            self._pace.spend(len(pages))
            self._sweep = _Sweep(now, size, set(pages), wanted, max(pages), len(wanted), len(pages))
        return tuple(sorted(pages)), size

    def _is_listed(self, task_id: str) -> bool:
        turns = self._hidden.get(task_id, 0)
        if turns < 2:
            return True
        # Two sweeps did not show it. It is looked for there again after a while, with one chance.
        self._hidden[task_id] = turns + 1 if turns < _HIDDEN_TURNS else 1
        return False

    def _take_hinted(self, now: float) -> list[str]:
        free = self._hints.refill(now)
        ripe = [row for row in self._hinted.values() if now >= row.asked + self._hint_spacing]
        self._hints.take(len(ripe[:free]))
        for row in ripe[free:]:
            self._move(row, self._ready)  # too many at once are cheaper in a page
        return self._send(ripe[:free], now)

    def _take_queue(self, now: float) -> list[str]:
        free = self._gets.refill(now)
        rows = [row for row, _ in zip(self._queue.values(), range(free), strict=False)]
        self._gets.take(len(rows))
        self._pace.spend(len(rows))
        return self._send(rows, now)

    def _send(self, rows: Iterable[_Row], now: float) -> list[str]:
        ids = []
        for row in rows:
            self._move(row, self._out)
            row.asked = now
            ids.append(row.task_id)
        return ids

    def _wake_at(self, now: float) -> float | None:
        if not self._rows:
            return None
        times = [row.asked + self._hint_spacing for row in self._hinted.values()]
        if self._queue:
            times.append(now + self._gets.wait(len(self._queue)))
        if self._out:
            times.append(next(iter(self._out.values())).asked + self._answer_within)
        if self._sweep is not None:
            times.append(self._sweep.since + self._answer_within)
        else:
            due = now if self._ready else self._wheel.next_at()
            if due is not None:
                times.append(max(due, self._pace.next_turn))
        return max(now, min(times))

    # Sweeps.

    def _read_on(self, sweep: _Sweep, page: int, count: int, now: float) -> int | None:
        sweep.pages.discard(page)
        before, sweep.shown = sweep.shown, sweep.targets - len(sweep.wanted)
        sweep.vain = sweep.vain + 1 if sweep.shown == before else 0
        if page == sweep.deepest:
            sweep.full = count >= sweep.size
        if not sweep.pages and sweep.full and not sweep.broken and self._is_deeper(sweep):
            sweep.deepest += 1
            sweep.asked += 1
            sweep.since = now
            sweep.pages.add(sweep.deepest)
            self._pace.spend(1)
            return sweep.deepest
        self._close_if_read(sweep)
        return None

    def _is_deeper(self, sweep: _Sweep) -> bool:
        """Tell whether another page is likely to save more GETs than it costs."""
        if sweep.deepest >= DEEPEST_PAGE or sweep.vain > 20:
            return False
        end = sweep.deepest * sweep.size
        missing = [
            row
            for row in sweep.wanted.values()
            if sweep.shown == 0 or row.mark is None or self._listing.rank(row.mark) >= end
        ]
        return len(missing) >= 4 and 4 * sweep.vain < len(missing)

    def _close_if_read(self, sweep: _Sweep) -> None:
        if sweep.pages:
            return
        self._sweep = None
        self._broken_sweeps = self._broken_sweeps + 1 if sweep.broken else 0
        missing = list(sweep.wanted.values())
        if not sweep.broken and sweep.targets:
            self._listing.judge(sweep.targets, sweep.targets - len(missing))
        few = not sweep.broken and len(missing) <= 1 + sweep.asked // 2
        for row in missing:
            misses = self._hidden.get(row.task_id, 0) + (not sweep.broken)
            self._hidden[row.task_id] = misses
            self._move(row, self._queue if few or misses >= 2 else self._ready)

    # Rows.

    @property
    def _hint_spacing(self) -> float:
        return self._pace.min_interval / 5

    def _heard(self) -> None:
        self._backoff.succeed()

    def _alive(self, row: _Row, now: float) -> None:
        row.looked = now
        self._lost.pop(row.task_id, None)
        self._troubles.pop(row.task_id, None)
        if row.task_id in self._again:
            self._again.discard(row.task_id)
            self._move(row, self._hinted)
        elif row.place is not None:
            age = now - row.born
            wait = min(self._durations.next_look(age, self.interval) - age, self._pace.max_interval)
            # Half an interval early, so that it is ready when the turn comes.
            self._schedule(row, now + wait - self.interval / 2)

    def _learn(self, row: _Row, now: float, seconds: float | None) -> None:
        high = now - row.born
        low = max(0.0, row.looked - row.born)
        if seconds is not None and 0.0 < seconds <= 1.5 * high + self._pace.min_interval:
            self._durations.add(min(max(seconds, low), high))
        elif low:
            self._durations.add((low + high) / 2)
        elif row.fresh:
            # Found ended at the first look: it took less, and the next ones are looked at a little earlier.
            self._durations.add(0.85 * high)

    def _give_up(self, now: float) -> None:
        """Take requests of which nothing was heard for lost."""
        sweep = self._sweep
        if sweep is not None and now >= sweep.since + self._answer_within:
            sweep.broken = True
            sweep.pages.clear()
            self._close_if_read(sweep)
        while self._out:
            row = next(iter(self._out.values()))
            if now < row.asked + self._answer_within:
                return
            self._move(row, self._queue)

    def _schedule(self, row: _Row, due: float) -> None:
        self._move(row, None)
        self._wheel.put(row, due)

    def _move(self, row: _Row, place: _Place | None) -> None:
        if row.place is not None:
            row.place.pop(row.task_id, None)
        elif place is not None:
            self._wheel.drop(row)
        row.place = place
        if place is not None:
            place[row.task_id] = row

    def _clear(self, task_id: str) -> None:
        self._hidden.pop(task_id, None)
        self._lost.pop(task_id, None)
        self._troubles.pop(task_id, None)
