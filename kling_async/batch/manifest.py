"""
Manifests: files of jobs, a row each, read as a stream so that a million rows fit in flat memory.

A bad row is a value (`BadRow`) with its line number and never stops the reading; only a file that cannot be read
at all is an error (`ConfigError`). Nothing is sent or spent here, and no picture is opened.

JSONL (`.jsonl`, `.ndjson`, and any ending not named here) has one JSON object a line. CSV and TSV (`.csv`, `.tsv`)
have a header of field names; several subjects stand in one `subject_images` cell separated by `|`, or in columns
`subject_image_1` to `subject_image_4`; empty cells are fields not given. `.json` is one object or an array of them,
up to 16 MB. All are UTF-8, with or without a byte order mark, and lines may end in CRLF. A folder of pictures has a row
for each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

from attrs import evolve, frozen

from kling_async.batch.folders import folder_records
from kling_async.batch.keys import KeyTable
from kling_async.batch.tables import csv_records
from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.rows import job_from_row

__all__ = ["BadRow", "Record", "Row", "at_line", "key_of", "raw_records", "read_manifest"]

MAX_LINE_BYTES = 128 * 1024 * 1024  # six pictures of 10 MB as base64 are 80 MB
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_KEY = 512
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@frozen(kw_only=True)
class Row:
    """A good row: *number* is the line it starts on (the element, in a `.json` array), *key* names it in the results."""

    number: int
    key: str
    job: MultiImage


@frozen(kw_only=True)
class BadRow:
    """
    A row that cannot be a job, and why.

    *key* is the row's own if it has a good one that no other row has, else `line-<number>`.
    """

    number: int
    key: str
    error: InvalidJob


Record: TypeAlias = tuple[int, dict[str, object] | InvalidJob]
_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[Record]]]


def read_manifest(path: Path, shared: Mapping[str, object] | None = None) -> Iterator[Row | BadRow]:
    """
    Open the manifest at *path* and return its rows in order, as they are read.

    Relative pictures are relative to the manifest's folder. A folder of pictures is a manifest too: a row for each, with
    its name as the key and the fields *shared* by all. Raises ConfigError at once for a file that is missing, not
    readable or of an unknown kind, for a folder without pictures, and for *shared* with a file, whose rows have fields
    of their own; an empty file has no rows.
    """
    records = raw_records(path, shared)
    # Absolute, since a job is known by its pictures' paths: it must be the same one wherever the command is called.
    return _rows(records, path.resolve() if path.is_dir() else path.parent.resolve())


def raw_records(path: Path, shared: Mapping[str, object] | None = None) -> Iterator[Record]:
    """Return each row's line number and its fields as they stand in the file or folder at *path*, or why it has none."""
    if path.is_dir():
        rows = tuple(folder_records(path, shared or {}))
        return iter(rows)
    if shared:
        raise ConfigError(
            f"manifest: expected a folder, for fields that all rows share, found {path}; put them into its rows"
        )
    # The first record is read now, so that a header or a .json file that cannot be used is an error at once. The
    # file is opened again to be read: what is never iterated leaves nothing open.
    next(_records(path), None)
    return _records(path)


def _records(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        yield from _READERS.get(path.suffix.lower(), _jsonl_records)(file, path)


def _open(path: Path) -> IO[bytes]:
    """Open *path*, or raise ConfigError saying what is wrong with it."""
    if path.suffix.lower() in {".parquet", ".xlsx", ".xls"}:
        raise ConfigError(
            f"manifest: expected JSONL, CSV or TSV, found {path.name}; export it as one of them"
        )
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"manifest: expected a regular file, since it is read twice, found {path}; save it to a file first"
        )
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ConfigError(f"manifest: expected a file, found nothing at {path}; check the path") from None
    except OSError as error:
        raise ConfigError(
            f"manifest: expected a readable file, found {path}: {error.strerror}; check its permissions"
        ) from error
    head = file.read(3)
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        file.close()
        raise ConfigError(f"manifest: expected UTF-8 text, found UTF-16 in {path}; save it as UTF-8")
    file.seek(3 if head == b"\xef\xbb\xbf" else 0)
    return file


def _rows(records: Iterator[Record], base: Path) -> Iterator[Row | BadRow]:
    """Make jobs of *records*; see to it that no two rows have one key."""
    seen = KeyTable()
    for number, fields in records:
        if isinstance(fields, InvalidJob):
            yield BadRow(number=number, key=f"line-{number}", error=at_line(number, fields))
            continue
        try:
            key = key_of(fields)
            first = seen.add(key, number)
            if first:
                raise _duplicate(fields, key, first)
        except InvalidJob as error:
            yield BadRow(number=number, key=f"line-{number}", error=at_line(number, error))
            continue
        try:
            job = job_from_row(_without_key(fields), base)
        except InvalidJob as error:
            yield BadRow(number=number, key=key, error=at_line(number, error))
        else:
            yield Row(number=number, key=key, job=evolve(job, key=key))


