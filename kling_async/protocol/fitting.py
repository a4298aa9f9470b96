"""
How a picture that breaks the rules is brought within them, with the least change that does it (R22).

Pure: from what is known of a picture before it is decoded follows what is to be done, in which order, and what is told of
it. Whoever has the pixels does it (`transport.fitting`).

A picture that is within the rules is not touched. What is done to others, in this order: the first of several frames is
taken, the pixels are turned the way the camera was held, brought to sRGB and to eight bits a channel, transparency is laid
on white, white is added at the sides of what is too long, and what is too small is enlarged. PNG, BMP, GIF and TIFF
stay without loss (PNG) as long as they are within ten million bytes; all else becomes JPEG, of less quality and at last
smaller, until it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import Literal

from attrs import frozen

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import MAX_BYTES, MIN_SIDE
from kling_async.protocol.sources import megabytes

__all__ = [
    "CONVERTIBLE",
    "Encoding",
    "Look",
    "Plan",
    "check_pixels",
    "plan",
]

# Decoded, so many pixels take 240 MB; the largest cameras make 150 million, most below 50. Pillow warns from 89 million.
MOST_PIXELS = 80_000_000
# Beyond these nothing is left that resembles the picture: blurred squares, a strip in a white field.
MOST_ENLARGED = 4.0
MOST_LONG = 10

# Names of formats as `headers.sniff()` has them, of which a still picture can be made.
CONVERTIBLE = frozenset({"png", "jpeg", "webp", "gif", "bmp", "tiff", "heic", "avif", "jp2", "ico"})
_SHOWN = {
    "png": "PNG", "jpeg": "JPEG", "webp": "WebP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "heic": "HEIC", "avif": "AVIF",
    "jp2": "JPEG 2000", "ico": "an icon",
}  # fmt: skip
_LOSSY = frozenset({"jpeg", "webp", "heic", "avif", "jp2"})
_PLAIN_MODES = frozenset({"L", "RGB"})
_QUALITIES = (95, 90, 85)
_SMALLER = 0.8


@frozen(kw_only=True)
class Look:
    """
    What is known of a picture before it is decoded.

    *format* is named as by `headers.sniff()`, *mode* as by Pillow; *width* and *height* are those of the pixels as they are
    stored, *orientation* is EXIF's (1 to 8). *profile* is the name of the colour profile, empty for none.
    """

    format: str
    width: int
    height: int
    size: int
    mode: str = "RGB"
    orientation: int = 1
    profile: str = ""
    moving: bool = False
    deep: bool = False
    see_through: bool = False


@frozen(kw_only=True)
class Encoding:
    """One way to store the pixels: *quality* None is PNG, *width* and *height* are what they are scaled to first."""

    quality: int | None
    width: int
    height: int

    @property
    def format(self) -> Literal["png", "jpeg"]:
        """The format of the file."""
        return "png" if self.quality is None else "jpeg"


@frozen(kw_only=True)
class Plan:
    """
    What is to be done with a picture, in the order of the fields.

    *canvas* is the size it is padded to with white. *encodings* are to be tried one after the other until the file is
    small enough; the last is to be taken as it is.
    """

    look: Look
    orientation: int
    to_srgb: bool
    to_eight_bits: bool
    flatten: bool
    mode: Literal["L", "RGB"]
    canvas: tuple[int, int] | None
    encodings: tuple[Encoding, ...]
    _changes: tuple[str, ...]
    _size: tuple[int, int]

    def told(self, used: Encoding, size: int) -> tuple[str, ...]:
        """Say what was done, for people, when *used* made a file of *size* bytes."""
        changes = list(self._changes)
        if (used.width, used.height) != self._size:
            verb = "enlarged" if used.width > self._size[0] else "scaled down"
            width, height = self._size
            changes.append(f"{verb} from {width}x{height} to {used.width}x{used.height}")
        shown = _SHOWN[self.look.format]
        to = "PNG" if used.quality is None else f"JPEG of quality {used.quality}"
        if self.look.size > MAX_BYTES:
            changes.append(f"{shown} of {megabytes(self.look.size)} saved as {to} of {megabytes(size)}")
        elif used.format != self.look.format:
            changes.append(f"{shown} saved as {to}")
        elif used.quality is not None:
            changes.append(f"saved again as {to}")
        return tuple(changes)


def check_pixels(width: int, height: int, field: str, what: str) -> None:
    """Raise InvalidJob for a picture that is too large to be decoded; *what* names it."""
    if width * height > MOST_PIXELS:
        rule = f"at most {MOST_PIXELS // 1_000_000} million pixels to be decoded"
        raise InvalidJob.because(
            field, rule, f"{width}x{height} ({what})", "scale it down with a tool that you trust with it"
        )


def plan(look: Look, field: str, what: str) -> Plan | None:
    """
    Say how a picture is brought within the rules; None if it is within them.

    Raises InvalidJob for one that cannot be with anything left of it: too many pixels, far too small or too long, or
    pixels without a known range.
    """
    check_pixels(look.width, look.height, field, what)
    if look.mode == "F" or (look.mode == "I" and look.format != "png"):
        raise InvalidJob.because(
            field, "pixels of 8 or 16 bits a channel", f"mode {look.mode} ({what})", "save it with 8 bits"
        )
    upright = (look.height, look.width) if look.orientation >= 5 else (look.width, look.height)
    canvas = _canvas(*upright, field, what)
    size = canvas or upright
    scaled = _enlarged(*size, field, what)
    grey = look.mode in {"1", "L", "LA"} or look.mode.startswith("I")
    to_srgb = bool(look.profile) and "srgb" not in look.profile.lower()
    mode: Literal["L", "RGB"] = "L" if grey and not to_srgb and not look.see_through else "RGB"
    changes = tuple(_steps(look, canvas, to_srgb=to_srgb))
    within = look.format in {"png", "jpeg"} and look.size <= MAX_BYTES
    if within and scaled == size and not changes:
        return None
    return Plan(
        look=look,
        orientation=look.orientation,
        to_srgb=to_srgb,
        to_eight_bits=look.deep,
        flatten=look.see_through,
        mode=mode,
        canvas=canvas,
        encodings=tuple(_encodings(look, scaled)),
        changes=changes,
        size=size,
    )


def _steps(look: Look, canvas: tuple[int, int] | None, *, to_srgb: bool) -> Iterator[str]:
    if look.moving:
        yield "only the first frame taken"
    if look.orientation != 1:
        yield "turned the way its EXIF data says"
    if to_srgb:
        yield f"colours brought from {look.profile} to sRGB"
    elif look.mode not in _PLAIN_MODES and not look.see_through and not look.deep:
        yield f"{_MODES.get(look.mode, look.mode)} made {'grey' if look.mode == '1' else 'RGB'}"
    if look.deep:
        yield "16 bits a channel made 8"
    if look.see_through:
        yield "transparency laid on white"
    if canvas is not None:
        yield f"padded with white to {canvas[0]}x{canvas[1]}"


_MODES = {"1": "black and white", "P": "a palette", "CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "Lab"}


def _canvas(width: int, height: int, field: str, what: str) -> tuple[int, int] | None:
    """Return the size to pad to, if the picture is too long."""
    short, long = sorted((width, height))
    if long * 2 <= short * 5:
        return None
    if long > short * MOST_LONG:
        rule = f"a ratio of at most {MOST_LONG}:1, to be padded to 2.5:1"
        raise InvalidJob.because(field, rule, f"{width}x{height} ({what})", "crop it")
    wide = ceil(long * 2 / 5)
    return (width, wide) if width > height else (wide, height)


def _enlarged(width: int, height: int, field: str, what: str) -> tuple[int, int]:
    """Return the size to enlarge to, which is the size itself for a picture that is large enough."""
    short = min(width, height)
    if short >= MIN_SIDE:
        return width, height
    if short * MOST_ENLARGED < MIN_SIDE:
        rule = (
            f"at least {ceil(MIN_SIDE / MOST_ENLARGED)} px in width and height, to be enlarged to {MIN_SIDE}"
        )
        raise InvalidJob.because(field, rule, f"{width}x{height} ({what})", "use a larger picture")
    return _scaled(width, height, MIN_SIDE / short)


def _scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    """Scale, and keep the rules on sides and ratio whatever rounding does."""
    factor = max(factor, MIN_SIDE / min(width, height))
    short = max(MIN_SIDE, round(min(width, height) * factor))
    long = min(floor(short * 5 / 2), max(short, round(max(width, height) * factor)))
    return (long, short) if width > height else (short, long)


def _encodings(look: Look, size: tuple[int, int]) -> Iterator[Encoding]:
    width, height = size
    if look.format not in _LOSSY:
        yield Encoding(quality=None, width=width, height=height)
    for quality in _QUALITIES:
        yield Encoding(quality=quality, width=width, height=height)
    while min(width, height) > MIN_SIDE:
        width, height = _scaled(width, height, _SMALLER)
        yield Encoding(quality=_QUALITIES[-1], width=width, height=height)
