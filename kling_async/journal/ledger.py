"""
The page of one job in the journal.

What must be on the disk before something happens is awaited (`intend`); what only records that something has happened
is noted and follows in order, because a crash before it leaves a state that is asked about on resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from kling_async._crash import crash_point
from kling_async.journal.journal import Journal
from kling_async.protocol.lifecycle import JobRecord, JobState

__all__ = ["Ledger"]


@define(eq=False, weakref_slot=False)
class Ledger:
    """
    Moves the *record* of one job and writes each move into *journal*; *wall* tells Unix time.

    *whole* is the page of the job that this is a part of.
    """

    journal: Journal
    record: JobRecord
    _wall: Callable[[], float]
    whole: Ledger | None = field(default=None, repr=False)

    async def intend(self, account: str, units: int) -> None:
        """Write down that a create is about to leave; raises `JournalError`, and then none may."""
        if self.whole is not None:
            self.whole.divide()
        self.record = self.record.moved(
            JobState.SUBMITTING, account=account, units=units, submitted_at=self._wall(), error=None
        )
        await self.journal.record(self.record)
        crash_point("after-intent")

    def divide(self) -> None:
        """Note that the job is under way in parts, which have pages of their own."""
        if self.record.state is JobState.PENDING:
            self._move(JobState.SUBMITTED, task_id="", units=0, error=None)

    def doubt(self) -> None:
        """Note that a create was sent and nobody knows what became of it."""
        if self.record.state is JobState.SUBMITTING:
            self._move(JobState.UNKNOWN)

    def made(self, task_id: str, account: str, units: int) -> None:
        """Note that the task exists."""
        crash_point("before-submitted")
        self._move(JobState.SUBMITTED, task_id=task_id, account=account, units=units)

    def free(self) -> None:
        """Note that certainly no task was made."""
        if self.record.state in {JobState.SUBMITTING, JobState.UNKNOWN}:
            self._move(JobState.PENDING, units=0)

    def succeeded(self) -> None:
        """Note that the task succeeded and its pictures are to be saved."""
        self._move(JobState.SUCCEEDED, ended_at=self._wall())
        crash_point("after-succeeded")

    def done(self, result: Mapping[str, Any]) -> None:
        """Note that all is saved; *result* is the job's line."""
        self._move(JobState.DONE, result=result, ended_at=self.record.ended_at or self._wall())

    def failed(self, result: Mapping[str, Any], *, lost: bool = False) -> None:
        """Note that the job ended without pictures; *result* is its line."""
        paid = self.record.state in {JobState.SUBMITTED, JobState.SUCCEEDED}
        to = JobState.LOST if lost and paid else JobState.FAILED
        self._move(to, result=result, error=result.get("error"), ended_at=self._wall())

    def again(self, attempt: int | None = None) -> None:
        """Begin a new attempt (by default the next one), which will have an external id of its own."""
        self._move(
            JobState.PENDING,
            attempt=self.record.attempt + 1 if attempt is None else attempt,
            external_task_id="",
            task_id="",
            units=0,
            spent=self.record.spent + self.record.units,
            submitted_at=None,
            ended_at=None,
            result=None,
            error=None,
        )

    def _move(self, to: JobState, **changes: Any) -> None:
        self.record = self.record.moved(to, **changes)
        self.journal.note(self.record)
