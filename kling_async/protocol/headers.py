"""
The headers of picture files: format, size, whole or cut off. Nothing is decoded.

The scan is a conversation: the generator asks for bytes at an offset and is sent them, short where the file ends,
so that the same rules hold for files, bytes and downloads.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Generator
from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["PictureHeader", "PictureScan", "UnreadablePicture", "naming", "scan_header", "sniff"]

_HEAD = 64
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # length, type and checksum: the same in every PNG
_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}  # by colour type
_JPEG_END = b"\xff\xd9"
_JPEG_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn; the three others are DHT, JPG and DAC
_JPEG_WINDOW = 65_536
# Within a scan 0xFF is followed by 0 (a stuffed byte), a restart marker or another 0xFF (fill).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_STARTS: tuple[tuple[bytes, str], ...] = (
    (_PNG_SIGNATURE, "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"8BPS", "psd"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL ", "jxl"),
    (b"\x00\x00\x00\x0cjP  ", "jp2"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "heic"
)
_MARKUP = (
    (b"<!doctype html", "html"),
    (b"<html", "html"),
    (b"<svg", "svg"),
    (b"<!doctype svg", "svg"),
    (b"<?xml", "xml"),
)
_NAMES = {
    "png": "a PNG picture", "jpeg": "a JPEG picture", "gif": "a GIF picture", "webp": "a WebP picture", "bmp": "a BMP picture",
    "tiff": "a TIFF picture", "ico": "an icon file", "psd": "a Photoshop file", "jxl": "a JPEG XL picture",
    "jp2": "a JPEG 2000 picture", "heic": "a HEIC picture", "avif": "an AVIF picture", "mp4": "a video", "pdf": "a PDF document",
    "html": "an HTML page", "svg": "an SVG drawing", "xml": "an XML document", "zip": "a ZIP archive", "gzip": "a gzip archive",
}  # fmt: skip

PictureScan: TypeAlias = "Generator[tuple[int, int], bytes, PictureHeader]"


@frozen
class PictureHeader:
    """What the header of a picture file says; EXIF is not looked at."""

    format: Literal["png", "jpeg", "webp"]
    width: int
    height: int


class UnreadablePicture(Exception):
    """A file is no whole PNG or JPEG; says what was *found*, what to do, and whether it only lacks its end. Never leaves this package."""

    def __init__(
        self, found: str, remedy: str = "convert it to PNG or JPEG", *, cut_off: bool = False
    ) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy
        self.cut_off = cut_off


def sniff(head: bytes) -> str | None:
    """Name the kind of a file from its first bytes (64 are enough): `png`, `jpeg`, `webp`, `html` …; None if unknown."""
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "mp4")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for start, kind in _MARKUP if text.startswith(start)), None)


def naming(head: bytes) -> str:
    """Say in words what kind of file begins with *head*."""
    if not head:
        return "an empty file"
    return _NAMES.get(sniff(head) or "", "a file of an unknown kind")


def scan_header(size: int, *, webp: bool = False) -> PictureScan:
    """
    Read the header of a file of *size* bytes and see whether it is whole.

    Yields (offset, length) and wants those bytes sent, short only at the end of the file. Raises UnreadablePicture.
    WebP is read only with *webp*: the service may answer with it but does not take it.

    A file that ends the way its format ends is taken to be whole; only others are walked through to look for the end.
    """
    head = yield 0, _HEAD
    kind = sniff(head)
    if kind == "png":
        return (yield from _scan_png(head, size))
    if kind == "jpeg":
        return (yield from _scan_jpeg(size))
    if kind == "webp" and webp:
        return _read_webp(head, size)
    raise UnreadablePicture(naming(head))


def _cut_off(kind: str, where: str) -> UnreadablePicture:
    return UnreadablePicture(f"a {kind} that is cut off {where}", "get the whole file", cut_off=True)


def _damaged(kind: str, what: str) -> UnreadablePicture:
    return UnreadablePicture(f"a damaged {kind} ({what})", "save the picture again")


def _scan_png(head: bytes, size: int) -> PictureScan:
    if len(head) < 33:
        raise _cut_off("PNG", "in its header")
    length, kind, width, height, depth, colour, *methods = struct.unpack(">I4sIIBBBBB", head[8:29])
    if (length, kind) != (13, b"IHDR") or zlib.crc32(head[12:29]) != int.from_bytes(head[29:33], "big"):
        raise _damaged("PNG", "its header does not match its checksum")
    if not 0 < width < 2**31 or not 0 < height < 2**31:
        raise _damaged("PNG", f"{width}x{height} pixels")
    if depth not in _PNG_DEPTHS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1:
        raise _damaged("PNG", "an impossible kind of pixels")
    offset = yield from _walk_png(33, b"IDAT")
    if (yield max(offset, size - 12), 12) != _PNG_END:
        yield from _walk_png(offset, b"IEND")
    return PictureHeader("png", width, height)


def _walk_png(offset: int, until: bytes) -> Generator[tuple[int, int], bytes, int]:
    """Go from chunk to chunk, from the one at *offset* to the end of the first of type *until*."""
    while True:
        start = yield offset, 8
        if len(start) < 8:
            raise _cut_off("PNG", f"before its {until.decode()} chunk")
        length, kind = struct.unpack(">I4s", start)
        if length >= 2**31 or not kind.isalpha():
            raise _damaged("PNG", f"no chunk at byte {offset:,}")
        offset += 12 + length
        if kind == until:
            last = yield offset - 4, 4
            if len(last) < 4:
                raise _cut_off("PNG", f"in its {until.decode()} chunk")
            return offset
        if kind == b"IEND":
            raise _damaged("PNG", "no pixels in it")


def _scan_jpeg(size: int) -> PictureScan:
    frame: PictureHeader | None = None
    offset = 2
    while True:
        marker, offset, length = yield from _next_segment(offset)
        if marker in _JPEG_FRAMES:
            frame = _read_frame((yield offset + 2, 6), length)
        elif marker in {0xD8, 0xD9}:
            raise _damaged("JPEG", "no picture in it")
        offset += length
        if marker == 0xDA:
            break
    if frame is None:
        raise _damaged("JPEG", "its pixels come before their size")
    # Cameras put more pictures, previews or nothing at all behind the end; only then it must be looked for.
    if (yield max(offset, size - 2), 2) != _JPEG_END:
        yield from _find_jpeg_end(offset)
    return frame


def _next_segment(offset: int) -> Generator[tuple[int, int], bytes, tuple[int, int, int]]:
    """Read the marker at *offset*; returns it with the offset and the length of its segment (0 if it has none)."""
    while True:
        found = yield offset, 4
        if len(found) < 2:
            raise _cut_off("JPEG", "before its end")
        if found[0] != 0xFF:
            raise _damaged("JPEG", f"no marker at byte {offset:,}")
        if found[1] == 0xFF:
            offset += 1  # a fill byte
        elif found[1] in _JPEG_BARE:
            offset += 2
        else:
            break
    if found[1] in {0xD8, 0xD9}:
        return found[1], offset + 2, 0
    if len(found) < 4:
        raise _cut_off("JPEG", "in a segment")
    length = int.from_bytes(found[2:4], "big")
    if length < 2:
        raise _damaged("JPEG", f"an impossible segment at byte {offset:,}")
    return found[1], offset + 2, length


def _read_frame(fields: bytes, length: int) -> PictureHeader:
    if len(fields) < 6:
        raise _cut_off("JPEG", "in its header")
    _depth, height, width, components = struct.unpack(">BHHB", fields)
    if not width or not height or length != 8 + 3 * components:
        raise _damaged("JPEG", f"{width}x{height} pixels of {components} colours")
    return PictureHeader("jpeg", width, height)


def _find_jpeg_end(offset: int) -> Generator[tuple[int, int], bytes, None]:
    """Go through scans, and the tables between them, from pixel data at *offset* to the end of the picture."""
    while True:
        window = yield offset, _JPEG_WINDOW
        match = _JPEG_MARKER.search(window)
        if match is None:
            if len(window) < _JPEG_WINDOW:
                raise _cut_off("JPEG", "in its pixels")
            offset += len(window) - 1  # a marker may lie across the border
            continue
        offset += match.start()
        marker, start, length = yield from _next_segment(offset)
        if marker == 0xD9:
            return
        offset = start + length


def _read_webp(head: bytes, size: int) -> PictureHeader:
    if len(head) < 30 or size < int.from_bytes(head[4:8], "little") + 8:
        raise _cut_off("WebP", "before its end")
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[26:30]))
    else:
        raise _damaged("WebP", "no header of a picture in it")
    return PictureHeader("webp", width, height)