def at_line(number: int, error: InvalidJob) -> InvalidJob:
    """Return *error* with the line of its row in front."""
    return InvalidJob(f"line {number}: {error}", error.field, error.rule, error.value, error.remedy)


# Keys


def _without_key(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in {"key", "id"}}


def key_of(fields: dict[str, object]) -> str:
    """Return the row's `key` or `id`, or a hash of its content if it has neither."""
    given = [(name, fields[name]) for name in ("key", "id") if fields.get(name) is not None]
    if len(given) > 1 and given[0][1] != given[1][1]:
        rule = "one of 'key' and 'id'"
        raise InvalidJob.because("key", rule, f"{given[0][1]!r} and {given[1][1]!r}", "keep one of them")
    if not given:
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "row-" + hashlib.sha256(content.encode()).hexdigest()[:16]
    name, value = given[0]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidJob.because(name, "a text or a whole number", _shown(value), "write it as text")
    key = str(value)
    if not key.strip() or len(key) > MAX_KEY or not key.isprintable():
        rule = f"1 to {MAX_KEY} printable characters"
        found = _shown(key) if len(key) <= MAX_KEY else f"{len(key)} characters"
        raise InvalidJob.because(name, rule, found, "change it, or leave it out to use a hash of the row")
    return key


def _duplicate(fields: dict[str, object], key: str, first: int) -> InvalidJob:
    if fields.get("key") is None and fields.get("id") is None:
        return InvalidJob.because(
            "key",
            "rows that differ",
            f"the same row as in line {first}",
            "remove it, or give both a key to run both",
        )
    return InvalidJob.because(
        "key", "a key of its own", f"{_shown(key)}, as in line {first}", "change one of the two"
    )


# JSON


def _jsonl_records(file: IO[bytes], _path: Path) -> Iterator[Record]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            _skip_line(file)
            yield (
                number,
                _bad_line(f"at most {MAX_LINE_BYTES // 1024**2} MB", "a longer one", "name pictures by path"),
            )
        elif line.strip():
            yield number, _fields_or_error(line)


def _skip_line(file: IO[bytes]) -> None:
    while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _json_records(file: IO[bytes], path: Path) -> Iterator[Record]:
    """Read one object or an array of objects; bounded, since the whole file is parsed at once."""
    text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise ConfigError(
            f"manifest: expected at most {MAX_JSON_BYTES // 1024**2} MB of .json, found more in {path}; "
            "make it JSONL, one object a line: jq -c '.[]' in.json > out.jsonl"
        )
    if not text.strip():
        return
    try:
        found = _parse(text)
    except InvalidJob as error:
        raise ConfigError(f"{path}: {error}") from error
    for number, value in enumerate(found if isinstance(found, list) else [found], start=1):
        yield number, _object_or_error(value)


def _fields_or_error(line: bytes) -> dict[str, object] | InvalidJob:
    try:
        value = _parse(line)
    except InvalidJob as error:
        return error
    return _object_or_error(value)


def _object_or_error(value: object) -> dict[str, object] | InvalidJob:
    if isinstance(value, dict):
        return value
    return _bad_line("a JSON object with the fields of a job", _shown(value), 'write {"prompt": ..., ...}')


def _parse(text: bytes) -> object:
    """Parse JSON strictly: UTF-8, each name once, no NaN, no half characters. Raises InvalidJob."""
    if b"\0" in text:
        raise _bad_line("text", "a NUL byte", "save the file as UTF-8 text")
    try:
        decoded = text.decode()
        value = json.loads(decoded, object_pairs_hook=_once, parse_constant=_no_constant)
        if _SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"{error.msg} at column {error.colno}"
        raise _bad_line("JSON", where, "correct it; each line is one whole object") from None
    except UnicodeDecodeError as error:
        raise _bad_line(
            "UTF-8", f"byte 0x{text[error.start]:02x} at {error.start + 1}", "save the file as UTF-8"
        ) from None
    except UnicodeEncodeError:
        raise _bad_line(
            "whole characters", "half of a surrogate pair (\\ud...)", "write the character itself"
        ) from None
    except RecursionError:
        raise _bad_line("JSON nested a few levels deep", "far deeper nesting", "correct it") from None
    except ValueError as error:
        raise (
            error if isinstance(error, InvalidJob) else _bad_line("JSON", str(error)[:100], "correct it")
        ) from None
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _bad_line("each name once", f"{_shown(twice)} twice", "remove one of them")
    return found


def _no_constant(name: str) -> object:
    raise _bad_line("JSON", f"{name}, which JSON does not have", "write a number or null")


def _bad_line(rule: str, found: str, remedy: str) -> InvalidJob:
    return InvalidJob.because("row", rule, found, remedy)


def _shown(value: object) -> str:
    """Show *value* in a few characters; also one that is 100 MB long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    text = json.dumps(value, default=str) if not isinstance(value, list | dict) or len(value) < 20 else ""
    kind = "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a value"
    return text if text and len(text) <= 60 else f"{kind} of {len(text) or 'many'} characters"


_READERS = {".json": _json_records, ".csv": csv_records, ".tsv": csv_records}
