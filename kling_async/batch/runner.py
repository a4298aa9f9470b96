"""
The engine room of a batch.

A few workers share the input. Each takes a job, submits it, and goes on: the job then only waits, as a row at the
poller and no task of asyncio. When its task ends the harvest brings it in.

    input ──workers──> waiting ──harvest──> outbox

Nothing here raises for one job: its trouble is its outcome. What stops a batch as a whole (an account that cannot
pay, a budget, a long outage) ends the submitting; what runs is collected, and the error comes after the last outcome.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import AsyncExitStack

import anyio
from anyio.abc import TaskGroup
from attrs import define, evolve, field

from kling_async._crash import crash_point
from kling_async.batch.counts import Counts
from kling_async.batch.entries import Entry, Input, entries, external_id
from kling_async.batch.harvest import Crop, Harvest, failed, in_words
from kling_async.batch.intake import Intake
from kling_async.batch.manifest import Passed
from kling_async.batch.options import BatchOptions
from kling_async.batch.outbox import Outbox
from kling_async.batch.outcomes import Failed, Outcome
from kling_async.batch.resume import Attach, Disposition, Divide, Refuse, Resumption, Skip, Submit
from kling_async.batch.sinks import Folder
from kling_async.batch.splitting import Splitter
from kling_async.batch.waiting import Run, Waiting
from kling_async.client.creation import Rules
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.multi_image import prepare
from kling_async.client.queries import Queries
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Party
from kling_async.errors import BatchStopped, BudgetSpent, KlingError, SubmissionUnknown, TaskTimeout
from kling_async.journal.journal import Journal
from kling_async.protocol.parts import shown_key
from kling_async.protocol.tasks import Task
from kling_async.protocol.verdict import Verdict, judge

__all__ = ["Runner"]

# Outcomes that may wait to be taken, and jobs whose pictures may wait to be saved, before no more input is taken.
_BACKLOG = 64
_WINDOW = 1024  # places that in-order outcomes may be ahead of the slowest job
# Workers wait at their lane, which fills less well with fewer to choose from; with pictures in memory fewer wait.
_MOST_WORKERS = 128
_MOST_BYTES_WAITING = 256_000_000
_GRACE = 10.0  # seconds that leaving a batch waits for creates under way


@define(eq=False)
class Runner:
    """Runs the jobs of one batch; `run()` is its life, *outbox* what comes out of it, *error* why it stopped."""

    _engine: Engine
    _queries: Queries
    _options: BatchOptions
    _folder: Folder | None
    _jobs: Iterable[Input] | AsyncIterable[Input]
    _rules: Rules
    party: Party
    outbox: Outbox
    counts: Counts
    error: BaseException | None = field(default=None, init=False)
    waiting: Waiting = field(init=False)
    _harvest: Harvest = field(init=False)
    _splitter: Splitter = field(init=False)
    _intake: Intake[Entry | Passed] = field(init=False)
    _resumption: Resumption | None = field(default=None, init=False)
    # Without a journal, part of every external id, so that two runs of the same jobs make tasks of their own.
    _name: str = field(init=False)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    # Why nothing more is sent, once somebody stopped the batch.
    halted: BatchStopped | None = field(default=None, init=False)
    _workers: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _open: int = field(default=0, init=False)

    @classmethod
    def of(
        cls,
        engine: Engine,
        queries: Queries,
        jobs: Iterable[Input] | AsyncIterable[Input],
        options: BatchOptions,
    ) -> Runner:
        """Put the runner of *jobs* together; nothing happens before `run()`."""
        party = Party()
        rules = evolve(queries.rules, persistent=True, stall_after=options.stall_after, party=party)
        return cls(
            engine=engine,
            queries=queries,
            options=options,
            folder=Folder.at(options),
            jobs=jobs,
            rules=rules,
            party=party,
            outbox=Outbox(options.in_order),
            counts=Counts(engine, options),
        )

    def __attrs_post_init__(self) -> None:
        waits = isinstance(self._jobs, AsyncIterable)
        self._intake = Intake(entries(self._jobs), self._has_room, waits)
        self._name = secrets.token_hex(8)
        self._harvest = Harvest(self._folder, self._deliver, self.stop)
        self.waiting = Waiting(self._engine.clock, self._options.task_timeout, self._end_waiting)
        self._splitter = Splitter(self, self._engine, self._queries)

    # The life of a batch.

    async def run(self) -> None:
        """Run until the input is used up or the batch is stopped, and all that is under way has come to its end."""
        journal: Journal | None = None
        self._engine.resume()
        try:
            with self._scope:
                if self._folder is not None:
                    await self._folder.open(self._options.journal_path)
                if (path := self._options.journal_path) is not None:
                    opening = self._folder.open_journal(path) if self._folder else Journal.open(path)
                    journal = await opening
                    await self._resume(journal)
                async with anyio.create_task_group() as group:
                    self._harvest.start(group)
                    group.start_soon(self.waiting.watch)
                    self._add_worker(group)
        except Exception as error:  # noqa: BLE001  # handed to whoever iterates
            self.error = self.error or error
        finally:
            await self._leave(journal)

    async def _resume(self, journal: Journal) -> None:
        if self._folder is not None:
            await self._folder.mend(journal)
        self._harvest.journal = journal
        self._resumption = Resumption(
            journal, self._engine, self._queries, options=self._options, folder=self._folder
        )
        await self._resumption.begin()
        self._intake.source = self._resumption.source(self._jobs)
        self.counts.units_committed = self._resumption.committed

    async def _leave(self, journal: Journal | None) -> None:
        self._intake.stop()
        self._engine.dismiss(self.party, BatchStopped("the batch was left"))
        async with AsyncExitStack() as ends:  # said last is done first, also if another is cut off
            ends.enter_context(anyio.CancelScope(shield=True))
            ends.callback(self.outbox.close)
            ends.callback(self.counts.finish)
            if self._folder is not None:
                ends.callback(self._folder.close)
            if journal is not None:
                ends.push_async_callback(journal.aclose)
            ends.push_async_callback(self._intake.aclose)
            # Their tasks go on at the poller, but what becomes of them is nobody's business here any more.
            ends.callback(self._harvest.abandon)
            ends.callback(self.waiting.leave)
            with anyio.move_on_after(_GRACE):
                # A create under way may be a paid task: it is carried to its end before the batch is gone.
                await self.party.quiet()
        own = None if self.halted and self.counts.has_room_again(self.error) else self.error
        self.error = own or (journal.failure if journal is not None else None)

    def stop(self, error: Exception | None = None) -> None:
        """Submit nothing more; what runs is collected. With *error*, the batch ends with it."""
        if self.halted is None:
            self.halted = BatchStopped("the batch was stopped before this job was sent")
            self.error = error or self.error  # a budget that was reached before left jobs to send
            self._intake.stop()
            self._engine.dismiss(self.party, self.halted)

    def cancel(self) -> None:
        """Leave at once; tasks that run at the service go on."""
        self._scope.cancel()

    def _end_if_done(self) -> None:
        if not self._workers and not self._open:
            self._harvest.close()
            self.waiting.close()

    # Taking jobs.

    def _add_worker(self, group: TaskGroup) -> None:
        self._workers += 1
        group.start_soon(self._work, group)

    async def _work(self, group: TaskGroup) -> None:
        while (entry := await self._next()) is not None:
            if self._workers < _MOST_WORKERS and self._bytes < _MOST_BYTES_WAITING:
                self._add_worker(group)
            if entry.error is not None:
                self.fail(entry, entry.error)
                continue
            size = entry.bytes_held()
            self._bytes += size
            try:
                await self._dispose(entry, await self.place(entry))
            finally:
                self._bytes -= size
        self._workers -= 1
        self._end_if_done()

    async def _next(self) -> Entry | None:
        """Take a job that may need something from the input; None when there is none left or the batch stops."""
        while True:
            try:
                entry = await self._intake.take()
            except Exception as error:  # noqa: BLE001  # the caller's iterable may raise anything
                # What runs is paid for, so it is collected before whoever iterates is told.
                self.stop(error)
                return None
            if isinstance(entry, Passed):
                self._pass_over(entry.keys)
                continue
            if entry is not None:
                self._count_in()
                crash_point("after-row")
            elif self._intake.ended and not self.counts.complete:
                self.counts.complete = True
                self._take_leftovers()
            return entry

    def _pass_over(self, keys: Sequence[str]) -> None:
        """Deliver the outcomes of rows that were done before; a million, perhaps."""
        assert self._resumption is not None, "only a journal knows of rows that were done before"
        for position, key in enumerate(keys, self.counts.taken):
            self.outbox.put(position, self._resumption.done.outcome(key))
        self.counts.taken += len(keys)
        self.counts.skipped += len(keys)

    def _count_in(self) -> None:
        self.counts.taken += 1
        self._open += 1

    def _has_room(self) -> bool:
        if self.outbox.backlog + self.counts.saving >= _BACKLOG:
            return False
        return not self._options.in_order or self.counts.taken - self.outbox.next_position < _WINDOW

    def _take_leftovers(self) -> None:
        """Bring in tasks of an earlier run whose rows are gone: they are paid for."""
        for key, ledger, attach in self._resumption.left() if self._resumption else ():
            entry = Entry(
                position=self.counts.taken, key=shown_key(key), ledger=ledger, attempts=ledger.record.attempt
            )
            entry.external_task_id = ledger.record.external_task_id
            self._count_in()
            self.begin_waiting(Run(entry, attach.link, attach.row))

    def parts_before(self, entry: Entry) -> int | None:
        """Say into how many parts an earlier run has divided *entry*; None if it sent none."""
        return self._resumption.parts_of(entry) if self._resumption is not None else None

    async def place(self, entry: Entry) -> Disposition:
        """Say what is to be done for *entry*, and name its task."""
        if self._resumption is not None:
            return await self._resumption.place(entry)
        entry.external_task_id = external_id(self._name, entry)
        return Submit()

    async def _dispose(self, entry: Entry, disposition: Disposition) -> None:
        if isinstance(disposition, Submit):
            if self._options.split and await self._splitter.needs(entry):
                await self._splitter.run(entry)
            else:
                await self._submit(entry)
        elif isinstance(disposition, Divide):
            await self._splitter.run(entry)
        elif isinstance(disposition, Attach):
            self.counts.units_committed += disposition.units
            self.begin_waiting(Run(entry, disposition.link, disposition.row))
        elif isinstance(disposition, Refuse):
            self.fail(entry, disposition.error)
        elif isinstance(disposition, Skip):
            self._deliver(entry, disposition.outcome(entry.key))

    # Submitting.

    async def _submit(self, entry: Entry) -> None:
        try:
            link, row = await self.make(entry)
        except KlingError as error:
            if self.heed(entry, error):
                self.fail(entry, error)
            else:
                self.drop(entry)
        else:
            self.begin_waiting(Run(entry, link, row))

    async def make(self, entry: Entry) -> tuple[Link, Tracked]:
        """Make the task of *entry* as soon as there are slots for it; raises `KlingError`."""
        assert entry.job is not None, "rows that are no job have an error"
        whole = entry.whole or entry
        name, page, veto = entry.external_task_id, entry.ledger, entry.veto
        order = await prepare(self._queries, entry.job, name, key=whole.key, ledger=page, veto=veto)
        whole.fitted = order.fitted
        if not entry.committed:
            self.counts.commit(entry)
        made = await (self._resumption or self._engine).submit(order, self._rules)
        self.counts.creates += 1
        return made

    def heed(self, entry: Entry, error: KlingError) -> bool:
        """Draw the consequences of a task not made; True if the trouble is the job's own, or the task may be there."""
        if isinstance(error, SubmissionUnknown):
            # Its units stay committed, since there may be a task.
            entry.attempts += 1
            if (astray := error.astray) is not None:
                self.stop(astray)
            return True
        self.counts.take_back(entry)
        if judge(error) in {Verdict.REJECTED, Verdict.DUPLICATE}:
            return True
        # Not this job's trouble but the account's, the service's or ours.
        if isinstance(error, BudgetSpent):
            # What is within the budget and waits for slots is still sent.
            self.error = self.error or error
            self._intake.stop()
        elif not isinstance(error, BatchStopped):
            self.stop(error)
        return False

    def drop(self, entry: Entry) -> None:
        """Leave *entry* undone, without an outcome."""
        self.counts.dropped += 1
        self._open -= 1
        self.outbox.put(entry.position, None)
        self._end_if_done()

    # Waiting.

    def begin_waiting(self, run: Run) -> None:
        """Wait for the end of *run*."""
        run.entry.attempts += 1
        self.counts.in_flight += run.entry.whole is None
        self.waiting.add(run)

    def _end_waiting(self, run: Run, timeout: TaskTimeout | None) -> None:
        self.counts.in_flight -= run.entry.whole is None
        error = timeout or in_words(run.entry, run.row.error)
        task = run.row.task
        if error is None:
            assert task is not None, "what is over without error has a task"
            self.counts.saw_end(run.link.name, task, run.row)
            try:
                task.unwrap()
            except KlingError as reason:
                error = reason
        if run.entry.whole is not None:
            self._splitter.ended(run, error)
        elif error is not None or task is None:
            assert error is not None, "without a task there is an error"
            self.fail(run.entry, error, task, run.link.name)
        else:
            self.bring(Crop(run.entry, task, run.link.name, self._queries.keeper(run.link, task)))

    def bring(self, crop: Crop) -> None:
        """Take in what was made; its pictures are saved and its outcome is delivered."""
        self.counts.saving += 1
        crop.entry.saving = True
        self._harvest.bring(crop)

    # Ending.

    def fail(self, entry: Entry, error: KlingError, task: Task | None = None, account: str = "") -> None:
        """Take in how *entry* failed."""
        self._harvest.end(entry, failed(entry, error, task, account))

    def _deliver(self, entry: Entry, outcome: Outcome) -> None:
        self.counts.saving -= entry.saving
        self.counts.count(outcome)
        self._open -= 1
        self.outbox.put(entry.position, outcome)
        self._intake.wake()
        if isinstance(outcome, Failed):
            self._react(outcome)
        self._end_if_done()

    def _react(self, outcome: Failed) -> None:
        most = self._options.max_failures
        if self._options.errors == "raise":
            self.error = self.error or outcome.error
            self.cancel()
        elif most is not None and self.counts.failed > most:
            self.stop(BatchStopped(f"more than {most} jobs failed, the last one with: {outcome.error}"))

    def taken(self) -> None:
        """Note that an outcome was taken out, so that there may be room for another job."""
        self._intake.wake()
