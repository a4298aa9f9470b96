"""Folders of results as a run leaves them, without the run: what the tests of the gallery look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli_kit import manifest, picture

from kling_async.cli.earlier import Command
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import JobRecord, JobState

BEGAN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()

REFUSAL = {
    "type": "ContentRefusal",
    "code": 1301,
    "message": "Refused by the content security policy (code 1301); change the prompt or the pictures (not charged); "
    "request id req-7",
    "request_id": "req-7",
}


def line(key: str, **fields: Any) -> dict[str, Any]:
    """One line of `results.jsonl`: a job of one picture that succeeded, unless *fields* say otherwise."""
    return {
        "key": key,
        "status": "succeeded",
        "task_id": f"task-{key}",
        "external_task_id": f"ka-{key}",
        "account": "default",
        "units": 16.0,
        "files": [f"images/{key}_0.png"],
        "watermarked": [],
        "sha256": {},
        "warnings": [],
        "urls": ["https://cdn.example/result.png?ksSecret=hidden-from-the-page"],
        "error": None,
        "attempts": 1,
        "created_at": "2026-11-22T12:00:00Z",
        "finished_at": "2026-11-22T12:00:24Z",
    } | fields


def failed(key: str, **error: Any) -> dict[str, Any]:
    """A line of a job that was refused."""
    return line(key, status="failed", files=[], units=None, task_id=None, error=REFUSAL | error)


def record(key: str, start: float = 0.0, seconds: float = 24.0, **fields: Any) -> JobRecord:
    """A page of the journal: a job that is done, unless *fields* say otherwise."""
    known: dict[str, Any] = {
        "key": key,
        "state": JobState.DONE,
        "task_id": f"task-{key}",
        "external_task_id": f"ka-{key}",
        "account": "default",
        "model": "kling-v2-1",
        "submitted_at": BEGAN + start,
        "ended_at": BEGAN + start + seconds,
    }
    return JobRecord(**(known | fields))


def folder(
    root: Path,
    lines: Sequence[Mapping[str, Any]],
    *,
    rows: Sequence[object] = (),
    records: Sequence[JobRecord] = (),
    emulated: bool = False,
) -> Path:
    """Make the folder `out` of a run beside its manifest and its reference pictures, and return it."""
    out = root / "out"
    out.mkdir(parents=True)
    for name in ("dress", "meadow", "ghibli"):
        picture(root / "refs" / f"{name}.png")
    (out / "results.jsonl").write_text(
        "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines), encoding="utf-8"
    )
    if rows:
        path = manifest(root / "jobs.jsonl", rows)
        Command(manifest=str(path), emulated=emulated).keep(out)
    if records:
        storage = Storage.open(out / "journal.db")
        storage.write(records)
        storage.close()
    return out


def asked(key: str, **fields: object) -> dict[str, object]:
    """A row of the manifest."""
    return {
        "key": key,
        "subject_images": ["refs/dress.png"],
        "scene_image": "refs/meadow.png",
        "prompt": f"A dress for {key}",
        "aspect_ratio": "1:1",
    } | fields
