"""
The results of a run as rows of a page: what was asked, what came out, how long it took, what went wrong.

Pure: lines of `results.jsonl`, pages of the journal and rows of the manifest in, plain JSON values out. The journal
knows what runs and for how long, the lines what ended; either alone will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from kling_async.protocol.codes import CODES
from kling_async.protocol.lifecycle import FINISHED, LIVE, JobRecord, JobState
from kling_async.protocol.parts import is_part
from kling_async.protocol.tasks import FAILURES
from kling_async.report.asked import Asked

__all__ = ["Line", "rows_of", "totals_of"]

Line = Mapping[str, Any]

# Vendor's price list, 2026-09: one image unit.
_DOLLARS_PER_UNIT = 0.0035
# A zero is a value.
_NOTHING: tuple[Any, ...] = (None, "", [])
# What to do about an end without a code; other messages say it themselves.
_REMEDIES: Mapping[str, str] = {
    "EmptyResult": "retry makes a new task",
    "TaskNotFound": "the service no longer has the task; retry makes a new one, at its full price",
}


def rows_of(
    lines: Mapping[str, Line], records: Mapping[str, JobRecord], asked: Mapping[str, Asked]
) -> list[dict[str, Any]]:
    """
    Return a row for each job that ended or has a task, in the order of the manifest, then of their ends.

    *lines* are the last ones of each key; where one is missing, that of the journal is taken. Fields without a value are left out, so that ten thousand rows stay small.
    """
    keys = [*lines, *(key for key, record in records.items() if key not in lines and _is_shown(record))]
    keys.sort(key=lambda key: asked[key].number if key in asked else float("inf"))
    return [_row(key, lines.get(key), records.get(key), asked.get(key)) for key in keys]


def _is_shown(record: JobRecord) -> bool:
    return record.state in LIVE | FINISHED and not is_part(record.key)


def _row(key: str, line: Line | None, record: JobRecord | None, asked: Asked | None) -> dict[str, Any]:
    if line is None:
        line = (record.result if record else None) or {}
    status = _status(line, record)
    ended = status in {"succeeded", "failed", "skipped"}
    started, finished = _times(line, record, ended=ended)
    row: dict[str, Any] = {
        "key": key,
        "status": status,
        "number": asked.number if asked else None,
        "job": dict(asked.job) if asked else None,
        "model": (record.model if record else "") or (asked.job.get("model_name") if asked else None),
        "files": list(line.get("files") or ()),
        "watermarked": list(line.get("watermarked") or ()),
        "seconds": _seconds(line, record, started, finished),
        "units": line.get("units"),
        "account": line.get("account") or (record.account if record else None),
        "attempts": line.get("attempts"),
        "task_id": line.get("task_id") or (record.task_id if record else None),
        "external_task_id": line.get("external_task_id") or (record.external_task_id if record else None),
        "started": started,
        "finished": finished,
        "error": _error(line.get("error")) if ended else None,
        "warnings": list(line.get("warnings") or ()),
        "fitted": [_fitted(each) for each in line.get("fitted") or ()],
        "changed": _changed(record, asked) or None,
    }
    return {name: value for name, value in row.items() if value not in _NOTHING}


def _changed(record: JobRecord | None, asked: Asked | None) -> bool:
    """Tell whether the manifest's row is another one than that of the run."""
    return bool(record and asked and record.row and asked.digest and record.row != asked.digest)


def _status(line: Line, record: JobRecord | None) -> str:
    """Return where the job stands; a journal that has taken it up again knows better than its last line."""
    if record is not None and record.state in LIVE and record.state is not JobState.SUCCEEDED:
        return "running"
    if record is not None and record.state is JobState.SUCCEEDED and not line.get("files"):
        return "unsaved"
    if record is not None and record.state is JobState.PENDING:
        return "waiting"
    return str(line.get("status", "running"))


def _times(line: Line, record: JobRecord | None, *, ended: bool) -> tuple[float | None, float | None]:
    """Return when the task began and when it was over, as Unix seconds."""
    started = record.submitted_at if record and record.task_id else _moment(line.get("created_at"))
    finished = record.ended_at if record else None
    return started, (finished or _moment(line.get("finished_at"))) if ended else None


def _seconds(
    line: Line, record: JobRecord | None, started: float | None, finished: float | None
) -> float | None:
    if started is None or finished is None or not (line.get("task_id") or (record and record.task_id)):
        return None
    return round(max(0.0, finished - started), 3)


def _moment(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None  # somebody edited the line


def _error(error: Any) -> dict[str, Any] | None:
    """Return *error* with its message taken apart: what happened, what to do, and the request's id."""
    if not isinstance(error, Mapping):
        return None
    code, request_id = error.get("code"), error.get("request_id")
    known = CODES.get(code) if isinstance(code, int) else None
    kind = str(error.get("type") or "")
    message = str(error.get("message") or "")
    if request_id:
        message = message.removesuffix(f"; request id {request_id}")
    message, remedy = _apart(message, f" (code {code})", kind)
    remedy = remedy or (known.remedy if known else _REMEDIES.get(kind, ""))
    found = {
        "type": kind,
        "code": code,
        "message": message,
        "meaning": known.meaning if known and known.meaning not in message else "",
        "remedy": remedy,
        "request_id": request_id,
    }
    return {name: value for name, value in found.items() if value}


def _apart(message: str, label: str, kind: str) -> tuple[str, str]:
    """Take what to do off a *message*: it stands behind the *label* of the code, or is one that tasks fail with."""
    if kind == "TaskFailed":
        remedy = next((each for each in FAILURES.values() if message.endswith(f"; {each}")), FAILURES[""])
        return message.removesuffix(f"; {remedy}"), remedy
    told, found, remedy = message.partition(f"{label}; ")
    return told if found else message.removesuffix(label), remedy


def _fitted(each: Any) -> str:
    if not isinstance(each, Mapping):
        return str(each)
    changes = each.get("changes") or ()
    return f"{each.get('field', 'picture')}: {', '.join(map(str, changes))}"


def totals_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up *rows*: how many of each status, pictures, units, the time from the first start to the last end."""
    counts = {
        status: _count(rows, status)
        for status in ("succeeded", "failed", "running", "unsaved", "waiting", "skipped")
    }
    units = sum(float(row.get("units") or 0) for row in rows)
    starts = [row["started"] for row in rows if "started" in row]
    ends = [row["finished"] for row in rows if "finished" in row]
    seconds = [row["seconds"] for row in rows if row["status"] == "succeeded" and "seconds" in row]
    return counts | {
        "jobs": len(rows),
        "pictures": sum(len(row.get("files", ())) for row in rows),
        "units": units,
        "dollars": round(units * _DOLLARS_PER_UNIT, 2),
        "seconds": round(max(ends) - min(starts), 3) if starts and ends else None,
        "typical_seconds": round(median(seconds), 3) if seconds else None,
        "finished": datetime.fromtimestamp(max(ends), UTC).isoformat(timespec="seconds") if ends else None,
    }


def _count(rows: Iterable[Mapping[str, Any]], status: str) -> int:
    return sum(row["status"] == status for row in rows)
