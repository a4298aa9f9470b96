"""Single creates in a client's journal: a page before the create leaves, closed when the task has ended."""

from __future__ import annotations

from kling_async.client.engine import Engine
from kling_async.client.queries import Queries
from kling_async.client.tracked import Tracked
from kling_async.errors import InvalidJob, TaskNotFound
from kling_async.journal.ledger import Ledger
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import LIVE, JobRecord, JobState
from kling_async.protocol.tasks import TaskStatus

__all__ = ["attach_page", "close_page_with", "open_page"]


async def open_page(engine: Engine, job: MultiImage, external_task_id: str) -> Ledger | None:
    """
    Begin the page of *job*, named by its external id; None if the client keeps no journal.

    Raises `InvalidJob` if the id was used before: a second create could only be the same task again.
    """
    journal = await engine.journal()
    if journal is None:
        return None
    known = journal.find(external_task_id)
    if known is not None and known.state in LIVE:
        # Its create may have failed just now, which is noted and not yet on the disk.
        known = await journal.ask(lambda storage: storage.get(external_task_id))
    if known is not None and known.state is not JobState.PENDING:
        remedy = "take its handle from pending()" if known.state in LIVE else "use another id"
        raise InvalidJob.because(
            "external_task_id", "one that was not used before", repr(external_task_id), remedy
        )
    record = JobRecord(
        key=external_task_id,
        fingerprint=job.fingerprint(),
        external_task_id=external_task_id,
        model=job.model_name,
        slots=job.slots,
    )
    return Ledger(journal, record, engine.clock.wall)


async def attach_page(queries: Queries, ledger: Ledger) -> Tracked:
    """
    Look after the task that *ledger* tells of, left over from an earlier run.

    Raises `TaskNotFound` if its create turns out to have made none, and `SubmissionUnknown` if that cannot be found out.
    """
    record = ledger.record
    if record.state in {JobState.SUBMITTING, JobState.UNKNOWN}:
        ledger.doubt()
        found = await queries.clear_up(record.account, record.external_task_id)
        if found is None:
            ledger.free()
            # On the disk before anybody is told: whoever hears it may use the id again at once.
            await ledger.journal.flush()
            raise TaskNotFound(f"the create of {record.external_task_id} made no task", 1201, 400)
        ledger.made(found[1].task_id, found[0].name, record.units)
    row = await queries.attach(ledger.record.task_id)
    close_page_with(row, ledger)
    return row


def close_page_with(row: Tracked, ledger: Ledger) -> None:
    """Note the end of the task in *row* on its page."""
    row.listen(lambda ended: _close_page(ended, ledger) if ended.over else None)
    if row.over:
        _close_page(row, ledger)


def _close_page(row: Tracked, ledger: Ledger) -> None:
    if ledger.record.state is not JobState.SUBMITTED:
        return
    if row.task is not None and row.error is None:
        status = {"task_id": row.task.task_id, "status": str(row.task.status.value)}
        if row.task.status == TaskStatus.SUCCEED:
            ledger.done(status)
        else:
            error = {"type": "TaskFailed", "message": row.task.status_message}
            ledger.failed(status | {"error": error})
    elif isinstance(row.error, TaskNotFound):
        ledger.failed({"error": {"type": "TaskNotFound", "message": str(row.error)}}, lost=True)
