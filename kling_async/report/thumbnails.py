"""
Small versions of pictures, made in a few threads and kept: a page of ten thousand pictures must not decode them whole.

Needs Pillow (extra `images`); without it there are none, and a page shows the pictures themselves.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from kling_async.errors import InvalidJob
from kling_async.transport.fitting import opened

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Thumbnails", "make_thumbnails"]

# Enough for a picture of 240 px on a screen with two dots a px.
EDGE = 480
_QUALITY = 82
# Four times this many bytes is what a thread may hold; larger pictures are shown as they are, unless a JPEG decoder can
# make them smaller on its way.
_MOST_PIXELS = 40_000_000
_MOST_THREADS = 4
_OURS = re.compile(r"[0-9a-f]{24}\.jpg")
_WHITE = (255, 255, 255)


@frozen
class Thumbnails:
    """The thumbnails there are: *names* by the picture's path, and how many pictures are *left* for another time."""

    names: dict[Path, str]
    left: int


def make_thumbnails(
    pictures: Sequence[Path],
    folder: Path,
    *,
    seconds: float | None = None,
    told: Callable[[int], object] = lambda _: None,
) -> Thumbnails:
    """
    Make the thumbnails of *pictures* that are not in *folder* yet, for as many *seconds* as there are; blocks.

    *told* is called with how many pictures were looked at. What is no picture has no thumbnail. Thumbnails of pictures
    that are not among these go.
    """
    if importlib.util.find_spec("PIL") is None:
        return Thumbnails({}, 0)
    folder.mkdir(parents=True, exist_ok=True)
    end = None if seconds is None else time.monotonic() + seconds
    present = {entry.name for entry in os.scandir(folder)}
    names: dict[Path, str] = {}
    left = 0

    def make(picture: Path) -> str | None:
        name = _name_of(picture)
        if name is None or name in present:
            return name
        if end is not None and time.monotonic() > end:
            return ""
        return name if _make(picture, folder / name) else None

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for count, (picture, name) in enumerate(zip(pictures, threads.map(make, pictures), strict=True), 1):
            if name:
                names[picture] = name
            left += name == ""
            told(count)
    if not left:
        _sweep(folder, present - set(names.values()))
    return Thumbnails(names, left)


def _name_of(picture: Path) -> str | None:
    """Return the name of a thumbnail, another one when the picture changes; None for a picture that is not there."""
    try:
        found = picture.stat()
    except (OSError, ValueError):  # no such file, or no name that a file can have
        return None
    text = f"{picture.name}\n{found.st_size}\n{found.st_mtime_ns}\n{EDGE}"
    return f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:24]}.jpg"


def _make(picture: Path, thumbnail: Path) -> bool:
    """Make one thumbnail, whole or not at all; False for what cannot be decoded."""
    try:
        with picture.open("rb") as file, opened(file, "picture", picture.name) as image:
            if image.format == "JPEG":
                image.draft("RGB", (2 * EDGE, 2 * EDGE))
            if image.width * image.height > _MOST_PIXELS:
                return False
            content = _scaled(image)
    except (InvalidJob, OSError):
        return False
    # Pictures that are alike have one thumbnail, and two threads may be at it.
    part = thumbnail.with_suffix(f".{threading.get_ident()}.part")
    part.write_bytes(content)
    part.replace(thumbnail)
    return True


def _scaled(image: Image.Image) -> bytes:
    from PIL import Image, ImageOps

    if image.mode in {"1", "P", "PA"}:
        image = image.convert("RGBA")  # a palette cannot be scaled
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    upright = ImageOps.exif_transpose(image)
    whole = upright.convert("RGBA")
    ground = Image.new("RGB", whole.size, _WHITE)
    ground.paste(whole, mask=whole)
    content = io.BytesIO()
    ground.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return content.getvalue()


def _sweep(folder: Path, names: set[str]) -> None:
    for name in names:
        if _OURS.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
