"""
A list page read with `msgspec` (extra `speed`): ids and states only, and strictly.

Nothing is guessed here: what does not have the usual types is left to the patient reader.
"""

from __future__ import annotations

import msgspec

from kling_async.protocol.codec import is_end, seconds_of

__all__ = ["Document", "read", "texts"]


class QuickGlance(msgspec.Struct, gc=False):
    """A task on a page, with the fields of `turns.Glance`; without the collector's care, since there are many."""

    task_id: str = ""
    task_status: str = ""
    created_at: int | str | None = None
    updated_at: int | str | None = None

    @property
    def ended(self) -> bool:
        """Whether the task will not change any more."""
        return is_end(self.task_status)

    @property
    def seconds(self) -> float | None:
        """The seconds from its creation to its end by the service's clock, if told."""
        return seconds_of({"created_at": self.created_at, "updated_at": self.updated_at})

    @property
    def status(self) -> str:
        """The service's word for where it stands."""
        return self.task_status


class Document(msgspec.Struct):
    """The reply to a list query that went well."""

    code: int
    data: list[QuickGlance]
    request_id: str = ""


class _Texts(msgspec.Struct):
    data: list[msgspec.Raw]


_DOCUMENT = msgspec.json.Decoder(Document)
_TEXTS = msgspec.json.Decoder(_Texts)


def read(body: bytes) -> Document | None:
    """Read the body of a list query; None unless it is a success of the usual shape."""
    try:
        found = _DOCUMENT.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if found.code == 0 else None


def texts(body: bytes) -> list[msgspec.Raw]:
    """Return the text of each task on the page that `read()` took."""
    return _TEXTS.decode(body).data
