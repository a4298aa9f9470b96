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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from kling_async.batch.folders import folder_rows
from kling_async.batch.keys import KeyTable
from kling_async.batch.raws import Raw, fields_of, raw_rows, shown
from kling_async.batch.tables import Spoiled
from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.rows import job_from_row, unknown_fields

__all__ = [
    "BadRow",
    "Manifest",
    "Passed",
    "Record",
    "Row",
    "at_line",
    "digest_of",
    "key_of",
    "manifest_at",
    "raw_records",
    "read_manifest",
]

MAX_KEY = 512
# Rows that are looked up at once, and the bytes of them that may be held.
_GROUP = 256
_GROUP_BYTES = 4 * 1024 * 1024
_USUAL_BYTES = 1024
_JSON = json.JSONDecoder()


@frozen(kw_only=True)
class Row:
    """
    A good row: *number* is the line it starts on (the element, in a JSON array), *key* names it in the results.

    *digest* is a hash of the row as it stands in the file, by which a later run knows it without reading it closely.
    """

    number: int
    key: str
    job: MultiImage
    digest: int = field(default=0, eq=False, repr=False)


@frozen(kw_only=True)
class BadRow:
    """
    A row that cannot be a job, and why.

    *key* is the row's own if it has a good one that no other row has, else `line-<number>`. *unknown* are the fields
    that no job has, and *rest* is the job, or what else is wrong with it, without those; None if there are none.
    """

    number: int
    key: str
    error: InvalidJob
    unknown: tuple[InvalidJob, ...] = ()
    rest: MultiImage | InvalidJob | None = None


@frozen(kw_only=True)
class Passed:
    """Rows that follow each other and need nothing: their keys."""

    keys: tuple[str, ...]


Record: TypeAlias = tuple[int, dict[str, object] | InvalidJob]


def read_manifest(path: Path, shared: Mapping[str, object] | None = None) -> Iterator[Row | BadRow]:
    """
    Open the manifest at *path* and return its rows in order, as they are read.

    Relative pictures are relative to the manifest's folder. A folder of pictures is a manifest too: a row for each, with
    its name as the key and the fields *shared* by all. Raises ConfigError at once for a file that is missing, not
    readable or of an unknown kind, for a folder without pictures, and for *shared* with a file, whose rows have fields
    of their own; an empty file has no rows.
    """
    return manifest_at(path, shared)


def manifest_at(path: Path, shared: Mapping[str, object] | None = None) -> Manifest:
    """Open the manifest at *path* as `read_manifest()` does, for who wants more of it than its rows."""
    if path.is_dir():
        return Manifest(folder_rows(path, shared or {}), path.resolve())
    # Absolute, since the same pictures are meant wherever the command is called.
    return Manifest(raw_rows(_only_with_folders(path, shared)), path.parent.resolve())


def raw_records(path: Path, shared: Mapping[str, object] | None = None) -> Iterator[Record]:
    """Return each row's line number and its fields as they stand in the file or folder at *path*, or why it has none."""
    if path.is_dir():
        return ((number, fields_of(raw)) for number, raw in folder_rows(path, shared or {}))
    return ((number, fields_of(raw)) for number, raw in raw_rows(_only_with_folders(path, shared)))


def _only_with_folders(path: Path, shared: Mapping[str, object] | None) -> Path:
    if shared:
        raise ConfigError(
            f"manifest: expected a folder, for fields that all rows share, found {path}; put them into its rows"
        )
    return path


