"""What log records tell about a job beside their message: the same six fields on every record (R31)."""

from __future__ import annotations

from kling_async.errors import ApiError, KlingError, MalformedReply

__all__ = ["about"]


def about(
    job: object = None,
    *,
    account: str = "",
    task_id: str = "",
    request_id: str = "",
    error: KlingError | None = None,
) -> dict[str, str | int]:
    """
    Return the *extra* of a log record: `task_id, external_task_id, key, request_id, code, account`, empty where unknown.

    *job* is whatever has some of these as attributes: an order, a row, an event.
    """
    if isinstance(error, ApiError | MalformedReply):
        request_id = request_id or error.request_id
    return {
        "task_id": task_id or getattr(job, "task_id", ""),
        "external_task_id": getattr(job, "external_task_id", ""),
        "key": getattr(job, "key", ""),
        "request_id": request_id or getattr(job, "request_id", ""),
        "code": error.code if isinstance(error, ApiError) else getattr(job, "code", 0),
        "account": account or getattr(job, "account", ""),
    }
