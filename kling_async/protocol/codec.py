"""
From the service's JSON to values, forgiving about shape and strict about meaning.

Seen in real replies: numbers as strings and the other way round, `{}`, null or nothing where an object should be,
`"success"` for code 0, fields nobody documented. All of them survive; what cannot be understood is left out of the
typed value and kept in `raw`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from kling_async.errors import ConfigError, MalformedReply
from kling_async.protocol.codes import api_error
from kling_async.protocol.retry import http_date, retry_after
from kling_async.protocol.scalars import code_of, number, objects, text
from kling_async.protocol.tasks import ImageKeeper, ResultImage, Task, TaskStatus

if TYPE_CHECKING:
    from kling_async.protocol.wire import WireImage

__all__ = [
    "Envelope",
    "Reply",
    "bind",
    "glimpse",
    "is_end",
    "list_entries",
    "read_envelope",
    "read_task",
    "read_task_id",
    "read_tasks",
    "seconds_of",
]

_RUNNING = frozenset({"processing", "submitted"})
# The envelope's own fields stand before `data`, in all replies that were seen.
_FIRST_BYTES = 512
_FIRST_FIELDS = re.compile(rb'"(code|request_id)"\s*:\s*("[^"\\]{0,100}"|[0-9]{1,9})')


def _size(body: bytes) -> str:
    # Bodies name pictures by signed URLs.
    return f"<{len(body)} bytes>"


@frozen(kw_only=True)
class Reply:
    """What came back for one request: *headers* with lower-case names, *body* decompressed and complete."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=_size)

    @property
    def service_time(self) -> float | None:
        """The Unix time of the `Date` header, None without a valid one."""
        return http_date(self.headers.get("date", ""))


@frozen(kw_only=True)
class Envelope:
    """A reply that the service means as a success (code 0)."""

    request_id: str
    data: Any = field(repr=False)
    reply: Reply = field(repr=False)


def read_envelope(reply: Reply) -> Envelope:
    """
    Open *reply*.

    Raises the `ApiError` that its code names (without a code, its HTTP status), and `MalformedReply` if it is no
    JSON object or claims success without saying so.
    """
    if 300 <= reply.status < 400:
        target = reply.headers.get("location", "").partition("?")[0]
        raise MalformedReply(
            f"expected an answer, found a redirect (HTTP {reply.status}) to {target!r}; "
            "API calls never follow redirects: check the base URL",
            reply.status,
        )
    if reply.status == 407:
        raise ConfigError("the proxy wants credentials (HTTP 407); put them into the proxy's URL")
    document = _document(reply)
    code = code_of(document.get("code"))
    request_id = text(document.get("request_id")) or reply.headers.get("x-request-id", "")
    if code == 0 and reply.status < 400:
        return Envelope(request_id=request_id, data=document.get("data"), reply=reply)
    if code is None and reply.status < 400:
        raise MalformedReply(
            "expected an object with a code, found one without; check the base URL", reply.status, request_id
        )
    raise api_error(
        code or 0,
        reply.status,
        text(document.get("message")) or text(document.get("msg")),
        request_id=request_id,
        retry_after=retry_after(reply.headers, reply.service_time),
    )


def glimpse(body: bytes) -> tuple[int, str]:
    """Return the code and the request id of a reply without reading it: what its first bytes say, else 0 and nothing."""
    found: dict[bytes, bytes] = dict(_FIRST_FIELDS.findall(body[:_FIRST_BYTES]))
    code = found.get(b"code", b"").strip(b'"')
    return int(code) if code.isdigit() else 0, found.get(b"request_id", b"").strip(b'"').decode(
        "ascii", "replace"
    )


