"""Rows that read differently than when an earlier run took them up: why they are refused, and what helps."""

from __future__ import annotations

from kling_async.errors import InvalidJob, KlingError
from kling_async.protocol.lifecycle import FINISHED, JobState

__all__ = ["changed", "needs_update", "still_runs"]

_RULE = "the same job as before under this key"
_DONE = "give it another key, put it back, or run with --update (update=True)"
_FAILED = "it failed before: 'kling-async retry' runs it as it is now, and so does --update (update=True)"
_RUNNING = "its task still runs: put it back and run again"


def changed(state: JobState) -> InvalidJob:
    """Return why a row is refused whose job was in *state* and was another one then."""
    remedy = _DONE if state is JobState.DONE else _FAILED if state in FINISHED else _RUNNING
    return InvalidJob.because("key", _RULE, "another one", remedy)


def still_runs(error: KlingError) -> bool:
    """Tell whether *error* is that of a row that changed while its task runs: only its old words help it."""
    return isinstance(error, InvalidJob) and (error.rule, error.remedy) == (_RULE, _RUNNING)


def needs_update(error: KlingError) -> bool:
    """Tell whether *error* is that of a row that was done before and changed: to try again does not help it."""
    return isinstance(error, InvalidJob) and (error.rule, error.remedy) == (_RULE, _DONE)
