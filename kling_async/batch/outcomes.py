"""How one job of a batch ended, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from attrs import field, frozen

from kling_async.batch.past import Past
from kling_async.errors import BatchStopped, KlingError
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.pictures import Fitted
from kling_async.protocol.tasks import Task

__all__ = ["Failed", "Outcome", "Skipped", "Succeeded"]


@frozen(kw_only=True)
class Succeeded:
    """
    The task succeeded and, where an *out* was given, its pictures are saved.

    *files* are the pictures in their order: paths, or URLs where *out* is an object store. *watermarked* are the same
    with the service's watermark, where the job asked for one, and *sha256* has the digest of each of all these.
    *warnings* say what was asked for and is not there. *units* is what the service says it cost (None where it says
    nothing), *attempts* how many tasks were made for the job. *job* is None only for a task that an earlier run made and
    whose row is no longer in the input. For a job that was split, *parts* are its tasks and *task* is all of them in one:
    their pictures in order, their units added up, their ids with commas between; *attempts* counts such sets. *fitted* is
    what was changed of the job's pictures to bring them within the rules (`fit="auto"`).
    """

    key: str
    job: MultiImage | None = field(repr=False)
    task: Task
    files: tuple[Path | str, ...] = ()
    watermarked: tuple[Path | str, ...] = ()
    sha256: Mapping[Path | str, str] = field(factory=dict, repr=False)
    warnings: tuple[str, ...] = ()
    units: Decimal | None = None
    attempts: int = 1
    account: str = ""
    external_task_id: str = ""
    parts: tuple[Task, ...] = field(default=(), repr=False)
    fitted: tuple[Fitted, ...] = ()

    def unwrap(self) -> Task:
        """Return the task."""
        return self.task


@frozen(kw_only=True)
class Failed:
    """
    The job did not bring its pictures; *error* says why and what to do.

    *job* is None for a row that is no job. *task* is there when one was made, which may have been charged. For a job that
    was split, *parts* are the tasks that were made and *task* is all of them in one, with the pictures of those that
    succeeded.
    """

    key: str
    job: MultiImage | None = field(repr=False)
    error: KlingError
    task: Task | None = None
    attempts: int = 0
    account: str = ""
    external_task_id: str = ""
    parts: tuple[Task, ...] = field(default=(), repr=False)
    fitted: tuple[Fitted, ...] = ()

    def unwrap(self) -> Task:
        """Raise *error*."""
        raise self.error


@frozen(kw_only=True)
class Skipped:
    """
    Nothing was done for the row; *reason* says why.

    *earlier* is how it ended in an earlier run: `succeeded` or `failed`, empty if it did not. What that run made of it is
    read from the journal when it is asked for, so that a million rows cost nothing: *files*, *units* and *task_id*, which
    raise `JournalError` if the journal is gone by then.
    """

    key: str
    reason: str
    earlier: str = ""
    _past: Past | None = field(default=None, eq=False, repr=False)

    @property
    def files(self) -> tuple[Path | str, ...]:
        """The pictures that the earlier run saved, in their order, as in `Succeeded`."""
        return self._past.files(self.key) if self._past is not None else ()

    @property
    def units(self) -> Decimal | None:
        """What the service said that the earlier run's task cost; None where nothing is known."""
        return self._past.units(self.key) if self._past is not None else None

    @property
    def task_id(self) -> str:
        """The task of the earlier run, or its tasks with commas between; empty if it made none."""
        return self._past.task_id(self.key) if self._past is not None else ""

    def unwrap(self) -> Task:
        """Raise `BatchStopped`: there is no task to return."""
        raise BatchStopped(f"{self.key} was skipped: {self.reason}")


Outcome: TypeAlias = Succeeded | Failed | Skipped
