"""
The one poller of a client: it asks about every task that runs, for everybody who waits.

What to ask and when is the poll book's decision, one book for each account and endpoint. Here are only the sending,
the telling, and the few cases in which an answer is not the last word: a success whose pictures come late, a task that
is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from attrs import define, evolve, field

from kling_async._crash import crash_point
from kling_async.client.background import Background
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.client.link import Link
from kling_async.client.logs import about
from kling_async.client.tracked import Tracked
from kling_async.errors import AccountError, ApiError, AuthError, KlingError, MalformedReply
from kling_async.protocol.callbacks import Recent
from kling_async.protocol.codec import read_task
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Detached, Finished, Polled, Resumed, StatusChanged
from kling_async.protocol.flows import exchange, read_with
from kling_async.protocol.pages import Page, read_page
from kling_async.protocol.polling import PollBook, Turn
from kling_async.protocol.requests import find_request, list_request
from kling_async.protocol.tasks import Task, TaskStatus

__all__ = ["Poller"]

_log = logging.getLogger("kling_async")

# Times that a success without all its pictures is asked for again (faults.md T04), in steps of twice the settle time.
_LATE_LOOKS = 3
# Ids of tasks that a hint may name before their create is answered, so many and for so many seconds.
_EARLY, _EARLY_SECONDS = 1_000, 60.0
# One refusal of the credentials may be a slip of the service; this many in succession are not.
_SHUT_OUT = 2


# A sweep of many pages reads so many at a time, or its last page is much older than its first: one page of 500 tasks is
# 400 KB. Few pages are read one after the other, since then no task can slip from an unread page to one read before.
_PAGES_AT_ONCE = 4


@define(eq=False)
class _Desk:
    """The tasks of one account and endpoint."""

    link: Link
    path: str
    book: PollBook
    rows: dict[str, Tracked] = field(factory=dict)
    # Answers in succession that the account is not let in.
    shut_out: int = 0


@define(eq=False)
class Poller:
    """Watches tracked tasks; runs while there are any."""

    _clock: Clock
    _background: Background
    _emitter: Emitter
    _timeouts: Timeouts
    _min_interval: float
    # Makes the pictures of a task fetch themselves; set by the client.
    bind: Callable[[Link, str, Task], Task] = field(init=False)
    _desks: dict[tuple[str, str], _Desk] = field(factory=dict, init=False)
    _early: Recent = field(factory=lambda: Recent(_EARLY, _EARLY_SECONDS), init=False, repr=False)
    _running: bool = field(default=False, init=False)
    _nap: asyncio.Future[None] | None = field(default=None, init=False)
    _wake_at: float = field(default=float("inf"), init=False)

    def watch(self, link: Link, row: Tracked) -> Tracked:
        """Look after *row*; returns the row that is looked after already if there is one for its id."""
        desk = self._desk(link, row.path)
        present = desk.rows.setdefault(row.ask_for, row)
        now = self._clock.now()
        due = desk.book.watch(row.ask_for, now, age=max(0.0, now - row.since))
        if self._early and any(self._early.take(name, now) for name in {row.ask_for, row.external_task_id}):
            due = desk.book.hint(row.ask_for, now) or due
        if not self._running:
            self._running = True
            self._background.spawn(self._run())
        elif due < self._wake_at:
            self._wake()
        return present

    def resume(self, link: Link, row: Tracked) -> Tracked:
        """Look after a task that existed already, as `watch()` does, and tell of it."""
        present = self.watch(link, row)
        if present is row and self._emitter.active:
            self._emitter.emit(
                Resumed(
                    account=link.name,
                    key=row.key,
                    external_task_id=row.external_task_id,
                    task_id=row.ask_for,
                )
            )
        return present

    def find(self, link: Link, path: str, ask_for: str) -> Tracked | None:
        """Return the row that is looked after under this id, if any."""
        desk = self._desks.get((link.name, path))
        return desk.rows.get(ask_for) if desk else None

    def hint(self, task_id: str, external_task_id: str = "") -> bool:
        """Have the task asked for at once; False if it is not looked after (if it is in a minute, that is remembered)."""
        now = self._clock.now()
        for name in filter(None, (task_id, external_task_id)):
            for desk in self._desks.values():
                due = desk.book.hint(name, now)
                if due is not None:
                    if due < self._wake_at:
                        self._wake()
                    return True
            self._early.add(name, now)
        return False

    def heard(self, link: Link, path: str, task: Task) -> None:
        """Take in what a query outside the poller brought."""
        desk = self._desks.get((link.name, path))
        if desk is not None and task.task_id in desk.rows:
            now = self._clock.now()
            if not task.ended:
                desk.rows[task.task_id].update(task)
            elif desk.book.ended(task.task_id, now):
                self._end(desk, task.task_id, task)

    def close(self, error: KlingError) -> None:
        """Tell everybody who waits that nothing more will be learned."""
        for desk in self._desks.values():
            for row in desk.rows.values():
                self._lose(desk, row, error)
            desk.rows.clear()

    @property
    def watching(self) -> int:
        """How many tasks are looked after."""
        return sum(len(desk.rows) for desk in self._desks.values())

    def _desk(self, link: Link, path: str) -> _Desk:
        desk = self._desks.get((link.name, path))
        if desk is None:
            desk = _Desk(link, path, PollBook(min_interval=self._min_interval))
            self._desks[link.name, path] = desk
        return desk

    # The loop.

    async def _run(self) -> None:
        try:
            while any(desk.rows for desk in self._desks.values()):
                self._wake_at = min(self._take_turn(desk) for desk in self._desks.values())
                await self._sleep_until(self._wake_at)
        finally:
            self._running = False

    def _take_turn(self, desk: _Desk) -> float:
        if not desk.rows:
            return float("inf")
        turn = desk.book.plan(self._clock.now(), self._clock.dice())
        for asked in turn.gets:
            self._background.spawn(self._get(desk, asked))
        if turn.pages:
            self._background.spawn(self._sweep(desk, turn))
        return float("inf") if turn.wake_at is None else turn.wake_at

    async def _sleep_until(self, moment: float) -> None:
        self._nap = asyncio.get_running_loop().create_future()
        timer = self._clock.later(moment - self._clock.now(), self._wake)
        try:
            await self._nap
        finally:
            self._nap = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)

    # Asking.

    async def _get(self, desk: _Desk, asked: str) -> None:
        ended = 0
        try:
            task = await self._ask(desk, asked)
        except KlingError as error:
            self._no_answer(desk, asked, error)
        else:
            desk.shut_out = 0
            if desk.book.saw_task(asked, task.ended, self._clock.now(), seconds=_seconds(task)):
                ended = self._end(desk, asked, task)
            elif asked in desk.rows:
                desk.rows[asked].update(task)
                self._saw_status(desk, asked, task.task_id, str(task.status.value))
        self._told(desk, 1, ended)

    async def _ask(self, desk: _Desk, asked: str) -> Task:
        envelope = await desk.link.drive(exchange(find_request(desk.path, asked)), self._timeouts)
        crash_point("mid-poll")
        task = read_task(envelope.data, request_id=envelope.request_id)
        if not task.answers(asked):
            raise _NotThisOne(f"expected task {asked}, found {task.task_id}", 200, envelope.request_id)
        return task

    def _no_answer(self, desk: _Desk, asked: str | int, error: KlingError) -> None:
        now = self._clock.now()
        if isinstance(asked, str) and isinstance(error, ApiError) and is_not_found(error.code, error.message):
            if desk.book.missed(asked, now):
                row = desk.rows.pop(asked)
                row.release()
                self._lose(desk, row, error)
            return
        # Without a code it is the page of a gateway, which knows nothing of the account.
        if isinstance(error, AuthError | AccountError) and error.code:
            desk.shut_out += 1
            if desk.shut_out >= _SHUT_OUT:
                self._give_up(desk, error)
                return
        _log.debug("no answer about %s: %s", asked, error, extra=about(account=desk.link.name, error=error))
        wish = error.retry_after if isinstance(error, ApiError) else None
        desk.book.no_answer(
            asked, now, self._clock.dice(), retry_after=wish, shared=not isinstance(error, _NotThisOne)
        )

    def _give_up(self, desk: _Desk, error: KlingError) -> None:
        # The account is not let in any more, so no answer will ever come. The tasks go on and are paid for; whoever
        # waits is told at once instead of at the end of a long wait.
        desk.link.stop(error)
        for asked, row in tuple(desk.rows.items()):
            desk.book.forget(asked)
            self._lose(desk, row, error)
        desk.rows.clear()

    def _lose(self, desk: _Desk, row: Tracked, error: KlingError) -> None:
        if self._emitter.active:
            task_id = "" if row.ask_for == row.external_task_id else row.ask_for
            self._emitter.emit(
                Detached(
                    account=desk.link.name,
                    key=row.key,
                    external_task_id=row.external_task_id,
                    task_id=task_id,
                    error=error,
                )
            )
        row.lose(error)

    async def _sweep(self, desk: _Desk, turn: Turn) -> None:
        requests, ended = 0, 0
        at_once = _PAGES_AT_ONCE if len(turn.pages) > _PAGES_AT_ONCE else 1
        pages, asked = deque(turn.pages), deque[tuple[int, asyncio.Task[Page | KlingError]]]()
        while pages or asked:
            while pages and len(asked) < at_once:
                work = self._read_page(desk, pages[0], turn.page_size)
                asked.append((pages.popleft(), self._background.begin(work)))
            page, reading = asked.popleft()
            found = await reading
            requests += 1
            if isinstance(found, KlingError):
                self._no_answer(desk, page, found)
                continue
            desk.shut_out = 0
            seen = desk.book.saw_page(page, found.glances, self._clock.now())
            entries = found.entries(seen.ended)
            for task_id in seen.ended:
                task = read_task(entries[task_id], request_id=found.request_id)
                ended += self._end(desk, task_id, task)
            if seen.next_page is not None:
                pages.append(seen.next_page)
            if self._emitter.active:
                for glance in found.glances:
                    if glance.task_id in desk.rows and not glance.ended:
                        self._saw_status(desk, glance.task_id, glance.task_id, glance.status)
        self._told(desk, requests, ended)

    def _saw_status(self, desk: _Desk, asked: str, task_id: str, status: str) -> None:
        row = desk.rows[asked]
        # A status never goes back (R10).
        if (
            self._emitter.active
            and status != row.shown
            and TaskStatus(status).rank >= TaskStatus(row.shown).rank
        ):
            row.shown = status
            self._emitter.emit(
                StatusChanged(
                    account=desk.link.name,
                    key=row.key,
                    external_task_id=row.external_task_id,
                    task_id=task_id,
                    status=status,
                )
            )

    async def _read_page(self, desk: _Desk, page: int, size: int) -> Page | KlingError:
        try:
            flow = read_with(read_page, list_request(desk.path, page, size))
            found = await desk.link.drive(flow, self._timeouts)
        except KlingError as error:
            return error
        crash_point("mid-poll")
        return found

    def _told(self, desk: _Desk, requests: int, ended: int) -> None:
        if self._emitter.active:
            self._emitter.emit(
                Polled(account=desk.link.name, requests=requests, waiting=len(desk.rows), ended=ended)
            )
        self._wake()

    # The end of a task.

    def _end(self, desk: _Desk, asked: str, task: Task) -> int:
        row = desk.rows.pop(asked, None)
        if row is None:
            return 0
        row.release()
        if task.status == TaskStatus.SUCCEED and len(task.images) < row.expected:
            self._background.spawn(self._look_again(desk, row, task))
        else:
            self._finish(desk, row, task)
        return 1

    async def _look_again(self, desk: _Desk, row: Tracked, task: Task) -> None:
        """Ask some more times for pictures that may come late; the task's slots are free already."""
        try:
            for _ in range(_LATE_LOOKS):
                await self._clock.sleep(2 * self._timeouts.settle)
                try:
                    again = await self._ask(desk, task.task_id)
                except KlingError as error:
                    fields = about(task, account=desk.link.name, error=error)
                    _log.debug("no answer about the pictures of %s: %s", task.task_id, error, extra=fields)
                    continue
                task = again if again.ended and len(again.images) >= len(task.images) else task
                if len(task.images) >= row.expected:
                    break
            else:
                fields = about(task, account=desk.link.name)
                _log.warning(
                    "task %s shows %s of %s pictures",
                    task.task_id,
                    len(task.images),
                    row.expected,
                    extra=fields,
                )
        finally:
            # Also when the client closes: who waits gets what there is.
            self._finish(desk, row, task)

    def _finish(self, desk: _Desk, row: Tracked, task: Task) -> None:
        if not task.external_task_id and row.external_task_id:
            task = evolve(task, external_task_id=row.external_task_id)
        if self._emitter.active:
            seconds, own = self._clock.now() - row.since, _seconds(task)
            self._emitter.emit(
                Finished(
                    account=desk.link.name,
                    key=row.key,
                    external_task_id=row.external_task_id,
                    task_id=task.task_id,
                    status=str(task.status.value),
                    reason=task.status_message,
                    seconds=seconds,
                    units=task.units,
                    lag=None if own is None else max(0.0, seconds - own),
                )
            )
        row.update(self.bind(desk.link, desk.path, task))


class _NotThisOne(MalformedReply):
    """An answer about another task: it says nothing about the service as a whole."""


def _seconds(task: Task) -> float | None:
    if task.created_at is None or task.updated_at is None:
        return None
    return (task.updated_at - task.created_at).total_seconds()
