"""
The gallery of a folder of results: reads what the run left there and writes `gallery.html`.

What the page says is decided by pure functions (`rows`, `places`, `page`); here is what they need: files, the clock, and
thumbnails. Nothing of the run is changed, so it may be under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from kling_async._disk import write_whole
from kling_async._version import __version__
from kling_async.batch.manifest import Row, read_manifest
from kling_async.batch.sinks import RESULTS
from kling_async.errors import ConfigError
from kling_async.journal.storage import Storage
from kling_async.protocol.endpoints import REGIONS
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import FINISHED, LIVE, JobRecord
from kling_async.report.asked import Asked, asked_of
from kling_async.report.bars import Bar, bars_of, figures
from kling_async.report.page import render, require_jinja
from kling_async.report.places import Places, href_of, is_address, places_of
from kling_async.report.rows import Line, rows_of, totals_of
from kling_async.report.thumbnails import Thumbnails, make_thumbnails
from kling_async.report.timeline import draw

__all__ = ["GALLERY", "MOST", "Sources", "Written", "write_gallery"]

GALLERY = "gallery.html"
THUMBNAILS = "thumbnails"
# Rows that a page holds unless more are asked for; a browser takes some 10 MB of them.
MOST = 20_000


@frozen(kw_only=True)
class Sources:
    """
    Where a run is: its folder *home*, its *journal*, and the *manifest* whose rows it ran, with what they *shared*.

    Each but *home* may be missing; the page then says less. *emulated* is None where nobody knows.
    """

    home: Path
    journal: Path | None = None
    manifest: Path | None = None
    shared: Mapping[str, Any] = field(factory=dict)
    emulated: bool | None = None


@frozen(kw_only=True)
class Written:
    """What was written: the *page* with so many *rows*, and what it lacks, in words."""

    page: Path
    rows: int
    pictures: int
    notes: tuple[str, ...]


def write_gallery(
    sources: Sources,
    *,
    to: Path | None = None,
    template: Path | None = None,
    most: int = MOST,
    seconds: float | None = None,
    told: Callable[[int, int], object] = lambda _done, _all: None,
) -> Written:
    """
    Write the page of the run in *sources* to *to*, by default `gallery.html` in its folder; blocks.

    At most *most* rows, the last ones. Thumbnails are made for *seconds* at most, if that is given; *told* hears of how
    many pictures of how many. Raises `MissingExtra` without jinja2, `ConfigError` for a folder without results or one
    that cannot be written to, and `JournalError` for a damaged journal.
    """
    require_jinja()
    try:
        found = _read(sources, most)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"gallery: expected results that can be read in {sources.home}, found {reason}; correct that first"
        ) from error
    home = sources.home.resolve()
    page = (to or home / GALLERY).absolute()
    thumbnails = _thumbnails(found, home, seconds, told)
    data = _data(sources, found, page.parent, thumbnails)
    text = render(data, timeline=_timeline(found.bars, data), template=template)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        # Names of files need not be text.
        write_whole(page, text.encode("utf-8", "replace"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"gallery: expected to write {page}, found {reason}; see --to") from error
    return Written(
        page=page, rows=len(found.rows), pictures=data["totals"]["pictures"], notes=tuple(found.notes)
    )


@frozen
class _Found:
    """What a folder has: rows of the page, the files of their pictures, all tasks, and what is to be noted."""

    rows: list[dict[str, Any]]
    places: Places
    bars: tuple[Bar, ...]
    notes: list[str]


def _read(sources: Sources, most: int) -> _Found:
    home = sources.home.resolve()
    lines, left_out = _read_lines(home / RESULTS, most)
    records, bars = _read_journal(sources.journal, lines, whole=not left_out)
    if not lines and not records:
        raise ConfigError(
            f"gallery: expected results of a run, found neither {RESULTS} nor a journal in {sources.home}; "
            "name the folder given to -o"
        )
    asked, notes = _read_manifest(sources, {*lines, *records})
    if left_out:
        whole = len(lines) + left_out
        notes.append(f"The last {len(lines):,} of {whole:,} results are shown; --most shows more.")
    rows = rows_of(lines, records, asked)
    return _Found(rows, places_of(rows, asked, home), bars, notes)


def _read_lines(results: Path, most: int) -> tuple[dict[str, Line], int]:
    """Return the last line of each of the last *most* keys, and how many keys there are besides."""
    kept: dict[str, Line] = {}
    seen: set[int] = set()
    if not results.exists():
        return kept, 0
    with results.open("rb") as file:
        for text in file:
            line = _parsed(text)
            key = str(line.get("key", ""))
            if key and not (line.get("status") == "skipped" and key in kept):
                kept.pop(key, None)
                kept[key] = line
                seen.add(hash(key))
                if len(kept) > most:
                    del kept[next(iter(kept))]
    return kept, len(seen) - len(kept)


def _parsed(text: bytes) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {}  # being written, or edited by somebody
    return line if isinstance(line, dict) else {}


def _read_journal(
    journal: Path | None, lines: Mapping[str, Line], *, whole: bool
) -> tuple[dict[str, JobRecord], tuple[Bar, ...]]:
    """Return the pages of *lines*, of what runs, and, if *lines* are the *whole*, of what they lack; and all tasks."""
    if journal is None or not journal.exists():
        return {}, ()
    kept: dict[str, JobRecord] = {}

    def keeping(pages: Iterable[JobRecord]) -> Iterable[JobRecord]:
        for record in pages:
            if record.key in lines or record.state in (LIVE | FINISHED if whole else LIVE):
                kept[record.key] = record
            yield record

    storage = Storage.read_only(journal)
    try:
        return kept, bars_of(keeping(storage.all()))
    finally:
        storage.close()


def _read_manifest(sources: Sources, keys: set[str]) -> tuple[dict[str, Asked], list[str]]:
    """Return what the rows of *keys* asked for, and what is to be said if that is not known."""
    if sources.manifest is None:
        return {}, ["Prompts and reference pictures are not known here: name their rows with --manifest."]
    try:
        rows = read_manifest(sources.manifest, sources.shared)
        found = {
            row.key: asked_of(row.number, row.digest, row.job)
            for row in rows
            if isinstance(row, Row) and row.key in keys
        }
    except ConfigError as error:
        return {}, [f"Prompts and reference pictures are not known here: {error}"]
    return found, []


def _thumbnails(
    found: _Found, home: Path, seconds: float | None, told: Callable[[int, int], object]
) -> Thumbnails:
    """Make the thumbnails there is time for; a page without them is a page too, and says why."""
    pictures = found.places.files()
    try:
        made = make_thumbnails(
            pictures, home / THUMBNAILS, seconds=seconds, told=lambda done: told(done, len(pictures))
        )
    except OSError as error:
        found.notes.append(f"There are no thumbnails: {error}")
        return Thumbnails({}, 0)
    if made.left:
        found.notes.append(
            f"{made.left:,} pictures are shown whole, which takes longer: the command gallery makes them small."
        )
    return made


def _data(sources: Sources, found: _Found, folder: Path, thumbnails: Thumbnails) -> dict[str, Any]:
    """Return all that a page in *folder* is made of."""
    home = sources.home.resolve()

    def shown(pictures: Mapping[str, Path | None]) -> dict[str, Any]:
        return {text: _picture(text, path, home, folder, thumbnails) for text, path in pictures.items()}

    return {
        "run": {
            "name": home.name or str(home),
            "manifest": sources.manifest.name if sources.manifest else None,
            "emulated": sources.emulated,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "notes": found.notes,
            "base_url": REGIONS["global"],
            "path": MultiImage.path,
        },
        "totals": totals_of(found.rows),
        "pictures": shown(found.places.results),
        "references": shown(found.places.references),
        "rows": found.rows,
    }


def _picture(
    text: str, path: Path | None, home: Path, folder: Path, thumbnails: Thumbnails
) -> dict[str, Any]:
    """Say how the page shows one picture: by its file if it is there, else by what names it."""
    if path is None:
        return {"address": text} if is_address(text) else {}
    if not os.path.exists(path):  # noqa: PTH110  # false for names that no file can have, where Path raises
        return {"missing": True}
    shown = {"href": href_of(path.absolute(), folder)}
    if path in thumbnails.names:
        shown["thumbnail"] = href_of(home / THUMBNAILS / thumbnails.names[path], folder)
    return shown


def _timeline(bars: tuple[Bar, ...], data: dict[str, Any]) -> str:
    """Draw what ran when, and add what that says of the slots to *data*."""
    if not bars:
        return ""
    numbers = figures(bars)
    data["totals"] |= {"slots": numbers.slots, "slots_used": round(numbers.utilisation_filled, 4)}
    return draw(bars, style=None)
