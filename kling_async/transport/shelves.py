"""
What keeps result pictures, said once for folders and object stores.

A picture grows as a part that nobody sees, and takes its name only when it is whole and checked. A name that is taken
already is never taken from what has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from attrs import frozen

from kling_async.protocol.headers import PictureHeader

__all__ = ["EXTENSIONS", "Check", "OtherFileExists", "Part", "SavedFile", "Shelf"]

EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}

# Looks at the header and at the whole file, open for reading from anywhere, and raises if the picture is not to be kept.
Check: TypeAlias = Callable[[PictureHeader, BinaryIO], None]


@frozen(kw_only=True)
class SavedFile:
    """
    A result picture that is kept; *location* is a path, or a URL in an object store.

    *sha256* is of its bytes, in hex; *format* is `png`, `jpeg` or `webp`.
    """

    location: Path | str
    size: int
    sha256: str
    format: str


class OtherFileExists(OSError):
    """The name is taken by a file with other content, or by something that is no file."""


class Part(Protocol):
    """A picture in the making. Every method blocks; after `discard()` none has any effect."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be taken away."""

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append *blocks*."""

    def finish(self, blocks: Iterable[bytes], check: Check) -> SavedFile | None:
        """
        Append the last *blocks*, check the picture and give it its name, with the extension of its content.

        One of that name with the same content is left as it is. Raises OtherFileExists for any other, UnreadablePicture,
        OSError, and what *check* raises. Returns None only after *discard()*, to nobody.
        """

    def discard(self) -> None:
        """Take away what is left; does nothing to a picture that has its name."""


class Shelf(Protocol):
    """A place that keeps pictures; as text it is what messages call it."""

    def part(self, stem: str) -> Part:
        """Begin the picture that is to be called *stem*; nothing happens yet."""
