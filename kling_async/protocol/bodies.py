"""The body of a create as its parts: JSON text with pictures between, which become base64 when they are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from attrs import field, frozen

from kling_async.protocol.pictures import Picture

__all__ = ["Body", "base64_length"]


def base64_length(size: int) -> int:
    """Return how long *size* bytes are in base64 with padding."""
    return (size + 2) // 3 * 4


# A third of the time that `json.dumps` takes, which makes an encoder each time.
_COMPACT = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@frozen
class Body:
    """
    A JSON body whose pictures are not read yet; *length* is its exact Content-Length.

    Pictures stand between text parts that already hold the quotation marks around them. A body that holds only
    URLs is one part.
    """

    parts: tuple[bytes | Picture, ...] = field(repr=False)
    length: int = field(init=False)

    @length.default
    def _count(self) -> int:
        return sum(
            base64_length(part.size) if isinstance(part, Picture) else len(part) for part in self.parts
        )

    @classmethod
    def from_json(cls, value: object) -> Body:
        """
        Write *value*, a tree of mappings, sequences and plain values that may hold pictures anywhere, as compact JSON.

        Raises TypeError and ValueError for what JSON has no form for, as `json.dumps` does.
        """
        try:
            return cls((_COMPACT(value).encode(),))
        except TypeError:
            # There are pictures in it, or mappings of other kinds, or what has no form at all.
            return cls(tuple(cls._spliced(value)))

    @staticmethod
    def _spliced(value: object) -> list[bytes | Picture]:
        parts: list[bytes | Picture] = []
        text: list[str] = []
        for piece in _pieces(value):
            if isinstance(piece, str):
                text.append(piece)
            else:
                parts += ["".join(text).encode(), piece]
                text.clear()
        parts.append("".join(text).encode())
        return parts


def _pieces(value: object) -> Iterator[str | Picture]:
    if isinstance(value, Picture):
        yield from ('"', value, '"')
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, entry) in enumerate(value.items()):
            yield f"{',' if number else ''}{_plain(str(key))}:"
            yield from _pieces(entry)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for number, entry in enumerate(value):
            yield "," if number else ""
            yield from _pieces(entry)
        yield "]"
    else:
        yield _plain(value)


def _plain(value: object) -> str:
    return _COMPACT(value)
