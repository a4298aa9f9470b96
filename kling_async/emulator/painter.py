"""
Paints the results: the subjects, cut out, stand in the scene in the colours of the style picture.

A composite, not a generated picture, but one in which the inputs are recognised. Every picture is stamped EMULATED
and marked in its PNG text. Deterministic: the same order, index and seed give the same bytes. Needs Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import sha256
from io import BytesIO
from random import Random
from typing import TypeAlias

from attrs import field, frozen
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, ImageStat
from PIL.PngImagePlugin import PngInfo

from kling_async.emulator.cutout import Cut, cut_out
from kling_async.emulator.pictures import Material, UnreadablePicture
from kling_async.emulator.scenery import stand_in
from kling_async.emulator.stamp import KEYWORD, ratio_size

__all__ = ["Commission", "paint", "shrink"]

# The side of the copies that are kept: enough for a subject in a picture of one megapixel.
_KEPT_SIDE = 720
# How far colours move towards the style picture: the scene's first, then a little of everything, so that subjects
# stay themselves; and how strongly the style's light falls on the result.
_SCENE_PULL, _WHOLE_PULL, _STYLE_LIGHT = 0.6, 0.3, 0.1

Picture: TypeAlias = Image.Image


@frozen(kw_only=True)
class Commission:
    """What one result picture is painted from."""

    materials: Sequence[Material] = field(repr=False)
    prompt: str
    ratio: str
    index: int
    seed: str
    area: float
    watermark: bool = False

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides how the picture looks."""
        parts = [
            self.prompt,
            self.ratio,
            str(self.index),
            self.seed,
            *(each.role + each.seed for each in self.materials),
        ]
        return sha256("\0".join(parts).encode()).hexdigest()


def shrink(data: bytes) -> bytes:
    """Return a small copy of the picture in *data*, upright; UnreadablePicture if it cannot be decoded."""
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as picture:
            picture.draft("RGB", (_KEPT_SIDE, _KEPT_SIDE))
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            upright.thumbnail((_KEPT_SIDE, _KEPT_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
            clear = upright.has_transparency_data
            return _encode(upright.convert("RGBA" if clear else "RGB"), "PNG" if clear else "JPEG")
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        # Pillow has no common parent for what a broken file may raise.
        raise UnreadablePicture(str(error)) from error


def _encode(picture: Picture, kind: str) -> bytes:
    out = BytesIO()
    picture.save(out, kind, quality=88) if kind == "JPEG" else picture.save(out, kind, compress_level=1)
    return out.getvalue()


def paint(commission: Commission) -> bytes:
    """Return the picture of *commission* as PNG."""
    dice = Random(commission.fingerprint)
    size = ratio_size(commission.ratio, commission.area)
    subjects = [each for each in commission.materials if each.role == "subject"]
    scene, style = _first(commission, "scene"), _first(commission, "style")
    canvas = _recolour(_backdrop(scene, style or _load(subjects[0]), size, dice), style, _SCENE_PULL, dice)
    _place(canvas, [_cut(each) for each in subjects], commission.index, dice)
    canvas = _light(_recolour(canvas, style, _WHOLE_PULL, dice), style, dice)
    return _sign(canvas, commission)


def _first(commission: Commission, role: str) -> Picture | None:
    return next((_load(each) for each in commission.materials if each.role == role), None)


# The same subjects come again in every picture of an order, and in many orders of a batch.
@lru_cache(maxsize=24)
def _cut(material: Material) -> Cut:
    return cut_out(_load(material))


def _load(material: Material) -> Picture:
    if material.data is None:
        return stand_in(material.role, material.seed)
    picture = Image.open(BytesIO(material.data))
    picture.load()
    return picture


def _backdrop(scene: Picture | None, palette: Picture, size: tuple[int, int], dice: Random) -> Picture:
    if scene is None:
        return _studio(palette, size)
    flat = scene.convert("RGB")
    if dice.random() < 0.5:
        flat = ImageOps.mirror(flat)
    zoom = dice.uniform(0.86, 1.0)
    width, height = size
    across = min(flat.width, flat.height * width / height) * zoom
    down = across * height / width
    left, top = (flat.width - across) * dice.random(), (flat.height - down) * dice.uniform(0.5, 1.0)
    return flat.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + across, top + down))


def _studio(palette: Picture, size: tuple[int, int]) -> Picture:
    """Return a plain backdrop, a wall that meets a floor, for an order without a scene."""
    tone = ImageStat.Stat(palette.convert("RGB").resize((24, 24))).mean
    wall = tuple(round(150 + 0.4 * value) for value in tone)
    floor = tuple(round(90 + 0.45 * value) for value in tone)
    small = Image.new("RGB", (16, 64), wall)
    ImageDraw.Draw(small).rectangle((0, 44, 16, 64), fill=floor)
    return small.filter(ImageFilter.GaussianBlur(4)).resize(size, Image.Resampling.BICUBIC)


