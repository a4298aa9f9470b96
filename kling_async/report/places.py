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

from attrs import field, frozen

from kling_async.report.asked import Asked

__all__ = ["Places", "href_of", "is_address", "places_of"]

_REFERENCES = ("scene_image", "style_image")


@frozen
class Places:
    """
    The pictures that a page names, once each, with their files; None for one that is not on this machine.

    Results are named as seen from the run's folder and references as in the manifest, so one text may mean two files.
    """

    results: dict[str, Path | None] = field(factory=dict)
    references: dict[str, Path | None] = field(factory=dict)

    def files(self) -> list[Path]:
        """Return the files; the results first, in the order of the rows: they are what is looked at."""
        return [path for path in (*self.results.values(), *self.references.values()) if path is not None]


def is_address(text: str) -> bool:
    """Tell whether *text* is an address, which a page never loads from."""
    return "://" in text


def places_of(rows: Iterable[Mapping[str, Any]], asked: Mapping[str, Asked], out: Path) -> Places:
    """Return every picture that *rows* name."""
    found = Places()
    for row in rows:
        for name in (*row.get("files", ()), *row.get("watermarked", ())):
            found.results[name] = None if is_address(name) else out / name
        if row["key"] in asked:
            files = asked[row["key"]].files
            found.references.update({text: files.get(text) for text in _references(row.get("job", {}))})
    return found


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
