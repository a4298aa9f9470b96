"""Replies by the letter of the vendor's pages: envelopes, tasks, resource packs. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from attrs import frozen

from kling_async.emulator.refusals import Refusal
from kling_async.emulator.settings import DAY
from kling_async.emulator.store import Ledger, Task

__all__ = [
    "JSON",
    "Links",
    "Reply",
    "accepted",
    "callback_body",
    "json_reply",
    "packs",
    "refused",
    "show",
    "success",
]

JSON = "application/json; charset=utf-8"

# Gives the result links of a task: *url*, and *watermark_url* where a watermark was asked for, by index.
Links: TypeAlias = Callable[[Task, int], dict[str, str]]


@frozen
class Reply:
    """An answer, before it becomes bytes on a socket; *code* is the service's, None where there is none."""

    status: int
    body: bytes
    content_type: str = JSON
    code: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})


def json_reply(
    value: Any, status: int = 200, code: int | None = None, headers: Mapping[str, str] = MappingProxyType({})
) -> Reply:
    """Return *value* as a JSON answer."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode(), JSON, code, headers)


def success(data: Any, request_id: str) -> Reply:
    """Return the envelope of a call that went well. The message is SUCCEED even if the task in it has failed."""
    return json_reply({"code": 0, "message": "SUCCEED", "request_id": request_id, "data": data}, code=0)


def refused(refusal: Refusal, request_id: str) -> Reply:
    """Return the envelope of a refused call: as published for 1303, without `data`."""
    headers = {} if refusal.retry_after is None else {"Retry-After": refusal.retry_after}
    value = {"code": refusal.code, "message": refusal.message, "request_id": request_id}
    return json_reply(value, refusal.http_status, refusal.code, headers)


def accepted(task: Task) -> dict[str, Any]:
    """Return the `data` of a create: no message, no result, no deduction."""
    return {
        "task_id": task.task_id,
        "task_info": _info(task),
        "task_status": "submitted",
        "created_at": task.created_stamp,
        "updated_at": task.created_stamp,
    }


def show(task: Task, links: Links) -> dict[str, Any]:
    """Return a task as single reads and lists show it."""
    shown: dict[str, Any] = {
        "task_id": task.task_id,
        "task_info": _info(task),
        "task_status": task.status,
        "task_status_msg": task.message,
        "watermark_info": {"enabled": task.order.watermark},
        "created_at": task.created_stamp,
        "updated_at": task.updated_stamp,
        "task_result": {},
    }
    if task.units is not None:
        shown["final_unit_deduction"] = str(task.units)
    if task.status == "succeed":
        images = range(0 if task.empty else task.order.n)
        shown["task_result"] = {"images": [{"index": index, **links(task, index)} for index in images]}
    return shown


def callback_body(task: Task, status: str, stamp: int, links: Links) -> dict[str, Any]:
    """Return a callback's body: the bare task as it was at *status*, without envelope and without watermark links."""
    body: dict[str, Any] = {
        "task_id": task.task_id,
        "task_status": status,
        "task_status_msg": task.message if status == "failed" else "",
        "task_info": _info(task),
        "created_at": task.created_stamp,
        "updated_at": stamp,
        "task_result": {},
    }
    if status in {"succeed", "failed"}:
        body["final_unit_deduction"] = str(task.order.units if status == "succeed" else 0)
    if status == "succeed" and not task.empty:
        images = [{"index": index, "url": links(task, index)["url"]} for index in range(task.order.n)]
        body["task_result"] = {"images": images}
    return body


def packs(ledger: Ledger, opened: float, name: str | None) -> dict[str, Any]:
    """Return the `data` of /account/costs: an envelope in the envelope, with the account's one resource pack."""
    account = ledger.account
    pack = f"Emulated-Image-{account.units:.0f}Units-{account.slots}Con-1Months"
    info = {
        "resource_pack_name": pack,
        "resource_pack_id": f"emulated-{account.name}",
        "resource_pack_type": "decreasing_total",
        "total_quantity": float(account.units),
        "remaining_quantity": float(ledger.units),
        "purchase_time": round(opened * 1000),
        "effective_time": round(opened * 1000),
        "invalid_time": round((opened + 30 * DAY) * 1000),
        "status": "online" if ledger.units > 0 else "runOut",
    }
    return {
        "code": 0,
        "msg": "success",
        "resource_pack_subscribe_infos": [info] if name in {None, "", pack} else [],
    }


def _info(task: Task) -> dict[str, str]:
    return {"external_task_id": task.order.external_task_id} if task.order.external_task_id else {}
