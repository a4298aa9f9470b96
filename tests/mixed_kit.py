"""A folder of pictures as people have them: many formats, kinds of pixels and shapes, and what is to become of each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

__all__ = ["make_folder"]


def _scene(size: tuple[int, int], number: int) -> Image.Image:
    """A small picture that is not the same for any two numbers."""
    image = Image.linear_gradient("L").resize(size)
    colour = Image.merge("RGB", (image, image.point(lambda v: 255 - v), image.point(lambda v: (v * 3) % 256)))
    draw = ImageDraw.Draw(colour)
    draw.ellipse((number % 50, number % 40, 120 + number, 100 + number), fill=(number * 37 % 256, 80, 160))
    return colour


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes, *, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3 + len(path.stem) % 6
    image.save(path, exif=exif)


def _moving(image: Image.Image, path: Path) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(90), image.rotate(180)])


def _mode(mode: str) -> Callable[[Image.Image, Path], None]:
    return lambda image, path: image.convert(mode).save(path)


def _see_through(image: Image.Image, path: Path) -> None:
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    image.save(path)


def _plain(image: Image.Image, path: Path) -> None:
    image.save(path)


def _deep(image: Image.Image, path: Path) -> None:
    width, height = image.size
    row = b"\0" + bytes(range(256)) * (width * 6 // 256 + 1)
    path.write_bytes(_png(width, height, (row[: 1 + width * 6]) * height, depth=16))


def _cut(image: Image.Image, path: Path) -> None:
    image.save(path)
    path.write_bytes(path.read_bytes()[:-300])


def _text(_: Image.Image, path: Path) -> None:
    path.write_text("<!doctype html><p>not found</p>", encoding="utf-8")


def _bomb(_: Image.Image, path: Path) -> None:
    path.write_bytes(_png(20_000, 20_000, b"\0" * 1000))


def _fat(image: Image.Image, path: Path) -> None:
    image.resize((2000, 1800)).save(path, compress_level=0)


_USUAL = (420, 330)
# How a file is made, what it is called, its size, and words of what is told of it: empty for nothing, "!" for a refusal.
_KINDS: tuple[tuple[Callable[[Image.Image, Path], None], str, tuple[int, int], str], ...] = (
    (_plain, "png", _USUAL, ""),
    (_plain, "jpg", _USUAL, ""),
    (_mode("L"), "png", _USUAL, ""),
    (_mode("L"), "jpeg", _USUAL, ""),
    (_plain, "webp", _USUAL, "WebP saved as JPEG"),
    (_plain, "gif", _USUAL, "GIF saved as PNG"),
    (_moving, "gif", _USUAL, "only the first frame taken"),
    (_moving, "png", _USUAL, "only the first frame taken"),
    (_moving, "tiff", _USUAL, "only the first frame taken"),
    (_plain, "bmp", _USUAL, "BMP saved as PNG"),
    (_plain, "tif", _USUAL, "TIFF saved as PNG"),
    (_mode("CMYK"), "jpg", _USUAL, "CMYK made RGB"),
    (_mode("CMYK"), "tif", _USUAL, "CMYK made RGB"),
    (_mode("P"), "png", _USUAL, "a palette made RGB"),
    (_mode("1"), "png", _USUAL, "black and white made grey"),
    (_see_through, "png", _USUAL, "transparency laid on white"),
    (_mode("LA"), "png", _USUAL, "transparency laid on white"),
    (_see_through, "webp", _USUAL, "transparency laid on white"),
    (_deep, "png", _USUAL, "16 bits a channel made 8"),
    (_turned, "jpg", _USUAL, "turned the way its EXIF data says"),
    (_turned, "png", (500, 300), "turned the way its EXIF data says"),
    (_plain, "png", (200, 160), "enlarged from 200x160"),
    (_plain, "jpg", (160, 299), "enlarged from 160x299"),
    (_plain, "webp", (299, 299), "enlarged from 299x299"),
    (_plain, "png", (1000, 330), "padded with white to 1000x400"),
    (_plain, "jpg", (310, 900), "padded with white to 360x900"),
    (_plain, "png", (900, 100), "padded with white to 900x360"),
    (_plain, "jp2", _USUAL, "JPEG 2000 saved as JPEG"),
    (_fat, "png", _USUAL, "saved as PNG of"),
    (_bomb, "png", _USUAL, "!million pixels"),
    (_cut, "jpg", _USUAL, "!cut off"),
    (_text, "png", _USUAL, "!HTML page"),
    (_plain, "png", (60, 60), "!75 px"),
)


def make_folder(folder: Path, count: int) -> dict[str, str]:
    """Make *count* pictures in *folder*; returns by the name of each what is to be told of it."""
    folder.mkdir()
    told: dict[str, str] = {}
    for number, (make, ending, size, words) in enumerate(_endless(), start=1):
        if number > count:
            break
        path = folder / f"{number:03d}-{make.__name__.strip('_<>')}.{ending}"
        make(_scene(size, number), path)
        told[path.name] = words
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "inner.png").mkdir()
    return told


def _endless() -> Iterator[Any]:
    while True:
        yield from _KINDS
