"""
What an earlier run left behind, taken up again.

Before anything new is sent: creates of unknown fate are asked about, tasks that run are watched and hold their slots.
Then each row of the input is told apart: new, finished, under way, or another one under an old key.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TypeAlias

import anyio
from attrs import define, field, frozen

from kling_async.batch.changes import changed
from kling_async.batch.entries import Entry, Input, entries, external_id
from kling_async.batch.manifest import Manifest, Passed
from kling_async.batch.options import BatchOptions
from kling_async.batch.origin import Origin
from kling_async.batch.outcomes import Skipped
from kling_async.batch.owners import Owner
from kling_async.batch.past import Past
from kling_async.batch.reopening import reopen
from kling_async.batch.sinks import Folder
from kling_async.client.creation import Order, Rules
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.logs import about
from kling_async.client.queries import Queries
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Pass
from kling_async.errors import JournalError, KlingError, SubmissionUnknown, TaskNotFound
from kling_async.journal.journal import Journal
from kling_async.journal.ledger import Ledger
from kling_async.journal.storage import Storage
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import FINISHED, LIVE, JobRecord, JobState
from kling_async.protocol.parts import part_job, part_key
from kling_async.protocol.pictures import Fitted

__all__ = ["Attach", "Disposition", "Divide", "Refuse", "Resumption", "Skip", "Submit"]

_log = logging.getLogger("kling_async")

# Look-ups of creates of unknown fate that go on at once.
_LOOKUPS_AT_ONCE = 32


@frozen
class Submit:
    """The row is to be sent."""


@frozen
class Skip:
    """There is nothing to do for the row, because of *reason*; *earlier* is how it ended before, and *past* knows more."""

    reason: str
    earlier: str
    past: Past

    def outcome(self, key: str) -> Skipped:
        """Return the outcome of the row called *key*."""
        return Skipped(key=key, reason=self.reason, earlier=self.earlier, past=self.past)


@frozen
class Refuse:
    """The row cannot be done because of *error*."""

    error: KlingError


@frozen
class Attach:
    """The row's task exists: *row* is looked after on *link*. It costs *units* that the journal did not know of."""

    link: Link
    row: Tracked
    units: int = 0


@frozen
class Divide:
    """The job is under way in parts, which are to be continued."""


Disposition: TypeAlias = Submit | Skip | Refuse | Attach | Divide


