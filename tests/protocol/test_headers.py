from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kling_async.protocol.headers import PictureHeader, UnreadablePicture, naming, scan_header, sniff


def scan(data: bytes, *, webp: bool = False) -> PictureHeader:
    """Answer every question of the scan from *data*."""
    conversation = scan_header(len(data), webp=webp)
    offset, length = next(conversation)
    while True:
        try:
            offset, length = conversation.send(data[offset : offset + length])
        except StopIteration as end:
            header: PictureHeader = end.value
            return header


def problem(data: bytes, *, webp: bool = False) -> UnreadablePicture:
    with pytest.raises(UnreadablePicture) as caught:
        scan(data, webp=webp)
    return caught.value


def outcome(data: bytes) -> bool:
    """Scan *data* and tell whether what came out, a header or the one error, is complete."""
    try:
        header = scan(data, webp=True)
    except UnreadablePicture as found:
        return bool(found.found and found.remedy and str(found) == found.found)
    return header.width > 0 and header.height > 0


@cache
def noise(mode: str = "RGB", size: tuple[int, int] = (330, 310)) -> Image.Image:
    return Image.effect_noise(size, 90).convert(mode)


def encode(format: str, mode: str = "RGB", **options: Any) -> bytes:  # noqa: A002  # Pillow's own name
    buffer = io.BytesIO()
    noise(mode).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    *, ihdr: bytes | None = None, rest: bytes | None = None, width: int = 330, height: int = 310
) -> bytes:
    head = ihdr if ihdr is not None else struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    tail = rest if rest is not None else chunk(b"IDAT", b"pixels") + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + tail


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(marker: int = 0xC0, width: int = 330, height: int = 310, components: int = 3) -> bytes:
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + b"abc" * components)


def jpeg(*parts: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(parts)


START = segment(0xDA, b"\x03abcdef\0\x3f\0")
PIXELS = b"\x12\x34\xff\x00\x56\xff\xd0\x78"
END = b"\xff\xd9"


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode("PNG"),
        lambda: encode("PNG", "RGBA"),
        lambda: encode("PNG", "P"),
        lambda: encode("PNG", "1"),
        lambda: encode("PNG", save_all=True, append_images=[noise()]),
        lambda: encode("PNG") + b"trailer",
        lambda: encode("JPEG"),
        lambda: encode("JPEG", "L", quality=20),
        lambda: encode("JPEG", "CMYK"),
        lambda: encode("JPEG", progressive=True),
        lambda: encode("JPEG", icc_profile=b"\xff\xd9" * 40_000),
        lambda: encode("JPEG", restart_marker_blocks=2),
        lambda: encode("JPEG", exif=Image.Exif().tobytes()),
        lambda: encode("MPO", save_all=True, append_images=[noise()]),
        lambda: encode("JPEG") + b"\0" * 100_000,
        lambda: encode("JPEG", progressive=True) + b"SEFHe\xff\0\0trailer",
        lambda: encode("WEBP"),
        lambda: encode("WEBP", lossless=True),
        lambda: encode("WEBP", save_all=True, append_images=[noise()]),
    ],
)
def test_real_pictures_are_read(make: Callable[[], bytes]) -> None:
    """Whole pictures as Pillow writes them, trailers included, show their format and size."""
    data = make()

    header = scan(data, webp=True)

    assert (header.width, header.height) == (330, 310)
    assert header.format == sniff(data)


def test_exif_does_not_change_the_size() -> None:
    """The size is that of the stored pixels, whatever rotation EXIF asks for."""
    exif = Image.Exif()
    exif[0x0112] = 6

    assert scan(encode("JPEG", exif=exif.tobytes())) == PictureHeader("jpeg", 330, 310)


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCF])
def test_every_kind_of_frame_is_read(marker: int) -> None:
    """Each start-of-frame marker gives the size, with fill bytes and markers without segment between."""
    data = jpeg(segment(0xC4, b"table"), b"\xff\x01", b"\xff\xff\xff" + frame(marker)[1:], START, PIXELS, END)

    assert scan(data) == PictureHeader("jpeg", 330, 310)


def test_the_end_is_found_behind_several_scans() -> None:
    """Tables between scans may hold what looks like an end; only the real one counts."""
    tables = segment(0xC4, b"\xff\xd9\xff\xd9")
    whole = jpeg(frame(), START, PIXELS, tables, START, PIXELS, END)

    assert scan(whole + b"trailer").format == "jpeg"
    assert problem(whole[:-2] + b"\xff").cut_off


