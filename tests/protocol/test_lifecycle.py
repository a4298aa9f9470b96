"""The life of a job in the journal: every move that may be, and none else."""

from __future__ import annotations

import itertools

import pytest

from kling_async import errors
from kling_async.protocol.lifecycle import FINISHED, LIVE, IllegalMove, JobRecord, JobState, is_final
from kling_async.protocol.tasks import Task, TaskStatus

S = JobState
LEGAL: dict[JobState | None, set[JobState]] = {
    None: {S.PENDING, S.SUBMITTING, S.SUBMITTED, S.FAILED},
    S.PENDING: {S.SUBMITTING, S.SUBMITTED, S.FAILED},
    S.SUBMITTING: {S.PENDING, S.UNKNOWN, S.SUBMITTED, S.FAILED},
    S.UNKNOWN: {S.PENDING, S.SUBMITTED},
    S.SUBMITTED: {S.SUCCEEDED, S.DONE, S.FAILED, S.LOST},
    S.SUCCEEDED: {S.DONE, S.FAILED, S.LOST},
    S.FAILED: {S.PENDING},
    S.LOST: {S.PENDING},
    S.DONE: {S.PENDING},
}


def record(state: JobState | None) -> JobRecord:
    return JobRecord(key="k") if state is None else JobRecord(key="k", state=state, stored=True)


@pytest.mark.parametrize(("before", "after"), [*itertools.product(LEGAL, JobState)])
def test_every_move(before: JobState | None, after: JobState) -> None:
    """A legal move gives a stored record with its changes, any other is a defect."""
    if after in LEGAL[before]:
        moved = record(before).moved(after, task_id="77")

        assert (moved.state, moved.stored, moved.task_id) == (after, True, "77")
    else:
        with pytest.raises(IllegalMove, match=f"k: from .* to {after}"):
            record(before).moved(after)


def test_a_job_with_a_task_is_never_submitted_from_there() -> None:
    """No move leads from a state that may have a task to a create, except back over one that has none."""
    assert all(S.SUBMITTING not in LEGAL[state] for state in LIVE | FINISHED)


def test_states_are_live_finished_or_pending() -> None:
    """Each state is in exactly one of the three."""
    assert not LIVE & FINISHED
    assert LIVE | FINISHED | {S.PENDING} == set(JobState)


@pytest.mark.parametrize(
    ("state", "error", "expected"),
    [
        (S.SUBMITTED, errors.TaskFailed("x", Task(task_id="77", status=TaskStatus.FAILED)), True),
        (S.SUBMITTED, errors.EmptyResult("x"), True),
        (S.SUBMITTED, errors.TaskNotFound("x"), True),
        (S.SUBMITTED, errors.TaskTimeout("x"), False),
        (S.SUBMITTED, errors.DownloadError("x"), False),
        (S.SUBMITTED, errors.AuthError("x"), False),
        (S.PENDING, errors.InvalidJob("x"), True),
        (S.SUBMITTING, errors.ContentRefusal("x"), False),
        (S.UNKNOWN, errors.SubmissionUnknown("x"), False),
        (S.SUCCEEDED, errors.DownloadError("x"), False),
        (S.SUCCEEDED, errors.LinkExpired("x"), False),
        (S.SUCCEEDED, errors.LinkExpired("x", gone=True), True),
        (S.SUCCEEDED, errors.TaskNotFound("x"), True),
        (S.SUBMITTED, errors.LinkExpired("x", gone=True), True),
    ],
)
def test_which_ends_are_final(state: JobState, error: errors.KlingError, expected: bool) -> None:  # noqa: FBT001  # a table
    """A task's own end is final, and so is a job that never had one; what can be taken up again is not."""
    assert is_final(state, error) is expected


@pytest.mark.parametrize("state", JobState)
def test_a_job_in_parts_runs_without_a_task_of_its_own(state: JobState) -> None:
    """Only a job under way whose tasks are those of its parts counts as divided."""
    under_way = state in {JobState.SUBMITTED, JobState.SUCCEEDED}

    assert JobRecord(key="k", state=state).divided is under_way
    assert not JobRecord(key="k", state=state, task_id="77").divided
