"""
Cuts a subject out of its picture.

A picture with transparency is cut already. A plain background, as the seed asks for, is what is like the border and
connected to it; a picture without one becomes a soft-edged card. Needs Pillow.
"""

from __future__ import annotations

from attrs import frozen
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageStat

__all__ = ["Cut", "cut_out"]

# The side of the little map on which the background is flooded: filling is done by Python, pixel by pixel.
_MAP_SIDE = 96
# Border pixels that differ less than this from their mean are one plain colour (channels of 256 steps).
_PLAIN_SPREAD = 26.0
_BACKGROUND, _SUBJECT = 0, 255


@frozen
class Cut:
    """A subject on nothing: an RGBA picture without empty margins; *plain* tells whether it was really cut out."""

    picture: Image.Image
    plain: bool


def cut_out(picture: Image.Image) -> Cut:
    """Return the subject of *picture*."""
    if picture.has_transparency_data:
        whole = picture.convert("RGBA")
        if any(whole.getchannel("A").histogram()[:128]):
            return Cut(_trim(whole), plain=True)
    flat = picture.convert("RGB")
    colour = _border_colour(flat)
    mask = None if colour is None else _mask(flat, colour)
    plain = mask is not None and 0.03 < ImageStat.Stat(mask).mean[0] / 255 < 0.93
    if mask is None or not plain:
        mask = _card(flat.size)
    flat.putalpha(mask)
    return Cut(_trim(flat) if plain else flat, plain)


def _border_colour(picture: Image.Image) -> tuple[int, int, int] | None:
    """Return the one colour of the border, None if it has several. The foot may be anything: subjects stand on it."""
    small = picture.resize((64, 64), Image.Resampling.BOX)
    edges = [small.crop(box) for box in ((0, 0, 64, 3), (0, 0, 3, 52), (61, 0, 64, 52))]
    pixels = b"".join(edge.tobytes() for edge in edges)
    measured = ImageStat.Stat(Image.frombytes("RGB", (len(pixels) // 3, 1), pixels))
    if max(measured.stddev) > _PLAIN_SPREAD:
        return None
    red, green, blue = (round(value) for value in measured.median)
    return red, green, blue


def _mask(picture: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Return what is unlike *colour*, or like it but enclosed by the subject (a white shirt before a white wall)."""
    apart = ImageChops.difference(picture, Image.new("RGB", picture.size, colour))
    red, green, blue = apart.split()
    distance = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    distance = distance.filter(ImageFilter.BoxBlur(1))
    unlike = distance.point([min(255, max(0, (value - 14) * 12)) for value in range(256)])
    small = unlike.resize((_MAP_SIDE, _MAP_SIDE), Image.Resampling.BILINEAR)
    small = small.point([_SUBJECT if value > 70 else _BACKGROUND for value in range(256)])
    outside = _outside(small).resize(picture.size, Image.Resampling.BILINEAR)
    # Where the flood did not come, the subject is whole; where it came, the fine mask decides.
    whole = ImageChops.lighter(unlike, ImageChops.invert(outside))
    # The outermost pixels are half background: blurred and cut high, the edge moves inwards and no pale rim is left.
    return whole.filter(ImageFilter.BoxBlur(2)).point(
        [min(255, max(0, (value - 165) * 4)) for value in range(256)]
    )


def _outside(small: Image.Image) -> Image.Image:
    framed = Image.new("L", (_MAP_SIDE + 2, _MAP_SIDE + 2), _BACKGROUND)
    framed.paste(small, (1, 1))
    ImageDraw.floodfill(framed, (0, 0), 128)
    flooded = framed.point([255 if value == 128 else 0 for value in range(256)])
    return flooded.crop((1, 1, _MAP_SIDE + 1, _MAP_SIDE + 1)).filter(ImageFilter.MaxFilter(3))


def _card(size: tuple[int, int]) -> Image.Image:
    width, height = size
    soft = max(3, min(size) // 40)
    mask = Image.new("L", size, 0)
    box = (soft * 2, soft * 2, width - 1 - soft * 2, height - 1 - soft * 2)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=min(size) // 7, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(soft))


def _trim(picture: Image.Image) -> Image.Image:
    box = picture.getchannel("A").point([255 if value > 40 else 0 for value in range(256)]).getbbox()
    return picture.crop(box) if box else picture
