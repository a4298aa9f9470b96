"""
The life of a job in a journal: which states there are, and which may follow which.

    (new) ──intend──> SUBMITTING ──made──> SUBMITTED ──ended──> SUCCEEDED ──saved──> DONE
                        │  ▲  │                │  │                │
                        │  │  └─doubt─> UNKNOWN│  └──> FAILED, LOST└──gone──> LOST
          PENDING <─free┘  └──intend── PENDING │
                                               └──> FAILED

SUBMITTING is written and durable before a create leaves, so after a crash every job that may have a task is in
SUBMITTING, UNKNOWN, SUBMITTED or SUCCEEDED, and every other one certainly has none. A state is left only by the moves
below; anything else is a defect, not data.

A job that is made as several tasks has a page for each part, where its tasks and units stand, and one of its own,
without a task. That one is SUBMITTED from the first part's SUBMITTING on, and DONE only after all its parts are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from attrs import fields, frozen

from kling_async import errors
from kling_async.protocol.verdict import Verdict, judge

__all__ = ["FINISHED", "LIVE", "IllegalMove", "JobRecord", "JobState", "is_final", "is_lost"]


class JobState(Enum):
    """Where a job stands."""

    PENDING = "pending"
    """Known, and certainly without a task."""
    SUBMITTING = "submitting"
    """A create may be under way."""
    UNKNOWN = "unknown"
    """A create was sent and nobody knows what became of it."""
    SUBMITTED = "submitted"
    """The task exists and was not seen to end."""
    SUCCEEDED = "succeeded"
    """The task succeeded; its pictures are not saved yet."""
    DONE = "done"
    """Succeeded, and everything asked for is saved."""
    FAILED = "failed"
    """Ended without pictures; tried again only when somebody says so."""
    LOST = "lost"
    """The service no longer has the task, or its pictures before they were saved."""


_S = JobState

_MOVES: Mapping[JobState | None, frozenset[JobState]] = MappingProxyType(
    {
        None: frozenset({_S.PENDING, _S.SUBMITTING, _S.SUBMITTED, _S.FAILED}),
        _S.PENDING: frozenset({_S.SUBMITTING, _S.SUBMITTED, _S.FAILED}),
        _S.SUBMITTING: frozenset({_S.PENDING, _S.UNKNOWN, _S.SUBMITTED, _S.FAILED}),
        _S.UNKNOWN: frozenset({_S.PENDING, _S.SUBMITTED}),
        _S.SUBMITTED: frozenset({_S.SUCCEEDED, _S.DONE, _S.FAILED, _S.LOST}),
        _S.SUCCEEDED: frozenset({_S.DONE, _S.FAILED, _S.LOST}),
        # Only an explicit wish leads out of an end: a new attempt, or pictures fetched again.
        _S.FAILED: frozenset({_S.PENDING}),
        _S.LOST: frozenset({_S.PENDING}),
        _S.DONE: frozenset({_S.PENDING}),
    }
)

LIVE = frozenset({_S.SUBMITTING, _S.UNKNOWN, _S.SUBMITTED, _S.SUCCEEDED})
FINISHED = frozenset({_S.DONE, _S.FAILED, _S.LOST})


class IllegalMove(Exception):
    """A job was moved as its life does not allow; a defect of this package."""


@frozen(kw_only=True, weakref_slot=False)
class JobRecord:
    """
    One job as the journal holds it.

    *fingerprint* is the hash of what was asked for, *attempt* counts from 0, *units* what is committed for this attempt
    and *spent* what was for earlier ones. *row* is a hash of the manifest's row as it stands there, 0 if there is none. Times are Unix seconds. *result* and *error* are plain objects, as they stand in `results.jsonl`.
    """

    key: str
    state: JobState = JobState.PENDING
    fingerprint: str = ""
    attempt: int = 0
    external_task_id: str = ""
    account: str = ""
    model: str = ""
    slots: int = 1
    units: int = 0
    task_id: str = ""
    submitted_at: float | None = None
    ended_at: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    spent: int = 0
    row: int = 0
    # Whether this record is in the journal yet; not a column.
    stored: bool = False

    @property
    def divided(self) -> bool:
        """Whether the job is under way in parts, which have the tasks."""
        return self.state in {JobState.SUBMITTED, JobState.SUCCEEDED} and not self.task_id

    def moved(self, to: JobState, **changes: Any) -> JobRecord:
        """Return the record after its move to *to*; raises `IllegalMove`."""
        came_from = self.state if self.stored else None
        if to not in _MOVES[came_from]:
            raise IllegalMove(f"{self.key}: from {came_from} to {to}")
        return self.revised(state=to, stored=True, **changes)

    def revised(self, **changes: Any) -> JobRecord:
        """Return the record with *changes*; attrs' own `evolve()` takes six times as long, for each of four moves a job."""
        record = object.__new__(JobRecord)
        for set_field, value in zip(_SETTERS.values(), _values_of(self), strict=True):
            set_field(record, value)
        for name, value in changes.items():
            _SETTERS[name](record, value)
        return record


_FIELDS = tuple(attribute.name for attribute in fields(JobRecord))
_values_of = attrgetter(*_FIELDS)
_SETTERS: Mapping[str, Callable[[JobRecord, Any], None]] = {
    name: getattr(JobRecord, name).__set__ for name in _FIELDS
}


# What ends a job for good while its task exists; anything else (a wait that was too long, a download that broke, an
# account that is not let in) leaves the job where it is, to be taken up again.
_FATAL_FOR_TASKS = (errors.TaskFailed, errors.EmptyResult, errors.TaskNotFound)


def is_lost(error: errors.KlingError) -> bool:
    """Tell whether *error* means that the service no longer has what it made."""
    return isinstance(error, errors.TaskNotFound) or (isinstance(error, errors.LinkExpired) and error.gone)


def is_final(state: JobState, error: errors.KlingError) -> bool:
    """Tell whether a job in *state* has ended with *error*; a new attempt then needs an explicit wish."""
    if state is JobState.SUBMITTED:
        return isinstance(error, _FATAL_FOR_TASKS) or is_lost(error)
    if state is JobState.SUCCEEDED:
        # Everything else may pass: a full disk, a result host that is away, a link that will be renewed.
        return is_lost(error)
    # Trouble of the account, the network or the service ends no job that has no task.
    return state is JobState.PENDING and judge(error) in {Verdict.REJECTED, Verdict.DUPLICATE}
