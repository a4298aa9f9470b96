"""
CSV and TSV manifests: cells become the fields of a job; `manifest` does the rest.

A cell is text, and a few fields are not: those are converted here, and only when the text says plainly what is meant;
anything else is passed on as it is, so that the rules of the job refuse it with its own words.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from kling_async.errors import ConfigError, InvalidJob, error

__all__ = ["LIST_SEPARATOR", "csv_records"]

LIST_SEPARATOR = (
    "|"  # neither in URLs nor in file names that work everywhere; `;` is in both, and a delimiter besides
)
_LONGEST_KEY = 512
MAX_LINE_BYTES = 16 * 1024 * 1024
_NUMBERED = re.compile(r"subject_image_([1-9][0-9]?)")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@error
class BadCells(InvalidJob):
    """A record that cannot be read; *key* is what it is called all the same, empty if that is not certain."""

    key: str = ""


class _Lines:
    """
    The lines of *file* as text, none longer than a bound; *number* is that of the last one.

    Surrogates stand for bytes that are no UTF-8, so that one bad cell spoils its own record only. A class and no
    generator, since it goes on after raising csv.Error for an over-long line.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (piece := self._file.readline(MAX_LINE_BYTES)) and not piece.endswith(b"\n"):
                pass
            raise csv.Error(f"a line of more than {MAX_LINE_BYTES // 1024**2} MB")
        return line.decode(errors="surrogateescape")


def csv_records(file: IO[bytes], path: Path) -> Iterator[tuple[int, dict[str, object] | InvalidJob]]:
    """
    Yield the line number and the fields of each record, or why it has none.

    The first line is the header. A record that spans lines has the number of its first. Raises ConfigError for a
    header that cannot be used.
    """
    lines = _Lines(file)
    try:
        header = next(lines, "")
        delimiter = _delimiter(header, path)
        names = _header(next(csv.reader([header], delimiter=delimiter, strict=True), []), path)
    except csv.Error as error:
        raise ConfigError(
            f"manifest: expected a header of field names, found {error} in {path}; correct it"
        ) from error
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, _bad(str(error))
            continue
        if any(cell.strip() for cell in cells):
            yield number, _fields(names, cells)


def _delimiter(header: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",", ";", "\t", key=header.count)


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if names and not any(names):
        return []
    wrong = next((name for name in names if names.count(name) > 1), None)
    if wrong is not None:
        found = f"{wrong!r} twice" if wrong else "columns without a name"
        raise ConfigError(
            f"manifest: expected a first line with a different field name in each column, found {found} in {path}; "
            "correct the header"
        )
    return names


def _fields(names: list[str], cells: list[str]) -> dict[str, object] | InvalidJob:
    if len(cells) != len(names):
        # A delimiter too many moves only what stands behind it, so the first cell is what it says.
        return _named(
            dict(zip(names[:1], cells, strict=False)),
            InvalidJob.because(
                "row",
                f"{len(names)} cells as in the header",
                f"{len(cells)}",
                "put cells that hold the delimiter in double quotes, and leave empty cells in",
            ),
        )
    fields: dict[str, object] = {}
    numbered: dict[int, str] = {}
    for name, cell in zip(names, cells, strict=True):
        if "\0" in cell or any("\ud800" <= char <= "\udfff" for char in cell):
            bad = InvalidJob.because(name, "UTF-8 text", "other bytes", "save the file as UTF-8")
            return _named(dict(zip(names, cells, strict=True)), bad)
        if not cell.strip():
            continue
        if match := _NUMBERED.fullmatch(name):
            numbered[int(match[1])] = cell.strip()
        else:
            fields[name] = _CONVERSIONS.get(name, _text)(cell)
    if not numbered:
        return fields
    if {"subject_images", "subject_image_list"} & fields.keys():
        return _named(
            fields,
            InvalidJob.because(
                "subject_images",
                "one way to name subjects",
                "two",
                "fill 'subject_images' or 'subject_image_1' to '_4'",
            ),
        )
    return fields | {"subject_images": [numbered[place] for place in sorted(numbered)]}


def _named(fields: Mapping[str, object], found: InvalidJob) -> BadCells:
    """Return what was *found* wrong with a record under its name, if *fields* has one that can be used."""
    key = str(fields.get("key") or fields.get("id") or "").strip()
    fit = len(key) <= _LONGEST_KEY and key.isprintable()
    return BadCells(found.message, found.field, found.rule, found.value, found.remedy, key if fit else "")


def _bad(found: str) -> InvalidJob:
    return InvalidJob.because("row", "CSV", found, "close each quote, and double a quote inside a cell")


def _text(cell: str) -> object:
    return cell


def _whole(cell: str) -> object:
    return int(cell) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", cell, re.ASCII) else cell


def _boolean(cell: str) -> object:
    return _BOOLEANS.get(cell.strip().lower(), cell)


def _several(cell: str) -> object:
    return [part.strip() for part in cell.split(LIST_SEPARATOR) if part.strip()]


def _json(cell: str) -> object:
    try:
        found: object = json.loads(cell)
    except ValueError:
        return cell
    return found


_CONVERSIONS: dict[str, Callable[[str], object]] = {
    "n": _whole,
    "watermark": _boolean,
    "subject_images": _several,
    "subject_image_list": _json,
    "watermark_info": _json,
    "extra": _json,
}
