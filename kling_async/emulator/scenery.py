"""
Stand-ins for pictures at addresses that the emulator does not ask: painted from the address alone. Needs Pillow.

A subject is a figure on a plain ground, a scene a landscape, a style a field of brush strokes in few colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from colorsys import hls_to_rgb
from functools import lru_cache
from math import sin
from random import Random

from PIL import Image, ImageDraw, ImageFilter

__all__ = ["stand_in"]

_SIZE = (640, 400)


@lru_cache(maxsize=64)
def stand_in(role: str, seed: str) -> Image.Image:
    """Return the picture that stands in for an address with this *seed* in this *role*."""
    return _PAINTERS[role](Random(seed))


def _tone(hue: float, light: float, strength: float) -> tuple[int, int, int]:
    red, green, blue = hls_to_rgb(hue % 1, light, strength)
    return round(red * 255), round(green * 255), round(blue * 255)


def _subject(dice: Random) -> Image.Image:
    """Return a person-like figure: head, hair, coat and boots, told apart by colours and proportions."""
    picture = Image.new("RGB", (400, 600), (244, 244, 242))
    pen = ImageDraw.Draw(picture)
    hue, wide = dice.random(), dice.randint(84, 120)
    skin = _tone(0.07, dice.uniform(0.45, 0.8), 0.45)
    coat, dark = _tone(hue, 0.48, 0.6), _tone(hue, 0.3, 0.55)
    hair, boots = _tone(dice.uniform(0.02, 0.12), dice.uniform(0.15, 0.5), 0.5), _tone(hue + 0.5, 0.25, 0.4)
    for side in (-1, 1):
        pen.rounded_rectangle(_around(200 + side * 40, 505, 27, 85), 20, fill=boots)
        shoulder, hand = (200 + side * wide * 0.62, 238), (200 + side * (wide + 16), 420)
        pen.line((*shoulder, *hand), fill=dark, width=48)
        pen.ellipse(_around(*shoulder, 24, 24), fill=dark)
        pen.ellipse(_around(*hand, 24, 24), fill=skin)
    pen.polygon(
        [(200 - wide * 0.6, 225), (200 + wide * 0.6, 225), (200 + wide + 14, 470), (200 - wide - 14, 470)],
        fill=coat,
    )
    pen.rounded_rectangle(_around(200, 250, wide * 0.78, 34), 30, fill=coat)
    pen.rectangle((200 - wide * 0.85, 345, 200 + wide * 0.85, 365), fill=dark)
    pen.ellipse(_around(200, 128, 74, 80), fill=hair)
    pen.ellipse(_around(200, 145, 58, 64), fill=skin)
    pen.chord(_around(200, 118, 66, 62), 180, 360, fill=hair)
    for side in (-1, 1):
        pen.ellipse(_around(200 + side * 22, 148, 6, 8), fill=(40, 36, 40))
    pen.arc(_around(200, 168, 20, 14), 20, 160, fill=(140, 60, 60), width=4)
    return picture


def _around(x: float, y: float, wide: float, tall: float) -> tuple[float, float, float, float]:
    return x - wide, y - tall, x + wide, y + tall


def _scene(dice: Random) -> Image.Image:
    """Return hills under a sky, receding into haze."""
    width, height = _SIZE
    sky, land = dice.uniform(0.52, 0.66), dice.uniform(0.2, 0.42)
    picture = Image.new("RGB", _SIZE)
    pen = ImageDraw.Draw(picture)
    for y in range(height):
        pen.line((0, y, width, y), fill=_tone(sky, 0.58 + 0.34 * y / height, 0.55))
    sun = (dice.uniform(0.15, 0.85) * width, dice.uniform(0.12, 0.3) * height)
    pen.ellipse(_around(*sun, 30, 30), fill=(255, 248, 220))
    for number in range(5):
        base, phase = height * (0.46 + 0.1 * number), dice.uniform(0, 6)
        hills = [
            (x, base + 22 * sin(x / (120 - number * 12) + phase) + 9 * sin(x / 37 + phase))
            for x in range(0, width + 8, 8)
        ]
        tone = _tone(land + 0.03 * (4 - number), 0.64 - 0.09 * number, 0.3 + 0.05 * number)
        pen.polygon([(0, height), *hills, (width, height)], fill=tone)
    return picture.filter(ImageFilter.GaussianBlur(1))


def _style(dice: Random) -> Image.Image:
    """Return broad strokes of a palette of five related colours."""
    width, height = _SIZE
    hue = dice.random()
    palette = [
        _tone(hue + dice.uniform(-0.12, 0.12), light, dice.uniform(0.35, 0.7))
        for light in (0.25, 0.4, 0.55, 0.7, 0.85)
    ]
    picture = Image.new("RGB", _SIZE, palette[2])
    pen = ImageDraw.Draw(picture)
    for _ in range(240):
        x, y, long = dice.uniform(-40, width), dice.uniform(0, height), dice.uniform(40, 160)
        pen.line(
            (x, y, x + long, y + dice.uniform(-24, 24)), fill=dice.choice(palette), width=dice.randint(8, 26)
        )
    return picture.filter(ImageFilter.GaussianBlur(2))


_PAINTERS: Mapping[str, Callable[[Random], Image.Image]] = {
    "subject": _subject,
    "scene": _scene,
    "style": _style,
}
