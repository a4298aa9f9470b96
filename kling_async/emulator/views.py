"""How tasks and lists look when a fault distorts them. Pure."""

from __future__ import annotations

from typing import Any

from kling_async.emulator.store import Task

__all__ = ["disguise", "rearrange"]


def rearrange(rows: list[Task], action: str) -> list[Task]:
    """Return the page as a list fault shows it: every third row missing, or doubled while the page keeps its length."""
    if action == "missing-rows":
        return [task for number, task in enumerate(rows) if number % 3 != 1]
    if action == "duplicated-rows":
        doubled = [
            each for number, task in enumerate(rows) for each in [task] * (2 if number % 3 == 0 else 1)
        ]
        return doubled[: len(rows)]
    return rows


def disguise(shown: dict[str, Any], action: str) -> None:
    """Change a *shown* ended task into what a state fault makes of it."""
    images = shown["task_result"].get("images", [])
    if action in {"backwards", "unknown-status"}:
        shown["task_status"] = "processing" if action == "backwards" else "queued"
        shown["task_status_msg"] = ""
        shown["task_result"] = {}
        shown.pop("final_unit_deduction", None)
    elif images:
        shown["task_result"] = {"images": [] if action == "empty-images" else images[:-1]}
