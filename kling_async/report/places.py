"""
Where the pictures of a page lie, as a browser finds them.

Pure, but for the bytes of names, which the operating system decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kling_async.report.asked import Asked

__all__ = ["href_of", "is_address", "places_of"]

_REFERENCES = ("scene_image", "style_image")


def is_address(text: str) -> bool:
    """Tell whether *text* is an address, which a page never loads from."""
    return "://" in text


def places_of(
    rows: Iterable[Mapping[str, Any]], asked: Mapping[str, Asked], out: Path
) -> dict[str, Path | None]:
    """
    Return every picture that *rows* name, once each, and its file; None for one that is not on this machine.

    Saved pictures come first, in the order of the rows: they are what is looked at.
    """
    found: dict[str, Path | None] = {}
    references: dict[str, Path | None] = {}
    for row in rows:
        for name in (*row.get("files", ()), *row.get("watermarked", ())):
            found[name] = None if is_address(name) else out / name
        if row["key"] in asked:
            files = asked[row["key"]].files
            references |= {text: files.get(text) for text in _references(row.get("job", {}))}
    return found | references


def _references(job: Mapping[str, Any]) -> Iterable[str]:
    yield from job.get("subject_images", ())
    yield from (job[field] for field in _REFERENCES if field in job)


def href_of(path: Path, out: Path) -> str:
    """
    Return the address of *path* on a page in the folder *out*: relative, so that both can be moved together.

    Both must be absolute. On another drive it is a file URL.
    """
    try:
        relative = os.path.relpath(path, out)
    except ValueError:
        return path.as_uri()
    # Names need not be text.
    return quote(os.fsencode(Path(relative).as_posix()))
