"""
Names for result files: the same for the same key everywhere, and fit for every file system.

A key that had to be changed carries a short hash of what it was, so that two keys never share a name. File systems
that ignore the case of letters take two keys for one that others tell apart; `folded()` knows such twins beforehand.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache

from attrs import frozen

from kling_async.errors import ConfigError

__all__ = ["LONGEST_STEM", "RUN", "TEMPLATE", "check_template", "file_stem", "folded"]

TEMPLATE = "{key}_{index}"

# Names the run, in the folder of its results or at its place in a store.
RUN = "run.json"

# File systems allow 255 bytes a name; the rest is for `.png` and for what a download in progress adds.
LONGEST_STEM = 200

LONGEST_TEMPLATE_TEXT = 100

# The number may be padded: `{index:03}`.
_TEMPLATE = re.compile(
    r"(?P<before>[^{}]*)(?:(?P<key_first>\{key\})|\{index(?::(?P<spec_first>0?\d))?\})"
    r"(?P<between>[^{}]*)(?:(?P<key_last>\{key\})|\{index(?::(?P<spec_last>0?\d))?\})(?P<after>[^{}]*)"
)
_FORBIDDEN = set('<>:"/\\|?*')
_HASHED = re.compile(r"~[0-9a-f]{10}\Z")
# Device names of Windows, with any extension.
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)


def file_stem(template: str, key: str, index: int, *, twin: bool = False, longest: int = LONGEST_STEM) -> str:
    """
    Name the file of picture *index* of job *key*, without extension; a *twin* always carries its hash.

    *template* has `{key}` and `{index}` once each (`{index:03}` pads) with something other than digits between. The
    stem has at most *longest* bytes, which must leave 20 beside the template's text.
    Raises ConfigError for a template that has not, or that holds characters no file name can have.
    """
    shape = _parse(template)
    number = format(index, shape.spec)
    room = longest - len(shape.join("", number).encode())
    safe = _sanitise(key)
    stem = shape.join(safe, number)
    if twin or safe != key or len(safe.encode()) > room or _RESERVED.match(stem):
        digest = "~" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        start = "_" if _RESERVED.match(stem) else ""
        stem = shape.join(_cut(start + safe, room - len(digest)) + digest, number)
    return stem


def folded(key: str) -> str:
    """Return what *key* is to a file system that ignores the case of letters; twins are equal so."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


@frozen
class _Shape:
    """A template taken apart: the text around and between its two fields."""

    before: str
    between: str
    after: str
    key_first: bool
    spec: str

    def join(self, key: str, number: str) -> str:
        first, second = (key, number) if self.key_first else (number, key)
        return f"{self.before}{first}{self.between}{second}{self.after}"


@cache
def _parse(template: str) -> _Shape:
    match = _TEMPLATE.fullmatch(template)
    if match is None or bool(match["key_first"]) == bool(match["key_last"]):
        raise ConfigError(
            f"expected a name template with {{key}} and {{index}} once each, found {template!r}"
        )
    before, between, after = match["before"], match["between"], match["after"]
    if not between or between.isdigit():
        raise ConfigError(
            f"expected a name template with more than digits between {{key}} and {{index}}, found {template!r}; try '{{key}}_{{index}}'"
        )
    text = before + between + after
    if _sanitise(f"x{text}x") != f"x{text}x" or before[:1] in {".", " "} or _RESERVED.match(f"{before}."):
        raise ConfigError(
            f"expected a name template without / and other characters that file names cannot have, found {template!r}"
        )
    if len(text.encode()) > LONGEST_TEMPLATE_TEXT:
        raise ConfigError(
            f"expected a name template with at most {LONGEST_TEMPLATE_TEXT} bytes besides its fields, found {template!r}"
        )
    return _Shape(
        before, between, after, bool(match["key_first"]), match["spec_last"] or match["spec_first"] or ""
    )


def _sanitise(key: str) -> str:
    """Make *key* part of a file name; what comes out equal needed no change."""
    normal = unicodedata.normalize("NFC", key)
    # C*: control, format (invisible, or turning text round), surrogate, private and unassigned; Z*: but for the blank.
    kept = (char if char == " " or not _unfit(char) else "_" for char in normal)
    safe = "".join(kept).strip(" .") or "_"
    return f"{safe}~" if _HASHED.search(safe) else safe


def _unfit(char: str) -> bool:
    return (
        char in _FORBIDDEN
        or unicodedata.category(char)[0] == "C"
        or unicodedata.category(char) in {"Zl", "Zp"}
    )


def check_template(template: str) -> None:
    """Raise ConfigError for a name template that `file_stem()` would refuse."""
    _parse(template)


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore").rstrip(" .")
