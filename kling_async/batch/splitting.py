"""
Jobs that no account of the client can ever hold at once, made as several tasks and joined into one outcome (R3).

Each part is an entry of its own, with a page of its own in the journal: it is placed, submitted and waited for as any
job is, so that a crash finds it again and nothing is paid twice. The job itself only sums up. A part that fails ends
the job: parts not sent by then stay unsent, parts under way are awaited and their tasks are told with the failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import define, field

from kling_async.batch.counts import Counts
from kling_async.batch.entries import Entry
from kling_async.batch.harvest import Crop
from kling_async.batch.resume import Attach, Disposition, Refuse, Skip, Submit
from kling_async.batch.sinks import describe_error
from kling_async.batch.waiting import Run
from kling_async.client.engine import Engine
from kling_async.client.link import Link
from kling_async.client.queries import Queries
from kling_async.client.results import Keeper
from kling_async.client.tracked import Tracked
from kling_async.errors import BatchStopped, BudgetSpent, KlingError
from kling_async.protocol.codec import bind
from kling_async.protocol.lifecycle import JobState, is_final, is_lost
from kling_async.protocol.parts import Made, fewest_parts, join, part_job, part_key
from kling_async.protocol.tasks import Task

__all__ = ["Crew", "Division", "Splitter", "divide"]


class Crew(Protocol):
    """What a runner does for each part as for any job, and for the job in the end."""

    counts: Counts

    def parts_before(self, entry: Entry) -> int | None:
        """Say into how many parts an earlier run has divided *entry*; None if it sent none."""

    async def place(self, entry: Entry) -> Disposition:
        """Say what is to be done for *entry*."""

    async def make(self, entry: Entry) -> tuple[Link, Tracked]:
        """Make the task of *entry*; raises `KlingError`."""

    def heed(self, entry: Entry, error: KlingError) -> bool:
        """Draw the consequences of a task not made; True if the trouble is the job's own, or the task may be there."""

    def begin_waiting(self, run: Run) -> None:
        """Wait for the end of *run*."""

    def drop(self, entry: Entry) -> None:
        """Leave *entry* undone, without an outcome."""

    def bring(self, crop: Crop) -> None:
        """Take in what was made."""

    def fail(self, entry: Entry, error: KlingError, task: Task | None = None, account: str = "") -> None:
        """Take in how *entry* failed."""


@define(eq=False)
class Division:
    """
    One job in *parts*: what was *made* so far, by the number of the part, and the first *error*.

    *open* counts parts under way, and one more while parts are being sent. *begun* says that there is, or may be, a
    task, or that the job itself was refused; before that the job can still be left undone.
    """

    entry: Entry
    parts: tuple[Entry, ...]
    open: int = field(init=False, default=1)
    begun: bool = field(init=False, default=False)
    in_flight: bool = field(init=False, default=False)
    error: KlingError | None = field(init=False, default=None)
    made: dict[int, tuple[Link, Task]] = field(init=False, factory=dict)

    def fail(self, error: KlingError) -> None:
        """Note *error*; the first one stays."""
        self.error = self.entry.broken = self.error or error

    def tasks(self) -> dict[int, Task]:
        """Return the tasks as they were last seen, by the number of their part."""
        return {number: task for number, (_, task) in sorted(self.made.items())}

    def join(self, tasks: Mapping[int, Task]) -> Task:
        """Make one task of *tasks*; each picture keeps its place in the whole, whatever is missing."""
        sizes = [part.job.n for part in self.parts if part.job is not None]
        return join([Made(task, sum(sizes[: number - 1])) for number, task in sorted(tasks.items())])


def divide(entry: Entry, count: int) -> tuple[Entry, ...]:
    """Return the parts of *entry*, *count* of them, as entries."""
    assert entry.job is not None, "a row that is no job has no parts"
    return tuple(
        Entry(
            position=entry.position,
            key=part_key(entry.key, number, count),
            job=part_job(entry.job, number, count),
            whole=entry,
            number=number,
        )
        for number in range(1, count + 1)
    )


