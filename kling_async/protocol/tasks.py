"""Tasks and their pictures, as the service reports them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from attrs import field, frozen

from kling_async.errors import ConfigError, EmptyResult, TaskFailed

__all__ = ["FAILURES", "RESULTS_KEPT", "ImageKeeper", "ResultImage", "Task", "TaskStatus"]

# What to do about a task that failed, by what its reason says; that is free text, of which one is seen often.
FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "risk control": "the service's content check refused it: change the prompt or the pictures, then make a new task",
        "": "make a new task (`retry` in a batch), with another prompt or other pictures if the reason names them",
    }
)

# How long the service keeps results (seed).
RESULTS_KEPT = timedelta(days=30)


class TaskStatus(Enum):
    """
    Where a task stands.

    Open: a word that this version does not know becomes `UNKNOWN` and keeps its text as *value*. Members of the
    same name are equal, so that `status == TaskStatus.UNKNOWN` and `match` work whatever the text was. The newer
    API generation's spelling `succeeded` means `SUCCEED`.
    """

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEED = "succeed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> TaskStatus:
        text = str(value)
        known = _SPELLINGS.get(text.strip().lower())
        if known is not None:
            return cls[known]
        stranger = object.__new__(cls)
        stranger._name_ = "UNKNOWN"
        stranger._value_ = text
        return stranger

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, TaskStatus) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def ended(self) -> bool:
        """Whether the task will not change any more and holds no slot."""
        return self.name in {"SUCCEED", "FAILED"}

    @property
    def rank(self) -> int:
        """How far a task has come; words that are not known lie between the known ones."""
        return {"SUBMITTED": 0, "UNKNOWN": 1, "PROCESSING": 1}.get(self.name, 2)


_SPELLINGS: Mapping[str, str] = {
    "submitted": "SUBMITTED",
    "processing": "PROCESSING",
    "succeed": "SUCCEED",
    "succeeded": "SUCCEED",
    "failed": "FAILED",
}


class ImageKeeper(Protocol):
    """What a client lends to the pictures of its tasks, so that they can fetch themselves."""

    async def save(self, image: ResultImage, folder: str | PathLike[str], name: str | None) -> Path:
        """Write *image* into *folder*, whole or not at all."""
        ...

    async def read(self, image: ResultImage) -> bytes:
        """Fetch the bytes of *image*."""
        ...


def _without_query(url: str | None) -> str:
    return repr(url.partition("?")[0] if url else url)


@frozen(kw_only=True)
class ResultImage:
    """
    One generated picture.

    *index* counts from 0. *url* is signed; the vendor's page says that pictures are deleted after 30 days. *watermark_url* is
    there only if a watermark was asked for. Pictures of tasks that came from a client can `save()` and `read()`
    themselves; copies that were pickled raise `ConfigError` there.
    """

    index: int
    url: str = field(repr=_without_query)
    watermark_url: str | None = field(default=None, repr=_without_query)
    _keeper: ImageKeeper | None = field(default=None, repr=False, eq=False)

    async def save(self, folder: str | PathLike[str] = ".", *, name: str | None = None) -> Path:
        """
        Write the picture into *folder*, which is made if need be, and return its path. Free of charge.

        The file appears whole or not at all, and never in place of another one. Its name is *name* or else made from the
        task's external id and the index; the extension comes from the content. An expired link is renewed once by asking the task.

        Raises `LinkExpired` if the service no longer has the picture and `DownloadError` for other troubles, such as a name that
        is taken.
        """
        return await self._bound().save(self, folder, name)

    async def read(self) -> bytes:
        """Return the picture's bytes, at most 64 MB, as they came (PNG as observed); raises as `save()` does."""
        return await self._bound().read(self)

    def _bound(self) -> ImageKeeper:
        if self._keeper is None:
            raise ConfigError(
                "this picture belongs to no client, as it was copied or unpickled; "
                "get it anew with kling.images.multi_image.retrieve(task_id)"
            )
        return self._keeper

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "url": self.url, "watermark_url": self.watermark_url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "_keeper": None}.items():
            object.__setattr__(self, name, value)


@frozen(kw_only=True)
class Task:
    """
    One task as the service last reported it.

    *status_message* is the service's reason when it failed. *images* are in the order of their indexes, empty until it
    succeeded. *units* is what it cost (`final_unit_deduction`), known once it ended. *created_at* and *updated_at* are aware, in UTC, by the
    service's clock. *raw* is the service's object as it came, unknown fields included; *request_id* names the reply
    it came in.
    """

    task_id: str
    external_task_id: str = ""
    status: TaskStatus
    status_message: str = ""
    images: tuple[ResultImage, ...] = ()
    units: Decimal | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    request_id: str = ""
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def ended(self) -> bool:
        """Whether the task will not change any more and holds no slot."""
        return self.status.ended

    @property
    def kept_until(self) -> datetime | None:
        """When the service deletes the pictures of a task that has ended: 30 days later; None where it does not say when."""
        return self.updated_at + RESULTS_KEPT if self.ended and self.updated_at is not None else None

    def answers(self, asked: str) -> bool:
        """Tell whether this may be the task that was asked for; replies may leave the external id out."""
        return asked == self.task_id or self.external_task_id in {"", asked}

    def unwrap(self) -> Task:
        """
        Return the task if it succeeded with pictures.

        Raises `TaskFailed` with the service's reason if it failed and `EmptyResult` if it has no picture.
        """
        if self.status == TaskStatus.FAILED:
            reason = self.status_message or "no reason given"
            raise TaskFailed(f"task {self.task_id} failed: {reason}", self, reason, _remedy(reason))
        if self.status == TaskStatus.SUCCEED and not self.images:
            raise EmptyResult(
                f"task {self.task_id} succeeded but shows no picture; ask again later with retrieve()",
                self.task_id,
            )
        return self


def _remedy(reason: str) -> str:
    return next(remedy for words, remedy in FAILURES.items() if words in reason.lower())
