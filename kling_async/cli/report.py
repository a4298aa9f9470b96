"""Tasks as people and as programs read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kling_async.cli.voice import Voice
from kling_async.protocol.tasks import Task

__all__ = ["moment", "show_task", "show_tasks", "task_fields"]


def task_fields(task: Task, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Return *task* for `--json`; names stay as they are."""
    return {
        "task_id": task.task_id,
        "external_task_id": task.external_task_id or None,
        "status": task.status.value,
        "status_message": task.status_message or None,
        "units": None if task.units is None else float(task.units),
        "created_at": moment(task.created_at),
        "updated_at": moment(task.updated_at),
        "images": [
            {"index": image.index, "url": image.url, "watermark_url": image.watermark_url}
            for image in task.images
        ],
        "files": [str(file) for file in files],
        "request_id": task.request_id or None,
    }


def show_task(task: Task, voice: Voice, files: Sequence[Path] = ()) -> None:
    """Give one task as data: an object, or lines of name and value."""
    if voice.json:
        voice.emit(task_fields(task, files))
        return
    voice.data(f"task      {task.task_id}")
    if task.external_task_id:
        voice.data(f"external  {task.external_task_id}")
    voice.data(f"status    {task.status.value}{f': {task.status_message}' if task.status_message else ''}")
    if task.created_at:
        voice.data(f"created   {moment(task.created_at)}")
    if task.units is not None:
        voice.data(f"units     {float(task.units):g}")
    for file in files:
        voice.data(f"file      {file}")
    for image in task.images if not files else ():
        voice.data(f"image     {image.url}")


def show_tasks(tasks: Sequence[Task], voice: Voice) -> None:
    """Give *tasks* as data, a line each: id, status, units, time, external id."""
    for task in tasks:
        units = "" if task.units is None else f"{float(task.units):g}"
        created = moment(task.created_at) or ""
        voice.data(
            f"{task.task_id:<20}  {task.status.value:<10}  {units:>5}  {created:<20}  {task.external_task_id}".rstrip()
        )


def moment(value: datetime | None) -> str | None:
    """Return *value* as programs read it."""
    return None if value is None else value.isoformat(timespec="seconds").replace("+00:00", "Z")