@define(eq=False)
class Splitter:
    """Makes jobs as several tasks, with the help of the batch's *crew*."""

    _crew: Crew = field(repr=False)
    _engine: Engine = field(repr=False)
    _queries: Queries = field(repr=False)
    _divisions: dict[int, Division] = field(init=False, factory=dict, repr=False)

    async def needs(self, entry: Entry) -> bool:
        """Tell whether the job of *entry* is more than any account can ever hold."""
        assert entry.job is not None, "a row that is no job is not sent"
        most = await self._most(entry)
        return most is not None and entry.job.slots > most

    async def _most(self, entry: Entry) -> int | None:
        assert entry.job is not None, "a row that is no job is not sent"
        if entry.job.slots == 1:
            return None
        return await self._engine.ceiling(entry.job.model_name, self._queries.rules.timeouts)

    async def run(self, entry: Entry) -> None:
        """Make all parts of *entry*, as far as they are not made yet; returns when the last one is sent."""
        count = self._crew.parts_before(entry) or await self._fewest(entry)
        division = Division(entry, divide(entry, count))
        self._divisions[entry.position] = division
        placed = [(part, await self._place(part)) for part in division.parts]
        self._commit(division, [part for part, what in placed if isinstance(what, Submit)])
        for part, what in placed:
            if isinstance(what, Submit):
                await self._send(part, division)
            elif isinstance(what, Attach):
                self._wait(Run(part, what.link, what.row), division)
            else:
                division.begun = True
                division.fail(_why_not(part, what))
        self._close_one(division)

    async def _fewest(self, entry: Entry) -> int:
        assert entry.job is not None, "a row that is no job is not sent"
        most = await self._most(entry)
        return 1 if most is None else fewest_parts(entry.job.n, most)

    async def _place(self, part: Entry) -> Disposition:
        what = await self._crew.place(part)
        if part.ledger is not None and part.whole is not None:
            part.ledger.whole = part.whole.ledger
        return what

    def _commit(self, division: Division, parts: list[Entry]) -> None:
        """Commit all that is to be sent, so that no job is begun that the budget cannot end."""
        try:
            for part in parts:
                self._crew.counts.commit(part)
        except BudgetSpent as error:
            self._crew.heed(division.entry, error)
            division.fail(error)

    async def _send(self, part: Entry, division: Division) -> None:
        if division.error is not None:
            self._crew.counts.take_back(part)
            return
        try:
            link, row = await self._crew.make(part)
        except KlingError as error:
            division.begun |= self._crew.heed(part, error)
            division.fail(error)
        else:
            self._wait(Run(part, link, row), division)

    def _wait(self, run: Run, division: Division) -> None:
        division.open += 1
        division.begun = True
        if not division.in_flight:
            division.in_flight = True
            self._crew.counts.in_flight += 1
        self._crew.begin_waiting(run)

    def ended(self, run: Run, error: KlingError | None) -> None:
        """Take in the end of a part; *error* says why it has no pictures."""
        part = run.entry
        assert part.whole is not None, "only parts are brought here"
        division = self._divisions[part.whole.position]
        if run.row.task is not None:
            division.made[part.number] = (run.link, run.row.task)
        if error is not None:
            division.fail(error)
        _note(part, error)
        self._close_one(division)

    def _close_one(self, division: Division) -> None:
        division.open -= 1
        if not division.open:
            del self._divisions[division.entry.position]
            self._crew.counts.in_flight -= division.in_flight
            self._end(division)

    def _end(self, division: Division) -> None:
        entry = division.entry
        if division.error is not None and not division.begun:
            self._crew.drop(entry)
            return
        entry.attempts += 1
        entry.parts = division.parts
        entry.tasks = tuple(division.tasks().values())
        ids = (part.external_task_id for part in division.parts)
        entry.external_task_id = ",".join(name for name in ids if name)
        account = ",".join(dict.fromkeys(link.name for link, _ in division.made.values()))
        if not division.made:
            assert division.error is not None, "without an error every part has a task"
            self._crew.fail(entry, division.error, None, account)
            return
        joined = division.join(division.tasks())
        keeper = self._keeper(division, joined, account)
        task = bind(joined, keeper)
        if division.error is not None:
            self._crew.fail(entry, division.error, task, account)
        else:
            self._crew.bring(Crop(entry, task, account, keeper))

    def _keeper(self, division: Division, joined: Task, account: str) -> Keeper:
        async def retrieve() -> Task:
            made = division.made.items()
            return division.join(
                {number: await self._queries.task(link, task.task_id) for number, (link, task) in made}
            )

        full = self._queries.full
        return Keeper(self._queries.engine.downloads, division.entry.key, joined, account, retrieve, full)


def _why_not(part: Entry, what: Disposition) -> KlingError:
    if isinstance(what, Refuse):
        return what.error
    reason = what.reason if isinstance(what, Skip) else "it cannot be continued"
    return BatchStopped(f"{part.shown}: {reason}")


def _note(part: Entry, error: KlingError | None) -> None:
    """Note the end of *part* on its page, unless it has been noted before or is no end."""
    ledger = part.ledger
    if ledger is None or ledger.record.state not in {JobState.SUBMITTED, JobState.SUCCEEDED}:
        return
    if error is not None and is_final(ledger.record.state, error):
        row = {"key": part.shown, "task_id": ledger.record.task_id, "error": describe_error(error)}
        ledger.failed(row, lost=is_lost(error))
    elif error is None and ledger.record.state is JobState.SUBMITTED:
        ledger.succeeded()
