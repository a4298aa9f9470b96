"""
A list page as the poll plan wants it, read as quickly as can be.

A sweep has pages of 500 tasks, and most of them still run: all that is wanted of those is that they do. With
`msgspec` (extra `speed`) only ids and states are read, in a tenth of the time; a page that it does not take as it
stands, because a number comes as text or an object as null, is read in full.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from attrs import field, frozen

from kling_async.protocol.codec import Reply, is_end, list_entries, read_envelope, seconds_of
from kling_async.protocol.scalars import text
from kling_async.protocol.turns import Glance, Look

__all__ = ["Page", "read_glances", "read_page"]


@cache
def _quick() -> ModuleType | None:
    """Return the reader that needs the extra `speed`, None without it."""
    try:
        from kling_async.protocol import quick
    except ImportError:  # pragma: no cover - the tests have it, the examples are run without
        return None
    return quick


@frozen
class Page:
    """What a list page shows, in its order, and the *request_id* of its reply."""

    glances: Sequence[Look]
    request_id: str
    # The entries of those that have ended by task id, or the text of all.
    _entries: Mapping[str, Any] | bytes = field(repr=False)

    def entries(self, wanted: Collection[str]) -> Mapping[str, Any]:
        """Return by task id the entries of those in *wanted* that have ended, for `read_task()`."""
        if not isinstance(self._entries, bytes) or not wanted:
            return self._entries if isinstance(self._entries, Mapping) else {}
        from kling_async.protocol.quick import texts

        return {
            glance.task_id: json.loads(bytes(entry))
            for glance, entry in zip(self.glances, texts(self._entries), strict=True)
            if glance.task_id in wanted and glance.ended
        }


def read_page(reply: Reply) -> Page:
    """Read the reply to a list query; raises what `read_envelope()` raises, and `MalformedReply` if there is no list."""
    quick = _quick()
    found = quick.read(reply.body) if quick is not None and reply.status == 200 else None
    if found is not None:
        request_id = found.request_id or reply.headers.get("x-request-id", "")
        return Page(found.data, request_id, reply.body)
    envelope = read_envelope(reply)
    glances, entries = read_glances(envelope.data, request_id=envelope.request_id)
    return Page(glances, envelope.request_id, entries)


def read_glances(data: object, *, request_id: str = "") -> tuple[list[Glance], dict[str, Any]]:
    """
    Read the `data` of a list page.

    Returns what the poll plan needs of each task, and by task id the entries of those that have ended.
    """
    glances: list[Glance] = []
    ended: dict[str, Any] = {}
    for entry in list_entries(data, request_id=request_id):
        task_id, status = text(entry["task_id"]), text(entry.get("task_status"))
        if is_end(status):
            ended[task_id] = entry
            glances.append(Glance(task_id, ended=True, seconds=seconds_of(entry)))
        else:
            glances.append(Glance(task_id, ended=False, status=status))
    return glances, ended
