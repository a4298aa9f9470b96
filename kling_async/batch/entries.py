"""One job on its way through a batch."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeAlias

from attrs import define, field

from kling_async.batch.manifest import BadRow, Row
from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MultiImage

__all__ = ["Entry", "Input", "entries", "external_id"]

Input: TypeAlias = MultiImage | Row | BadRow


@define(eq=False, kw_only=True)
class Entry:
    """
    A job of the input: *position* counts from 0, *error* is there instead of a *job* for a row that is none.

    *committed* is what it counts against the budget, in units.
    """

    position: int
    key: str
    job: MultiImage | None = field(default=None, repr=False)
    error: InvalidJob | None = None
    external_task_id: str = ""
    attempts: int = 0
    committed: int = 0
    saving: bool = False


async def entries(jobs: Iterable[Input] | AsyncIterable[Input]) -> AsyncGenerator[Entry, None]:
    """Yield the jobs of any iterable with their positions; what is no job becomes an entry with its error."""
    position = 0
    if isinstance(jobs, AsyncIterable):
        async for item in jobs:
            yield _entry(position, item)
            position += 1
    else:
        for item in jobs:
            yield _entry(position, item)
            position += 1


def _entry(position: int, item: object) -> Entry:
    if isinstance(item, MultiImage):
        return Entry(position=position, key=item.key or f"{position + 1:06d}", job=item)
    if isinstance(item, Row):
        return Entry(position=position, key=item.key, job=item.job)
    if isinstance(item, BadRow):
        return Entry(position=position, key=item.key, error=item.error)
    error = InvalidJob.because(
        f"job {position + 1}",
        "a MultiImage or a row of a manifest",
        f"a {type(item).__name__}",
        "pass MultiImage(...)",
    )
    return Entry(position=position, key=f"{position + 1:06d}", error=error)


def external_id(run: str, entry: Entry) -> str:
    """
    Return the external id of an entry's task, the same each time for the same job under the same key in the same run.

    It names the content too, so that a task found under it can be no other job's.
    """
    assert entry.job is not None, "a row that is no job has no task"
    if entry.job.external_task_id:
        return entry.job.external_task_id
    text = "\n".join((run, entry.key, entry.job.fingerprint(), str(entry.attempts)))
    return f"ka-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
