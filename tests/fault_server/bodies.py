"""
Reads create bodies of any size in flat memory and holds them against the rules of the vendor's page.

Long strings (base64 pictures) are squeezed while they stream by: what is kept is their length, their hash and whether
they were clean base64.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import define, field

__all__ = ["Squeezer", "complaint"]

LONG = 32_768
_MARK = "\x02squeezed:"
_EDGE = re.compile(rb'["\\]')
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

RATIOS = frozenset({"16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9"})
MODELS = frozenset({"kling-v2", "kling-v2-1"})


@define(eq=False)
class Squeezer:
    """Is fed the pieces of a JSON text; *value()* parses what is left of it, *sha256* is that of the whole text."""

    length: int = 0
    _whole: Any = field(factory=hashlib.sha256)
    _kept: bytearray = field(factory=bytearray)
    _string: bytearray | None = None
    _long: _LongString | None = None
    _escaped: bool = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self.length += len(piece)
        self._whole.update(piece)
        at = 0
        while at < len(piece):
            at = self._outside(piece, at) if self._string is None else self._inside(piece, at)

    @property
    def sha256(self) -> str:
        """The hash of all that was fed."""
        return str(self._whole.hexdigest())

    def value(self) -> Any:
        """Parse; raises ValueError as `json.loads` does."""
        return json.loads(bytes(self._kept).decode())

    def _outside(self, piece: bytes, at: int) -> int:
        edge = piece.find(b'"', at)
        end = len(piece) if edge < 0 else edge + 1
        self._kept += piece[at:end]
        if edge >= 0:
            self._string = bytearray()
        return end

    def _inside(self, piece: bytes, at: int) -> int:
        assert self._string is not None  # the caller looked
        if self._escaped:
            self._escaped = False
            self._string += piece[at : at + 1]
            return at + 1
        found = _EDGE.search(piece, at)
        end = found.start() if found else len(piece)
        self._hold(piece[at:end])
        if found is None:
            return end
        if found[0] == b"\\":
            self._escaped = True
            self._string += b"\\"
        else:
            self._close()
        return end + 1

    def _hold(self, part: bytes) -> None:
        assert self._string is not None  # the caller looked
        if self._long is None and len(self._string) + len(part) > LONG:
            self._long = _LongString()
            self._long.feed(bytes(self._string))
        if self._long is None:
            self._string += part
        else:
            self._long.feed(part)

    def _close(self) -> None:
        assert self._string is not None  # the caller looked
        text = bytes(self._string) if self._long is None else json.dumps(self._long.mark())[1:-1].encode()
        self._kept += text + b'"'
        self._string = self._long = None


@define(eq=False)
class _LongString:
    length: int = 0
    clean: bool = True
    hashed: Any = field(factory=hashlib.sha256)

    def feed(self, part: bytes) -> None:
        self.length += len(part)
        self.hashed.update(part)
        self.clean = self.clean and not part.translate(None, _ALPHABET)

    def mark(self) -> str:
        sound = self.clean and self.length % 4 == 0
        return f"{_MARK}{self.length}:{'clean' if sound else 'dirty'}:{self.hashed.hexdigest()}"


def _length(text: str) -> int:
    return int(text.removeprefix(_MARK).partition(":")[0]) if text.startswith(_MARK) else len(text)


def _picture_fault(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return "File is not in a valid base64 format"
    if value.startswith(("http://", "https://")):
        return None
    clean = (
        ":clean:" in value if value.startswith(_MARK) else _BASE64.fullmatch(value) and len(value) % 4 == 0
    )
    return None if clean else "File is not in a valid base64 format"


def complaint(body: object) -> str | None:
    """Say what the vendor's page forbids in *body*, or None."""
    if not isinstance(body, Mapping):
        return "Request body is not a JSON object"
    subjects = body.get("subject_image_list")
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= 4:
        return "subject_image_list must have 1 to 4 elements"
    pictures = [item.get("subject_image") if isinstance(item, Mapping) else None for item in subjects]
    pictures += [body[name] for name in ("scene_image", "style_image") if body.get(name)]
    checks = (
        next(filter(None, map(_picture_fault, pictures)), None),
        _scalar_fault(body),
    )
    return next(filter(None, checks), None)


def _scalar_fault(body: Mapping[str, object]) -> str | None:
    count = body.get("n", 1)
    for name in ("prompt", "negative_prompt"):
        text = body.get(name) or ""
        if not isinstance(text, str) or _length(text) > 2500:
            return f"{name} must be a string of at most 2500 characters"
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 9:
        return "n must be an integer between 1 and 9"
    if str(body.get("aspect_ratio", "16:9")) not in RATIOS:
        return "aspect_ratio is invalid"
    if str(body.get("model_name", "kling-v2")) not in MODELS:
        return "model is not supported"
    for name in ("external_task_id", "callback_url"):
        if not isinstance(body.get(name, ""), str):
            return f"{name} must be a string"
    return None
