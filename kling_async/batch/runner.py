"""
The engine room of a batch.

A few workers share the input. Each takes a job, submits it, and goes on: the job then only waits, as a row at the
poller and no task of asyncio. When its task ends the harvest brings it in.

    input ──workers──> (rows at the poller) ──harvest──> outbox

Nothing here raises for one job: its trouble is its outcome. What stops a batch as a whole (an account that cannot
pay, a budget, a long outage) ends the submitting; what runs is collected, and the error comes after the last outcome.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Iterable

import anyio
from anyio.abc import TaskGroup
from attrs import define, evolve, field, frozen

from kling_async.batch.counts import Counts
from kling_async.batch.entries import Entry, Input, entries, external_id
from kling_async.batch.harvest import Crop, Harvest
from kling_async.batch.options import BatchOptions
from kling_async.batch.outbox import Outbox
from kling_async.batch.outcomes import Failed, Outcome
from kling_async.batch.sinks import Folder
from kling_async.client.creation import Rules
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.multi_image import prepare
from kling_async.client.queries import Queries
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Party
from kling_async.errors import BatchStopped, BudgetSpent, KlingError, SubmissionUnknown, TaskTimeout
from kling_async.protocol.tasks import Task
from kling_async.protocol.verdict import Verdict, judge

__all__ = ["Runner"]

# Outcomes that may wait to be taken, and jobs whose pictures may wait to be saved, before no more input is taken.
_BACKLOG = 64
# Places that in-order outcomes may be ahead of the slowest job.
_WINDOW = 1024
# Workers wait at their lane, so that it can choose among different weights; nobody needs more than can create at once.
_MOST_WORKERS = 128
_FEWEST_WORKERS = 8
# Seconds that leaving a batch waits for creates under way.
_GRACE = 10.0


@frozen
class _Run:
    """One submitted job that waits at the poller."""

    entry: Entry
    link: Link
    row: Tracked


@define(eq=False)
class Runner:
    """Runs the jobs of one batch; `run()` is its life, *outbox* what comes out of it, *error* why it stopped."""

    _engine: Engine
    _queries: Queries
    _options: BatchOptions
    _folder: Folder | None
    _source: AsyncGenerator[Entry, None]
    _rules: Rules
    outbox: Outbox
    counts: Counts
    error: BaseException | None = field(default=None, init=False)
    _party: Party = field(init=False)
    _harvest: Harvest = field(init=False)
    # Part of every external id, so that two runs of the same jobs make tasks of their own.
    _name: str = field(init=False)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _stopping: bool = field(default=False, init=False)
    _workers: int = field(default=0, init=False)
    _open: int = field(default=0, init=False)
    _runs: dict[int, _Run] = field(factory=dict, init=False)
    _turn: anyio.Lock = field(factory=anyio.Lock, init=False)
    _room: anyio.Event = field(factory=anyio.Event, init=False)
    _began_waiting: anyio.Event = field(factory=anyio.Event, init=False)

    @classmethod
    def of(
        cls,
        engine: Engine,
        queries: Queries,
        jobs: Iterable[Input] | AsyncIterable[Input],
        options: BatchOptions,
    ) -> Runner:
        """Put the runner of *jobs* together; nothing happens before `run()`."""
        rules = evolve(
            queries.rules, persistent=True, stall_after=options.stall_after, priority=0, party=Party()
        )
        return cls(
            engine=engine,
            queries=queries,
            options=options,
            folder=Folder.at(options.out),
            source=entries(jobs),
            rules=rules,
            outbox=Outbox(options.in_order),
            counts=Counts(engine, options),
        )

    def __attrs_post_init__(self) -> None:
        assert self._rules.party is not None, "a batch is a party of its own"
        self._party = self._rules.party
        self._harvest = Harvest(self._folder, self._engine.emitter, self._deliver)
        self._name = secrets.token_hex(8)

    # The life of a batch.

    async def run(self) -> None:
        """Run until the input is used up or the batch is stopped, and all that is under way has come to its end."""
        try:
            with self._scope:
                if self._folder is not None:
                    await self._folder.open()
                async with anyio.create_task_group() as group:
                    self._harvest.start(group)
                    group.start_soon(self._watch_deadlines)
                    self._add_worker(group)
        except Exception as error:  # noqa: BLE001  # handed to whoever iterates
            self.error = self.error or _single(error)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._stopping = True
        self._engine.dismiss(self._party, BatchStopped("the batch was left"))
        with anyio.move_on_after(_GRACE, shield=True):
            # A create under way may be a paid task: it is carried to its end before the batch is gone.
            await self._party.quiet()
        with anyio.CancelScope(shield=True):
            await self._source.aclose()
        # Their tasks go on at the poller, but what becomes of them is nobody's business here any more.
        self._runs.clear()
        self._harvest.abandon()
        if self._folder is not None:
            self._folder.close()
        self.counts.finish()
        self.outbox.close()

    def stop(self, error: Exception | None = None) -> None:
        """Submit nothing more; what runs is collected. With *error*, the batch ends with it."""
        self.error = self.error or error
        if not self._stopping:
            self._stopping = True
            self._engine.dismiss(self._party, BatchStopped("the batch was stopped before this job was sent"))
            self._room.set()

    def cancel(self) -> None:
        """Leave at once; tasks that run at the service go on."""
        self._scope.cancel()

    def _fail_fast(self, error: KlingError) -> None:
        self.error = self.error or error
        self.cancel()

    def _end_if_done(self) -> None:
        if not self._workers and not self._open:
            self._harvest.close()
            self._began_waiting.set()

    # Submitting.

    def _add_worker(self, group: TaskGroup) -> None:
        self._workers += 1
        group.start_soon(self._work, group)

    async def _work(self, group: TaskGroup) -> None:
        while (entry := await self._next()) is not None:
            if self._workers < self._most_workers():
                self._add_worker(group)
            if entry.error is not None:
                self._fail(entry, entry.error)
            else:
                await self._submit(entry)
        self._workers -= 1
        self._end_if_done()

    async def _next(self) -> Entry | None:
        """Take a job from the input once there is room for one; None when there is none left or the batch stops."""
        async with self._turn:
            while not self._stopping and not self._has_room():
                self._room = anyio.Event()
                await self._room.wait()
            if self._stopping or self.counts.complete:
                return None
            try:
                entry = await anext(self._source, None)
            except Exception as error:  # noqa: BLE001  # the caller's iterable may raise anything
                # What runs is paid for, so it is collected before whoever iterates is told.
                self.stop(error)
                return None
            if entry is None:
                self.counts.complete = True
                return None
            self.counts.taken += 1
            self._open += 1
            return entry

    def _has_room(self) -> bool:
        if self.outbox.backlog + self.counts.saving >= _BACKLOG:
            return False
        return not self._options.in_order or self.counts.taken - self.outbox.next_position < _WINDOW

    def _most_workers(self) -> int:
        slots = sum(turnstile.lane.limit for link in self._engine.links for turnstile in link.lanes.values())
        return min(_MOST_WORKERS, max(_FEWEST_WORKERS, 2 * slots))

    async def _submit(self, entry: Entry) -> None:
        assert entry.job is not None, "rows that are no job have an error"
        entry.external_task_id = external_id(self._name, entry)
        try:
            order = await prepare(entry.job, entry.external_task_id, key=entry.key)
            self._commit(entry)
            link, row = await self._engine.submit(order, self._rules)
        except KlingError as error:
            self._not_made(entry, error)
        else:
            self._begin_waiting(_Run(entry, link, row))

    def _commit(self, entry: Entry) -> None:
        assert entry.job is not None
        budget, committed = self._options.budget, self.counts.units_committed + entry.job.units
        if budget is not None and committed > budget:
            raise BudgetSpent(
                f"the budget is {budget} units and the next job would commit {committed}; raise it to continue",
                budget,
                self.counts.units_committed,
            )
        self.counts.units_committed = committed
        entry.committed = entry.job.units

    def _not_made(self, entry: Entry, error: KlingError) -> None:
        if isinstance(error, SubmissionUnknown):
            # Its units stay committed, since there may be a task.
            entry.attempts += 1
            self._fail(entry, error)
            return
        self.counts.units_committed -= entry.committed
        if judge(error) in {Verdict.REJECTED, Verdict.DUPLICATE}:
            self._fail(entry, error)
            return
        # Not this job's trouble but the account's, the service's or ours: the job stays undone.
        if not isinstance(error, BatchStopped) or isinstance(error, BudgetSpent):
            self.stop(error)
        self.counts.dropped += 1
        self._open -= 1
        self.outbox.put(entry.position, None)

    # Waiting.

    def _begin_waiting(self, run: _Run) -> None:
        run.entry.attempts += 1
        self.counts.in_flight += 1
        self.counts.creates += 1
        self._runs[run.entry.position] = run
        if len(self._runs) == 1:
            self._began_waiting.set()
        run.row.listen(lambda row: self._end_waiting(run) if row.over else None)
        if run.row.over:
            self._end_waiting(run)

    def _end_waiting(self, run: _Run) -> None:
        if self._runs.pop(run.entry.position, None) is None:
            return  # given up before
        self.counts.in_flight -= 1
        task = run.row.task
        if run.row.error is not None:
            self._fail(run.entry, run.row.error, task, run.link.name)
            return
        assert task is not None, "what is over without error has a task"
        self.counts.spend(task)
        try:
            task.unwrap()
        except KlingError as error:
            self._fail(run.entry, error, task, run.link.name)
            return
        self.counts.saving += 1
        run.entry.saving = True
        self._harvest.bring(Crop(run.entry, task, run.link.name, self._queries.keeper(run.link, task)))

    async def _watch_deadlines(self) -> None:
        """Give up on tasks that take too long; they began in the order in which they are kept."""
        limit = self._options.task_timeout
        while limit is not None and (self._workers or self._open):
            oldest = next(iter(self._runs.values()), None)
            if oldest is None:
                self._began_waiting = anyio.Event()
                await self._began_waiting.wait()
                continue
            left = oldest.row.since + limit - self._engine.clock.now()
            if left > 0:
                await self._pause(left)
            elif self._runs.pop(oldest.entry.position, None) is not None:
                self._give_up(oldest, limit)

    async def _pause(self, seconds: float) -> None:
        # An end of the batch in the meantime must not wait for the deadline of a job that is long done.
        self._began_waiting = anyio.Event()
        with anyio.move_on_after(seconds):
            while self._workers or self._open:
                await self._began_waiting.wait()
                self._began_waiting = anyio.Event()

    def _give_up(self, run: _Run, limit: float) -> None:
        self.counts.in_flight -= 1
        name = run.row.ask_for
        message = f"task {name} had not ended after {limit:g} s; it goes on and will be charged: attach with handle({name!r})"
        self._fail(run.entry, TaskTimeout(message, name), run.row.task, run.link.name)

    # Ending.

    def _fail(self, entry: Entry, error: KlingError, task: Task | None = None, account: str = "") -> None:
        outcome = Failed(
            key=entry.key,
            job=entry.job,
            error=error,
            task=task,
            attempts=entry.attempts,
            account=account,
            external_task_id=entry.external_task_id,
        )
        self._harvest.end(entry, outcome)

    def _deliver(self, entry: Entry, outcome: Outcome) -> None:
        self.counts.saving -= entry.saving
        self.counts.count(outcome)
        self._open -= 1
        self.outbox.put(entry.position, outcome)
        self._room.set()
        if isinstance(outcome, Failed):
            self._react(outcome)
        self._end_if_done()

    def _react(self, outcome: Failed) -> None:
        most = self._options.max_failures
        if self._options.errors == "raise":
            self._fail_fast(outcome.error)
        elif most is not None and self.counts.failed > most:
            self.stop(BatchStopped(f"more than {most} jobs failed, the last one with: {outcome.error}"))

    def taken(self) -> None:
        """Note that an outcome was taken out, so that there may be room for another job."""
        self._room.set()

    def waiting_for(self, most: int) -> dict[str, float]:
        """Name the jobs that wait for longest, at most *most*, with their seconds."""
        now = self._engine.clock.now()
        found: dict[str, float] = {}
        for run in self._runs.values():
            if len(found) == most:
                break
            found[run.entry.key] = now - run.row.since
        return found


def _single(error: Exception) -> BaseException:
    """Take a lone error out of the groups that task groups make."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
