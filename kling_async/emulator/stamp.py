"""The smallest honest picture: a few pixels of one colour as PNG, made without any imaging library, for load tests."""

from __future__ import annotations

import struct
import zlib
from hashlib import sha256

__all__ = ["KEYWORD", "paint_stamp", "ratio_size", "tagged"]

# The key of the tEXt chunk by which an emulated picture can always be told from a real one.
KEYWORD = "kling-emulator"
_STAMP_AREA = 64 * 36


def ratio_size(ratio: str, area: float) -> tuple[int, int]:
    """Return the size of exactly *ratio* whose area comes closest to *area* pixels."""
    across, down = map(int, ratio.split(":"))
    scale = max(1, round((area / (across * down)) ** 0.5))
    return across * scale, down * scale


def paint_stamp(ratio: str, seed: str, text: str) -> bytes:
    """Return a tiny PNG of the asked *ratio*, its colour drawn from *seed*, with *text* under `kling-emulator`."""
    width, height = ratio_size(ratio, _STAMP_AREA)
    colour = sha256(seed.encode()).digest()[:3]
    rows = (b"\0" + colour * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        _chunk(b"IHDR", header),
        _chunk(b"tEXt", tagged(text)),
        _chunk(b"IDAT", zlib.compress(rows, 1)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tagged(text: str) -> bytes:
    """Return the content of the tEXt chunk."""
    return KEYWORD.encode() + b"\0" + text.encode("latin-1", "replace")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