@define(eq=False)
class Resumption:
    """The rows of an earlier run in *journal*; `begin()` first, then `place()` each entry of the input."""

    journal: Journal
    _engine: Engine
    _queries: Queries
    _options: BatchOptions = field(kw_only=True)
    # If the folder has a history and the journal is new all the same, it was lost.
    _folder: Folder | None = field(kw_only=True)
    # The journal held nothing when it was opened, so nothing need be looked up.
    _fresh: bool = field(default=True, init=False)
    _attached: dict[str, Attach] = field(factory=dict, init=False)
    _ledgers: dict[str, Ledger] = field(factory=dict, init=False)
    committed: int = field(default=0, init=False)
    # For rows that were done before this run.
    done: Skip = field(init=False)
    _owner: Owner = field(init=False)

    def __attrs_post_init__(self) -> None:
        past = Past(self.journal.path, self._folder.path if self._folder else None, self.journal)
        self.done = Skip("done already", "succeeded", past)
        self._owner = Owner(self._queries, self.journal, self._folder)

    async def begin(self) -> None:
        """
        Ask about what is unknown and watch what runs.

        Raises what `Engine` raises for an account that is gone, `JournalError` for a budget whose use is not known, and
        `ConfigError` where real and emulated results would mix.
        """
        if await self._owner.has_changed() and (forgotten := await reopen(self.journal, LIVE)):
            _log.warning("%d jobs begin again, since their tasks went with another emulator", forgotten)
        live = await self.journal.ask(Storage.live)
        totals = await self.journal.ask(Storage.totals)
        self._fresh = not totals
        if self.journal.is_new and self._folder is not None and self._folder.has_history:
            # Written down, since a run that is cut short here must not leave a journal that looks complete.
            await self.journal.mark_rebuilt(lost=True)
        if self.journal.lost and self._options.budget is not None:
            raise JournalError(
                f"the journal {self.journal.path} was lost, and with it what the run has spent of its budget; "
                "'kling-async recover' finds its tasks again: then run again with the budget"
            )
        if self.journal.rebuilt:
            # A task that the lost journal knew may be so young that the service does not find it yet.
            await self._engine.clock.sleep(self._queries.rules.timeouts.settle)
        limiter = anyio.Semaphore(_LOOKUPS_AT_ONCE)
        async with anyio.create_task_group() as group:
            for record in live:
                ledger = self._ledgers[record.key] = self._ledger(record)
                if record.state in {JobState.SUBMITTING, JobState.UNKNOWN}:
                    await limiter.acquire()
                    group.start_soon(self._clear_up, ledger, limiter.release)
                elif not record.divided:
                    await self._watch(ledger)
        await self.journal.flush()
        # Not before: what was cleared up may have turned out to cost nothing.
        self.committed = await self.journal.ask(Storage.committed_units)

    async def submit(self, order: Order, rules: Rules) -> tuple[Link, Tracked]:
        """Make the task of *order*; who made it, or refused to, is on the disk before anything that came of it."""
        try:
            return await self._engine.submit(order, rules)
        finally:
            await self._owner.sign()

    def source(self, jobs: Iterable[Input] | AsyncIterable[Input]) -> AsyncGenerator[Entry | Passed, None]:
        """Return the entries of *jobs*; what was done before is passed over as quickly as can be."""
        origin = Origin(self.journal.pictures, self.journal.note_pictures)
        if self._fresh:
            return entries(jobs, origin)
        if isinstance(jobs, Manifest) and origin.covers(jobs.base):
            return self._undone(entries(jobs.unless(self.journal.rows_done), origin))
        return self._undone(entries(jobs, origin))

    async def _undone(
        self, source: AsyncGenerator[Entry | Passed, None]
    ) -> AsyncGenerator[Entry | Passed, None]:
        async with aclosing(source):
            async for entry in source:
                if isinstance(entry, Entry) and self._is_done(entry):
                    yield Passed(keys=(entry.key,))
                else:
                    yield entry

    def _is_done(self, entry: Entry) -> bool:
        """Tell whether an earlier run has done *entry*; reads far less than its page."""
        fingerprint = None if entry.job is None else self.journal.done(entry.key)
        return fingerprint is not None and fingerprint == entry.fingerprint()

    async def place(self, entry: Entry) -> Disposition:
        """Say what is to be done for *entry*, and give it its page in the journal."""
        disposition = await self._place(entry)
        # A journal that may lack tasks is no proof that there is none.
        if self.journal.rebuilt and isinstance(disposition, Submit):
            disposition = await self._look(entry)
        if isinstance(disposition, Submit) and self._folder is not None and entry.whole is None:
            trouble = await self._folder.make_way(entry)
            return disposition if trouble is None else Refuse(trouble)
        ledger = entry.ledger
        if isinstance(disposition, Skip) and entry.whole is not None and ledger and ledger.record.task_id:
            # The job needs the task of this part again, though the part itself is over.
            await self._watch(ledger)
            return self._attached.pop(entry.key, disposition)
        return disposition

    def parts_of(self, entry: Entry) -> int | None:
        """Say into how many parts the job of *entry* was divided; None if no part of it may have been sent."""
        if self._fresh or entry.job is None:
            return None
        counts = range(1, entry.job.n + 1)
        return next((count for count in counts if self._has_parts(entry.key, entry.job, count)), None)

    def _has_parts(self, key: str, job: MultiImage, count: int) -> bool:
        for number in range(1, count + 1):
            page = self.journal.find(part_key(key, number, count))
            if page is None or (page.state is JobState.PENDING and not page.attempt):
                continue
            if page.fingerprint == part_job(job, number, count).fingerprint():
                return True
        return False

    async def _place(self, entry: Entry) -> Disposition:
        assert entry.job is not None, "a row that is no job has no page"
        ledger = self._ledgers.pop(entry.key, None)
        if ledger is None:
            found = None if self._fresh else self.journal.find(entry.key)
            ledger = self._ledger(found or JobRecord(key=entry.key))
        entry.ledger = ledger
        fingerprint = entry.fingerprint()
        if ledger.record.state is not JobState.PENDING and ledger.record.fingerprint != fingerprint:
            refusal = await self._start_over(entry, ledger)
            if refusal is not None:
                return refusal
        if ledger.record.state is JobState.PENDING:
            entry.attempts = ledger.record.attempt
            ledger.record = ledger.record.revised(
                fingerprint=fingerprint,
                external_task_id=external_id(self.journal.run, entry),
                model=entry.job.model_name,
                slots=entry.job.slots,
                row=entry.row,
            )
        entry.external_task_id = ledger.record.external_task_id
        entry.attempts = ledger.record.attempt
        told = (ledger.record.result or {}).get("fitted", ())
        entry.fitted = tuple(Fitted.from_json(each) for each in told)
        return self._place_known(entry.key, ledger.record)

    async def _look(self, entry: Entry) -> Disposition:
        """Ask whether a lost journal has known a task of *entry*."""
        assert entry.ledger is not None, "an entry that is placed has a page"
        try:
            link, task = await self._queries.find(entry.external_task_id)
        except TaskNotFound:
            return Submit()
        except KlingError as error:
            return Refuse(error)
        units = entry.job.units if entry.job else 0
        entry.ledger.made(task.task_id, link.name, units)
        await self._watch(entry.ledger)
        found = self._attached.pop(entry.key)
        return Attach(found.link, found.row, units)

    def left(self) -> list[tuple[str, Ledger, Attach]]:
        """Take out the tasks under way whose rows the input no longer has."""
        attached, self._attached = self._attached, {}
        # Without its page it is a row that was refused, because it changed while its task runs.
        return [
            (key, self._ledgers.pop(key), attach) for key, attach in attached.items() if key in self._ledgers
        ]

    def _place_known(self, key: str, record: JobRecord) -> Disposition:
        if record.state is JobState.PENDING:
            return Submit()
        if record.state is JobState.DONE:
            return self.done
        if record.state in FINISHED:
            message = (record.error or {}).get("message", "no reason recorded")
            return Skip(f"failed before ({message}); 'retry' tries it again", "failed", self.done.past)
        attach = self._attached.pop(key, None)
        if attach is not None:
            return attach
        if record.divided:
            return Divide()
        name = record.external_task_id
        if record.state in {JobState.SUBMITTED, JobState.SUCCEEDED}:
            message = f"task {name} belongs to account {record.account!r}, which this client lacks; run again with it"
        else:
            message = (
                f"it is still not known whether task {name} was made; nothing was sent again: run again later"
            )
        return Refuse(SubmissionUnknown(message, name))

    async def _start_over(self, entry: Entry, ledger: Ledger) -> Refuse | None:
        """Begin a new attempt for a row that changed under its key, if that is wanted and can be."""
        finished = ledger.record.state in FINISHED
        if finished and self._options.update:
            if self._folder is not None:
                # The new pictures will have the same names.
                await self._folder.set_aside(ledger.record)
            # Other content has another external id already, unless the caller names it. The count begins anew then, so
            # that a run that has lost its journal looks for the same id.
            named = entry.job is not None and entry.job.external_task_id is not None
            ledger.again(ledger.record.attempt + 1 if named else 0)
            return None
        entry.ledger = None
        # Its task, if it runs, keeps its slots and its page, but is nobody's in this run.
        self._attached.pop(entry.key, None)
        return Refuse(changed(ledger.record.state))

    def _ledger(self, record: JobRecord) -> Ledger:
        return Ledger(self.journal, record, self._engine.clock.wall)

    def _link(self, record: JobRecord) -> Link | None:
        named = (link for link in self._engine.links if link.name == record.account)
        return next(named, None)

    async def _clear_up(self, ledger: Ledger, done: Callable[[], None]) -> None:
        try:
            await self._find(ledger)
        finally:
            done()

    async def _find(self, ledger: Ledger) -> None:
        record = ledger.record
        ledger.doubt()
        try:
            found = await self._queries.clear_up(record.account, record.external_task_id)
        except SubmissionUnknown as error:
            fields = about(record, error=error)
            _log.warning("job %s: %s", record.key, error, extra=fields)
            return
        if found is None:
            ledger.free()
        else:
            ledger.made(found[1].task_id, found[0].name, record.units)
            await self._watch(ledger)

    async def _watch(self, ledger: Ledger) -> None:
        record = ledger.record
        link = self._link(record)
        if link is None:
            _log.warning(
                "job %s is under way on account %r, which this client lacks",
                record.key,
                record.account,
                extra=about(record),
            )
            return
        turnstile = await link.lane(record.model, self._queries.rules.timeouts)
        now, wall = self._engine.clock.now(), self._engine.clock.wall()
        ticket = Pass(record.slots, job=record.external_task_id)
        if record.state is JobState.SUBMITTED:
            turnstile.adopt(ticket)
        row = Tracked(
            path=self._queries.path,
            ask_for=record.task_id,
            external_task_id=record.external_task_id,
            key=record.key,
            expected=record.slots,
            since=now - max(0.0, wall - (record.submitted_at or wall)),
            ticket=ticket,
            turnstile=turnstile,
        )
        self._attached[record.key] = Attach(link, self._engine.poller.resume(link, row))