def _place(canvas: Picture, subjects: Sequence[Cut], index: int, dice: Random) -> None:
    """Stand the subjects side by side on the ground of *canvas*, each with its shadow, the far ones first."""
    width, height = canvas.size
    count = len(subjects)
    turn = index % count
    row = [*subjects[turn:], *subjects[:turn]]
    room = width / (count + 0.35)
    spots = []
    for number, subject in enumerate(row):
        tall = height * dice.uniform(0.6, 0.74) * (0.92 if count > 2 else 1.0)
        scale = min(tall / subject.picture.height, room * 1.08 / subject.picture.width)
        half = subject.picture.width * scale / 2 + 0.015 * width
        wished = width * (number + 0.5) / count + room * dice.uniform(-0.09, 0.09)
        middle = min(max(wished, half), width - half)
        ground = height * dice.uniform(0.88, 0.955)
        spots.append((ground, middle, scale, dice.random() < 0.4, subject))
    for ground, middle, scale, mirrored, subject in sorted(spots, key=lambda spot: spot[0]):
        _stand(
            canvas, ImageOps.mirror(subject.picture) if mirrored else subject.picture, (middle, ground), scale
        )


def _stand(canvas: Picture, subject: Picture, foot: tuple[float, float], scale: float) -> None:
    size = (max(1, round(subject.width * scale)), max(1, round(subject.height * scale)))
    left, top = round(foot[0] - size[0] / 2), round(foot[1] - size[1])
    _shadow(canvas, foot, size)
    figure = subject.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    canvas.paste(figure.convert("RGB"), (left, top), figure.getchannel("A"))


def _shadow(canvas: Picture, foot: tuple[float, float], size: tuple[int, int]) -> None:
    # Drawn at an eighth of the size: a blur that wide needs no more.
    wide, deep = size[0] * 1.15, max(12.0, size[0] * 0.2)
    small = (max(8, round(wide / 8)), max(4, round(deep / 8) + 2))
    mask = Image.new("L", (small[0] + 8, small[1] + 8), 0)
    ImageDraw.Draw(mask).ellipse((4, 4, small[0] + 3, small[1] + 3), fill=150)
    mask = mask.filter(ImageFilter.GaussianBlur(1.6))
    mask = mask.resize((mask.width * 8, mask.height * 8), Image.Resampling.BICUBIC)
    corner = (round(foot[0] - mask.width / 2), round(foot[1] - mask.height / 2 - deep * 0.1))
    canvas.paste((14, 16, 26), corner, mask)


def _recolour(canvas: Picture, style: Picture | None, pull: float, dice: Random) -> Picture:
    """Move mean and spread of each channel towards the style's; without one, a little towards the prompt's mood."""
    here = ImageStat.Stat(canvas.resize((64, 64), Image.Resampling.BOX))
    if style is None:
        means, spreads = [value + dice.uniform(-18, 18) for value in here.mean], here.stddev
    else:
        there = ImageStat.Stat(style.convert("RGB").resize((64, 64), Image.Resampling.BOX))
        means, spreads = [value + dice.uniform(-9, 9) for value in there.mean], there.stddev
    table: list[int] = []
    for mean, spread, to_mean, to_spread in zip(here.mean, here.stddev, means, spreads, strict=True):
        gain = 1 + pull * (min(1.4, max(0.7, (to_spread + 8) / (spread + 8))) - 1)
        middle = mean + pull * (to_mean - mean)
        table += [min(255, max(0, round(middle + (value - mean) * gain))) for value in range(256)]
    return canvas.point(table)


def _light(canvas: Picture, style: Picture | None, dice: Random) -> Picture:
    """Lay a glow and the style's blurred light over the picture, and a darker rim."""
    glow = canvas.reduce(16).filter(ImageFilter.GaussianBlur(2))
    if style is not None:
        wash = (
            style.convert("RGB")
            .resize((12, 8), Image.Resampling.BOX)
            .resize(glow.size, Image.Resampling.BICUBIC)
        )
        glow = Image.blend(ImageChops.screen(glow, glow), wash, 0.5)
    strength = _STYLE_LIGHT * dice.uniform(0.8, 1.4)
    canvas = Image.blend(canvas, glow.resize(canvas.size, Image.Resampling.BILINEAR), strength)
    return ImageChops.multiply(canvas, _rim(canvas.size))


@cache
def _rim(size: tuple[int, int]) -> Picture:
    # The gradient is 0 in the middle and 255 at the corners; its square has no visible ring.
    shade = Image.radial_gradient("L").resize(size, Image.Resampling.BICUBIC)
    shade = shade.point([255 - round(62 * (value / 255) ** 3) for value in range(256)])
    return Image.merge("RGB", (shade, shade, shade))


def _sign(canvas: Picture, commission: Commission) -> bytes:
    _label(canvas, "EMULATED", right=True)
    if commission.watermark:
        _label(canvas, "watermark", right=False)
    marks = PngInfo()
    marks.add_text(KEYWORD, f"emulated picture; index {commission.index}; order {commission.fingerprint}")
    out = BytesIO()
    canvas.save(out, "PNG", compress_level=1, pnginfo=marks)
    return out.getvalue()


def _label(canvas: Picture, text: str, *, right: bool) -> None:
    tall = max(9, round((canvas.width * canvas.height) ** 0.5 / 46))
    plate = _plate(text, tall)
    gap = round(tall * 0.8)
    left = canvas.width - plate.width - gap if right else gap
    canvas.paste(plate.convert("RGB"), (left, canvas.height - plate.height - gap), plate.getchannel("A"))


@cache
def _plate(text: str, tall: int) -> Picture:
    font = ImageFont.load_default(size=tall)
    box = font.getbbox(text)
    pad = round(tall * 0.55)
    size = (round(box[2] - box[0]) + 2 * pad, round(box[3] - box[1]) + 2 * pad)
    plate = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(plate)
    pen.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=size[1] // 2, fill=(12, 14, 20, 150))
    pen.text((pad - box[0], pad - box[1]), text, font=font, fill=(255, 255, 255, 235))
    return plate
