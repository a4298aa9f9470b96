"""
Reads the body of a create without stopping the event loop, however long its pictures are.

`json.loads` and `b64decode` hold the interpreter for as long as they run, also in a worker thread. So long strings are
lifted out of the JSON text first, by searching for quotes, and base64 is decoded in pieces.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

from attrs import frozen

from kling_async.emulator.refusals import Refusal

__all__ = ["BIG", "LongText", "decode_base64", "parse"]

# Bodies below this are read where they stand; a thread would cost more than it spares.
BIG = 128 * 1024
_LONG = 32 * 1024
# A multiple of four characters, decoded in about a third of a millisecond.
_PIECE = 256 * 1024
_MARK = "\0long:"


@frozen
class LongText:
    """A string of a body that was lifted out of it, still as bytes."""

    raw: bytes

    def __repr__(self) -> str:
        return f"<LongText of {len(self.raw)} bytes>"

    def __str__(self) -> str:
        return self.raw.decode("utf-8", "replace")


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object in *body*, with `LongText` for long plain strings; Refusal if it is none."""
    try:
        if len(body) < BIG:
            found = json.loads(body)
        else:
            short, lifted = _lift(body)
            found = _put_back(json.loads(short), lifted)
    except (ValueError, RecursionError):
        raise Refusal(1200, "Request body is not valid JSON") from None
    if not isinstance(found, dict):
        raise Refusal(1200, "Request body must be a JSON object")
    return found


def _lift(body: bytes) -> tuple[bytes, list[bytes]]:
    parts: list[bytes] = []
    lifted: list[bytes] = []
    done = at = 0
    while (start := body.find(b'"', at)) >= 0:
        end = _closing_quote(body, start + 1)
        # A backslash inside means an escape, which only the JSON parser can read.
        if end - start > _LONG and body.find(b"\\", start, end) < 0:
            parts += (body[done:start], json.dumps(f"{_MARK}{len(lifted)}").encode())
            lifted.append(body[start + 1 : end])
            done = end + 1
        at = end + 1
    return b"".join([*parts, body[done:]]), lifted


def _closing_quote(body: bytes, start: int) -> int:
    at = start
    while (end := body.find(b'"', at)) >= 0:
        before = end
        while before > start and body[before - 1] == 0x5C:
            before -= 1
        if (end - before) % 2 == 0:
            return end
        at = end + 1
    raise ValueError("a string without an end")


def _put_back(value: Any, lifted: list[bytes]) -> Any:
    if isinstance(value, dict):
        return {key: _put_back(each, lifted) for key, each in value.items()}
    if isinstance(value, list):
        return [_put_back(each, lifted) for each in value]
    if isinstance(value, str) and value.startswith(_MARK) and value[len(_MARK) :].isdecimal():
        return LongText(lifted[int(value[len(_MARK) :])])
    return value


def decode_base64(text: str | LongText) -> bytes:
    """Return the bytes behind raw base64; Refusal for a `data:` prefix, line breaks, another alphabet or bad padding."""
    try:
        raw = text.raw if isinstance(text, LongText) else text.encode("ascii")
        pieces = [_decode_piece(raw, at) for at in range(0, len(raw), _PIECE)]
    except ValueError:
        raise Refusal(1201, "File is not in a valid base64 format") from None
    return b"".join(pieces)


def _decode_piece(raw: bytes, at: int) -> bytes:
    piece = raw[at : at + _PIECE]
    if at + _PIECE < len(raw) and b"=" in piece:
        raise ValueError("padding before the end")
    return binascii.a2b_base64(piece, strict_mode=True)