def _document(reply: Reply) -> Mapping[str, Any]:
    cause: Exception | None = None
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        found, cause = _shape(reply.body), error
    else:
        if isinstance(document, dict):
            return document
        found = _kind(document)
    if reply.status >= 400:
        # Whatever stands before the service wrote this; all it tells is its status.
        return {}
    raise MalformedReply(
        f"expected a JSON object, found {found} (HTTP {reply.status}); check the base URL and any proxy",
        reply.status,
        reply.headers.get("x-request-id", ""),
    ) from cause


def _shape(body: bytes) -> str:
    head = body.lstrip()[:15].lower()
    if not head:
        return "nothing"
    return "an HTML page" if head.startswith((b"<!doctype", b"<html")) else "something else"


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def read_task_id(data: object, *, request_id: str = "") -> str:
    """
    Read from the `data` of a create which task was made; all else there is known, and a tenth of the work to leave.

    Raises `MalformedReply` as `read_task()` does.
    """
    task_id = text(data.get("task_id")) if isinstance(data, dict) else ""
    if not task_id:
        raise _no_task(request_id)
    return task_id


def _no_task(request_id: str) -> MalformedReply:
    return MalformedReply("expected a task with a task_id, found none", 200, request_id)


def read_task(data: object, *, request_id: str = "", keeper: ImageKeeper | None = None) -> Task:
    """
    Read the `data` of a create or a single query.

    Raises `MalformedReply` if it is no object or has no task id: nothing could be asked about such a task.
    """
    # Late, for what that needs.
    from kling_async.protocol.wire import structured

    wire = structured(data)
    if not isinstance(data, dict) or not wire.task_id:
        raise _no_task(request_id)
    return Task(
        task_id=wire.task_id,
        external_task_id=wire.task_info.external_task_id,
        status=TaskStatus(wire.task_status),
        status_message=wire.task_status_msg,
        images=_images(wire.task_result.images, keeper),
        units=wire.final_unit_deduction,
        created_at=wire.created_at,
        updated_at=wire.updated_at,
        request_id=request_id,
        raw=data,
    )


def _images(wires: tuple[WireImage, ...], keeper: ImageKeeper | None) -> tuple[ResultImage, ...]:
    shown = [wire for wire in wires if wire.url]
    indexes = [position if wire.index is None else wire.index for position, wire in enumerate(shown)]
    if len(set(indexes)) < len(indexes):
        # Repeated indexes would make two pictures claim one file.
        indexes = list(range(len(shown)))
    return tuple(
        ResultImage(index=index, url=wire.url, watermark_url=wire.watermark_url or None, keeper=keeper)
        for index, wire in zip(indexes, shown, strict=True)
    )


def bind(task: Task, keeper: ImageKeeper) -> Task:
    """Return *task* with pictures that fetch themselves through *keeper*."""
    images = (
        ResultImage(index=image.index, url=image.url, watermark_url=image.watermark_url, keeper=keeper)
        for image in task.images
    )
    return evolve(task, images=tuple(images))


def read_tasks(data: object, *, request_id: str = "") -> list[Task]:
    """Read the `data` of a list page; entries without a task id are passed over, null is an empty page."""
    return [read_task(item, request_id=request_id) for item in list_entries(data, request_id=request_id)]


def is_end(status: str) -> bool:
    """Tell whether a task's status is its last, for most of a long list ten times as fast as the enum does."""
    return status not in _RUNNING and TaskStatus(status).ended


def seconds_of(entry: Mapping[str, Any]) -> float | None:
    """Return the seconds from the creation of a task to its last change by the service's clock, if it tells."""
    created, updated = number(entry.get("created_at")), number(entry.get("updated_at"))
    if created is None or updated is None or updated <= created:
        return None
    return float(updated - created) / 1000


def list_entries(data: object, *, request_id: str = "") -> list[dict[str, Any]]:
    """Return the entries of the `data` of a list page that have a task id; null is an empty page."""
    if data is None:
        return []
    if not isinstance(data, list):
        raise MalformedReply("expected a list of tasks, found something else", 200, request_id)
    return [item for item in objects(data) if text(item.get("task_id"))]
