"""
The rows of manifest files as they stand there: which line, and which fields or why none.

JSON is parsed strictly, and nothing here knows what the fields mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from kling_async.batch.tables import Spoiled, csv_records
from kling_async.errors import ConfigError, InvalidJob

__all__ = ["Raw", "fields_of", "raw_rows", "shown"]

MAX_LINE_BYTES = 128 * 1024 * 1024  # six pictures of 10 MB as base64 are 80 MB
MAX_JSON_BYTES = 16 * 1024 * 1024
# How JPEG, PNG, GIF and WebP begin, which no text does.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"RIFF")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# A row as a file has it: a line of JSON, or fields where the file's kind gives them, or why there are none.
Raw: TypeAlias = bytes | dict[str, object] | Spoiled | InvalidJob
_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[tuple[int, Raw]]]]


def raw_rows(path: Path) -> Iterator[tuple[int, Raw]]:
    """
    Return the rows of the file at *path*, each with the line that it starts on.

    Raises ConfigError at once for a file that is missing, a folder, not readable or of an unknown kind.
    """
    # The first row is read now, so that a header or a .json file that cannot be used is an error at once. The file is
    # opened again to be read: what is never iterated leaves nothing open.
    next(_raws(path), None)
    return _raws(path)


def _raws(path: Path) -> Iterator[tuple[int, Raw]]:
    with _open(path) as file:
        yield from _READERS.get(path.suffix.lower(), _jsonl_records)(file, path)


def _open(path: Path) -> IO[bytes]:
    """Open *path*, or raise ConfigError saying what is wrong with it."""
    if path.suffix.lower() in {".parquet", ".xlsx", ".xls"}:
        raise ConfigError(
            f"manifest: expected JSONL, CSV or TSV, found {path.name}; export it as one of them"
        )
    if str(path) == "-" and not path.exists():
        raise ConfigError(
            "manifest: expected a file, since it is read twice, found - (stdin); save it to a file first"
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
    head = file.read(8)
    if head.startswith(_PICTURES):
        file.close()
        raise ConfigError(
            f"manifest: expected JSONL, CSV or TSV, found a picture ({path}); name the folder of pictures instead, "
            "or a file with a row for each job"
        )
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        file.close()
        raise ConfigError(f"manifest: expected UTF-8 text, found UTF-16 in {path}; save it as UTF-8")
    file.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
    return file


def fields_of(raw: Raw) -> dict[str, object] | InvalidJob:
    """Return the fields of a row, or why it has none."""
    if isinstance(raw, Spoiled):
        return raw.error
    return _fields_or_error(raw) if isinstance(raw, bytes) else raw


def _jsonl_records(file: IO[bytes], _path: Path) -> Iterator[tuple[int, Raw]]:
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
            yield number, line


def _skip_line(file: IO[bytes]) -> None:
    while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _json_records(file: IO[bytes], path: Path) -> Iterator[tuple[int, Raw]]:
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
    return _bad_line("a JSON object with the fields of a job", shown(value), 'write {"prompt": ..., ...}')


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
        raise _bad_line("each name once", f"{shown(twice)} twice", "remove one of them")
    return found


def _no_constant(name: str) -> object:
    raise _bad_line("JSON", f"{name}, which JSON does not have", "write a number or null")


def _bad_line(rule: str, found: str, remedy: str) -> InvalidJob:
    return InvalidJob.because("row", rule, found, remedy)


def shown(value: object) -> str:
    """Show *value* in a few characters; also one that is 100 MB long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    text = json.dumps(value, default=str) if not isinstance(value, list | dict) or len(value) < 20 else ""
    kind = "an array" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a value"
    return text if text and len(text) <= 60 else f"{kind} of {len(text) or 'many'} characters"


_READERS = {".json": _json_records, ".csv": csv_records, ".tsv": csv_records}
