"""Jobs that begin again: those that failed, and those whose tasks went with an emulator."""

from __future__ import annotations

import time
from collections.abc import Collection

from attrs import evolve

from kling_async.journal.journal import Journal
from kling_async.journal.ledger import Ledger
from kling_async.protocol.lifecycle import JobRecord, JobState
from kling_async.protocol.parts import is_part, whole_key

__all__ = ["failure_code", "reopen"]


def failure_code(record: JobRecord) -> str:
    """Name why a job failed: the service's code, else the kind of error."""
    error = record.error or {}
    return str(error.get("code") or error.get("type") or "unknown")


async def reopen(journal: Journal, states: Collection[JobState], codes: Collection[str] = ()) -> int:
    """Let jobs in one of *states* begin again, with *codes* only those that failed with one of them; returns how many."""
    records = await journal.ask(
        lambda storage: [record for record in storage.all() if record.state in states]
    )
    jobs = [record for record in records if not is_part(record.key)]
    keys = {record.key for record in jobs if not codes or failure_code(record) in codes}
    for record in records:
        # What failed of a job in parts is tried again with it; what was made of it is kept.
        if whole_key(record.key) in keys:
            _begin_again(Ledger(journal, record, time.time))
    await journal.flush()
    return len(keys)


def _begin_again(ledger: Ledger) -> None:
    if ledger.record.state in {JobState.SUBMITTING, JobState.UNKNOWN}:
        ledger.free()
    elif ledger.record.state in {JobState.SUBMITTED, JobState.SUCCEEDED}:
        ledger.failed({"error": {"type": "Forgotten"}})
        ledger.record = evolve(ledger.record, units=0)
        ledger.again()
    else:
        ledger.again()