def test_a_marker_across_the_border_of_two_reads_is_seen() -> None:
    """The search for the end goes on over the borders of its windows."""
    for more in range(3):
        pixels = b"\x11" * (65_536 - 2 + more)

        assert scan(jpeg(frame(), START, pixels, END, b"trailer")).format == "jpeg"
        assert problem(jpeg(frame(), START, pixels, b"\x11")).cut_off


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode("PNG"),
        lambda: png(
            rest=chunk(b"tEXt", b"x" * 40) + chunk(b"IDAT", b"a") + chunk(b"IDAT", b"b") + chunk(b"IEND")
        ),
        lambda: encode("JPEG", quality=10),
        lambda: encode("JPEG", progressive=True, quality=10),
        lambda: encode("WEBP", quality=5),
    ],
)
def test_every_truncation_is_noticed(make: Callable[[], bytes]) -> None:
    """A picture cut off anywhere is told from a whole one, with a remedy that says so."""
    data = make()
    size = len(data)
    cuts = {*range(16, min(1500, size)), *range(max(16, size - 1500), size), *range(16, size, 997)}

    for cut in cuts:
        found = problem(data[:cut], webp=True)
        assert found.cut_off, (cut, found.found)
        assert "cut off" in found.found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"GIF89a" + b"\0" * 60, "GIF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"),
        (b"BM" + b"\0" * 60, "BMP"),
        (b"II*\0" + b"\0" * 60, "TIFF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", "HTML"),
        (b"<html><body>not found", "HTML"),
        (b"<svg xmlns=", "SVG"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"once upon a time", "unknown"),
        (b"\x89PNG\r\n\n", "unknown"),
    ],
)  # fmt: skip
def test_other_files_are_named(data: bytes, words: str) -> None:
    """A file that is no PNG or JPEG is named by what it is, whatever its name says."""
    assert words in problem(data).found
    assert words in naming(data)


@pytest.mark.parametrize(
    "data",
    [
        png(width=0),
        png(height=0),
        png(width=2**31),
        png(ihdr=struct.pack(">IIBBBBB", 300, 300, 7, 2, 0, 0, 0)),
        png(ihdr=struct.pack(">IIBBBBB", 300, 300, 8, 5, 0, 0, 0)),
        png(ihdr=struct.pack(">IIBBBBB", 300, 300, 8, 2, 1, 0, 0)),
        png(ihdr=struct.pack(">IIBBBBB", 300, 300, 8, 2, 0, 0, 2)),
        png().replace(b"\0\0\x01\x4a", b"\0\0\x02\x4a", 1),
        png(ihdr=struct.pack(">IIBBBBBB", 300, 300, 8, 2, 0, 0, 0, 0)),
        png(rest=chunk(b"IEND")),
        png(rest=b"\0" * 40),
        png(rest=b"\xff\xff\xff\xffIDAT"),
        png(rest=chunk(b"IDAT", b"a") + b"\0" * 40),
        jpeg(END + b"\0"),
        jpeg(segment(0xE0), b"\xff\xd8" + frame()),
        jpeg(START, PIXELS, END),
        jpeg(frame(width=0), START, PIXELS, END),
        jpeg(frame(height=0), START, PIXELS, END),
        jpeg(frame(components=0) + b"abc", START),
        jpeg(segment(0xC0, b"\x08\x01\x40\x01\x40\x03"), START, PIXELS, END),
        jpeg(segment(0xE0), b"\0\0\0\0"),
        jpeg(b"\xff\xe0\0\x01" + frame()),
    ],
)
def test_damaged_headers_are_refused(data: bytes) -> None:
    """Impossible sizes, checksums that do not match and segments that lead nowhere are damage, not truncation."""
    found = problem(data)

    assert "damaged" in found.found
    assert not found.cut_off


@pytest.mark.parametrize("body", [b"VP8X", b"VP8L\0\0\0\0\0", b"VP8 \0\0\0\0\0\0\0abc", b"ALPH"])
def test_damaged_webp_is_refused(body: bytes) -> None:
    """A WebP file without the header of a picture is damaged or cut off."""
    data = b"RIFF" + struct.pack("<I", 50) + b"WEBP" + body

    assert problem(data, webp=True).cut_off
    if body != b"VP8X":
        assert "damaged" in problem(data.ljust(58, b"\0"), webp=True).found


@settings(max_examples=400)
@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", png()[:33], jpeg(frame()), jpeg(frame(), START)]
    ),
    st.binary(max_size=300),
)
def test_no_bytes_make_it_fail_otherwise(start: bytes, rest: bytes) -> None:
    """Whatever the bytes, the scan ends with a header of sane size or with its one error."""
    data = start + rest

    assert outcome(data)


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_never_crash(data: st.DataObject) -> None:
    """A real picture with a few bytes changed is read or refused, nothing else."""
    picture = bytearray(
        data.draw(st.sampled_from([png(), jpeg(segment(0xE1, b"x" * 30), frame(), START, PIXELS, END)]))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))

    assert outcome(bytes(picture))
