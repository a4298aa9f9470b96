"""Files that pass for PNG pictures of any size: a true header and end, and anything in between."""

from __future__ import annotations

import struct
import zlib

__all__ = ["HEAD", "TAIL", "png"]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


HEAD = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1024, 1024, 8, 2, 0, 0, 0))
TAIL = _chunk(b"IEND", b"")


def png(filler: bytes, size: int) -> bytes:
    """Return such a file of *size* bytes with *filler* repeated in its middle."""
    room = max(0, size - len(HEAD) - len(TAIL) - 12)
    return HEAD + _chunk(b"IDAT", (filler * (room // len(filler) + 1))[:room]) + TAIL
