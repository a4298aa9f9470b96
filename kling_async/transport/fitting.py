"""
Pictures decoded and made to fit, with Pillow (extra `images`). Everything here blocks and belongs in a thread.

What is to be done is decided in `protocol.fitting`; the bytes made are the same each time for the same picture and the same
version of Pillow.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from kling_async.errors import InvalidJob, MissingExtra
from kling_async.protocol.fitting import Look, Plan, check_pixels, plan
from kling_async.protocol.pictures import MAX_BYTES, PictureRules

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode", "fit", "fit_image", "opened", "require_pillow"]

_PIL_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "HEIF", "AVIF", "JPEG2000", "ICO")
_OURS = {"MPO": "jpeg", "DIB": "bmp", "HEIF": "heic", "JPEG2000": "jp2"}
_ORIENTATION = 0x0112  # of EXIF
_SPACES = {"RGB ": {"RGB", "RGBA", "P", "PA"}, "GRAY": {"L", "LA", "1", "I;16", "I"}, "CMYK": {"CMYK"}}


def require_pillow(rules: PictureRules) -> None:
    """Raise MissingExtra if *rules* need Pillow and it is not installed; it is not imported yet."""
    if rules.need_pillow and importlib.util.find_spec("PIL") is None:
        option = "fit='auto'" if rules.fit else "verify='full'"
        raise MissingExtra(
            f"{option}: expected Pillow, found no such module; install it: pip install 'kling-async[images]'",
            "images",
        )


def fit(file: BinaryIO, size: int, field: str, what: str) -> tuple[bytes, tuple[str, ...]] | None:
    """
    Bring the picture in *file*, of *size* bytes, within the rules; None if it is within them.

    Returns the bytes of a PNG or JPEG file and what was changed. Raises InvalidJob for what cannot be decoded or made to
    fit; *what* names the picture.
    """
    with opened(file, field, what) as image:
        todo = plan(_look(image, file, size), field, what)
        return None if todo is None else _carry_out(todo, image)


def fit_image(image: Image.Image, field: str, what: str) -> tuple[bytes, tuple[str, ...]] | None:
    """Do the same with a PIL image, which counts as a PNG of no bytes."""
    todo = plan(_look(image, None, 0), field, what)
    return None if todo is None else _carry_out(todo, image)


def decode(file: BinaryIO, field: str, what: str) -> None:
    """Decode the whole picture in *file*; raises InvalidJob if that cannot be done."""
    with opened(file, field, what) as image:
        check_pixels(*image.size, field, what)
        image.load()


@contextmanager
def opened(file: BinaryIO, field: str, what: str) -> Iterator[Image.Image]:
    """Open the picture in *file*, of any kind that is taken in; raises InvalidJob, also for what happens meanwhile."""
    from PIL import Image, UnidentifiedImageError

    _load_plugins()
    formats = [name for name in _PIL_FORMATS if name in Image.OPEN]
    file.seek(0)
    try:
        with Image.open(file, formats=formats) as image:
            yield image
    except InvalidJob:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        rule, found = "a picture of a size that can be decoded", f"far too many pixels ({what})"
        raise InvalidJob.because(field, rule, found, "scale it down") from error
    except UnidentifiedImageError as error:
        found = f"one that Pillow does not know ({what})"
        remedy = "convert it to PNG or JPEG; for HEIC: pip install 'kling-async[heic]'"
        raise InvalidJob.because(field, "a picture that can be decoded", found, remedy) from error
    except Exception as error:  # any plug-in of PIL may raise anything
        found = f"{type(error).__name__}: {error} ({what})"
        raise InvalidJob.because(
            field, "a picture that can be decoded", found, "save the picture again"
        ) from error


def _load_plugins() -> None:
    from PIL import Image

    Image.init()
    if "HEIF" not in Image.OPEN and importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif  # an extra, imported where it is used

        pillow_heif.register_heif_opener()


# What is known of a picture.


def _look(image: Image.Image, file: BinaryIO | None, size: int) -> Look:
    return Look(
        format=_OURS.get(image.format or "PNG", (image.format or "PNG").lower()) if file else "png",
        width=image.width,
        height=image.height,
        size=size,
        mode=image.mode,
        orientation=_orientation(image),
        profile=_profile(image),
        # A JPEG with further pictures behind it shows its first one everywhere.
        moving=image.format != "MPO" and bool(getattr(image, "is_animated", False)),
        deep=image.mode.startswith("I")
        or (image.format == "PNG" and file is not None and _depth(file) == 16),
        see_through=image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info,
    )


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _depth(file: BinaryIO) -> int:
    """Return the bits a channel of a PNG; Pillow makes eight of sixteen on its own and does not tell."""
    place = file.tell()
    file.seek(24)
    depth = file.read(1)[0]
    file.seek(place)
    return depth


def _profile(image: Image.Image) -> str:
    """Return the name of the colour profile; empty if there is none, or one that is broken or of other pixels than these."""
    content = image.info.get("icc_profile")
    if not content:
        return ""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        name = ImageCms.getProfileDescription(profile).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
    if image.mode not in _SPACES.get(profile.profile.xcolor_space, ()):
        return ""
    return " ".join(name.split())[:60] or "a profile without a name"


# What is done.


def _carry_out(todo: Plan, image: Image.Image) -> tuple[bytes, tuple[str, ...]]:
    from PIL import Image, ImageOps

    if todo.look.moving:
        image.seek(0)
    content = image.info.get("icc_profile")
    if todo.orientation != 1:
        image = ImageOps.exif_transpose(image)
    image = _pixels(image, todo, content)
    if todo.canvas is not None:
        white = Image.new(todo.mode, todo.canvas, "white")
        white.paste(image, ((white.width - image.width) // 2, (white.height - image.height) // 2))
        image = white
    return _encoded(todo, image)


def _pixels(image: Image.Image, todo: Plan, profile: bytes | None) -> Image.Image:
    """Return the pixels as plain ones: grey or RGB, 8 bits, sRGB, nothing to be seen through."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    alpha = None
    if todo.flatten:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if todo.to_srgb and profile:
        image = _to_srgb(image if image.mode in {"L", "CMYK"} else image.convert("RGB"), profile)
    image = image.convert(todo.mode)
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, (0, 0), alpha)
        image = white
    return image


def _to_srgb(image: Image.Image, content: bytes) -> Image.Image:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(content)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None, "only a conversion in place returns nothing"
    return converted


def _encoded(todo: Plan, image: Image.Image) -> tuple[bytes, tuple[str, ...]]:
    from PIL import Image

    data, used = b"", todo.encodings[-1]
    for used in todo.encodings:
        size = (used.width, used.height)
        scaled = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        # What stands beside the pixels, such as where they were taken or the profile they had, does not go along.
        scaled.info = {}
        buffer = io.BytesIO()
        if used.quality is None:
            scaled.save(buffer, "PNG")
        else:
            scaled.save(buffer, "JPEG", quality=used.quality, subsampling=0 if used.quality > 90 else 2)
        data = buffer.getvalue()
        if len(data) <= MAX_BYTES:
            break
    return data, todo.told(used, len(data))