@define(eq=False)
class Manifest(Iterator[Row | BadRow]):
    """The rows of a manifest in the folder *base*, as they are read; no two have one key."""

    _raws: Iterator[tuple[int, Raw]] = field(repr=False)
    base: Path
    _seen: KeyTable = field(factory=KeyTable, init=False, repr=False)

    def __next__(self) -> Row | BadRow:
        return self.row(*next(self._raws))

    def raws(self) -> Iterator[tuple[int, Raw]]:
        """Return the rows as they stand there, for who needs few of them closely: `row()` makes those."""
        return self._raws

    def unless(self, done: Callable[[Sequence[str]], Mapping[str, int]]) -> Iterator[Row | BadRow | Passed]:
        """
        Yield the rows, but those that are done already only by their keys.

        *done* says of some keys which of them are, with the digest of their row then. A row that is the same is not
        parsed closely again, which takes most of the time.
        """
        while group := self._group():
            keys = [_glance(raw) for _, raw in group]
            known = done([key for key in keys if key])
            passed: list[str] = []
            for key, (number, raw) in zip(keys, group, strict=True):
                if key in known and known[key] == digest_of(raw) and not self._seen.add(key, number):
                    passed.append(key)
                    continue
                if passed:
                    yield Passed(keys=tuple(passed))
                    passed = []
                yield self.row(number, raw)
            if passed:
                yield Passed(keys=tuple(passed))

    def _group(self) -> list[tuple[int, Raw]]:
        """Read the next rows, not too many for one query and not too large to be held at once."""
        group: list[tuple[int, Raw]] = []
        size = 0
        for number, raw in self._raws:
            group.append((number, raw))
            size += len(raw) if isinstance(raw, bytes) else _USUAL_BYTES
            if len(group) == _GROUP or size > _GROUP_BYTES:
                break
        return group

    def row(self, number: int, raw: Raw) -> Row | BadRow:
        """Make the row of what stands on line *number*."""
        key = f"line-{number}"
        fields = fields_of(raw)
        try:
            named = raw.fields if isinstance(raw, Spoiled) else fields
            if isinstance(named, InvalidJob):
                own = _given(raw)
                key = own if own and not self._seen.add(own, number) else key
                raise named
            own = key_of(named)
            first = self._seen.add(own, number)
            if first:
                raise _duplicate(named, own, first)
            key = own
            if isinstance(fields, InvalidJob):
                raise fields
            job = job_from_row(_without_key(fields), self.base)
        except InvalidJob as error:
            return self._bad(number, key, error, fields)
        return Row(number=number, key=key, job=evolve(job, key=key), digest=digest_of(raw))

    def _bad(
        self, number: int, key: str, error: InvalidJob, fields: dict[str, object] | InvalidJob
    ) -> BadRow:
        found = at_line(number, error)
        unknown = {} if isinstance(fields, InvalidJob) else unknown_fields(_without_key(fields))
        if isinstance(fields, InvalidJob) or not unknown or error.field == "key":
            return BadRow(number=number, key=key, error=found)
        known = {name: value for name, value in _without_key(fields).items() if name not in unknown}
        try:
            rest: MultiImage | InvalidJob = job_from_row(known, self.base)
        except InvalidJob as other:
            rest = at_line(number, other)
        wrong = tuple(at_line(number, each) for each in unknown.values())
        return BadRow(number=number, key=key, error=found, unknown=wrong, rest=rest)


def _glance(raw: Raw) -> str:
    """Return the key that a row seems to have, without looking closely; empty if it has none of its own."""
    fields = _loosely(raw)
    if not isinstance(fields, dict):
        return ""
    key = fields.get("key")
    if isinstance(key, str) and "id" not in fields:
        return key
    try:
        return key_of(fields)
    except InvalidJob:
        return ""


def _given(raw: Raw) -> str:
    """Return the key that is given in a row that cannot be read closely; empty if there is none that can be used."""
    fields = _loosely(raw)
    if not isinstance(fields, dict) or not {"key", "id"} & fields.keys():
        return ""
    try:
        return key_of({name: fields[name] for name in ("key", "id") if name in fields})
    except InvalidJob:
        return ""


def _loosely(raw: Raw) -> object:
    if not isinstance(raw, bytes):
        return raw
    try:
        return _JSON.decode(raw.decode())
    except (ValueError, RecursionError):
        return None


def digest_of(raw: Raw) -> int:
    """Return a hash of a row as it stands in its file, never 0; 0 for one that cannot be read."""
    if isinstance(raw, InvalidJob | Spoiled):
        return 0
    text = raw.strip() if isinstance(raw, bytes) else json.dumps(raw).encode()
    # What SQLite takes for an integer has a sign.
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True) or 1


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
        raise InvalidJob.because(name, "a text or a whole number", shown(value), "write it as text")
    key = str(value)
    if not key.strip() or len(key) > MAX_KEY or not key.isprintable():
        rule = f"1 to {MAX_KEY} printable characters"
        found = shown(key) if len(key) <= MAX_KEY else f"{len(key)} characters"
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
        "key", "a key of its own", f"{shown(key)}, as in line {first}", "change one of the two"
    )
