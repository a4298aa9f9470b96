"""A small drawing board over Pillow: smooth edges, and units that do not depend on the size of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import define, field
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["UNITS", "Canvas", "Colour", "Point", "curve", "path"]

Colour: TypeAlias = str | tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

UNITS = 1000
OVERSAMPLING = 2


@define(eq=False)
class Canvas:
    """A picture being drawn, in units of a thousandth of its width."""

    width: int
    height: int
    ground: Colour = "#ffffff"
    image: Image.Image = field(init=False)
    pen: ImageDraw.ImageDraw = field(init=False)

    def __attrs_post_init__(self) -> None:
        size = (self.width * OVERSAMPLING, self.height * OVERSAMPLING)
        self.image = Image.new("RGB", size, self.ground)
        self.pen = ImageDraw.Draw(self.image)

    @property
    def scale(self) -> float:
        """Pixels a unit, while drawing."""
        return self.width * OVERSAMPLING / UNITS

    @property
    def bottom(self) -> float:
        """The lower edge, in units."""
        return self.height * OVERSAMPLING / self.scale

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def ellipse(self, x: float, y: float, rx: float, ry: float, *, fill: Colour) -> None:
        """Draw a filled ellipse about a point."""
        self.pen.ellipse(self._at([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def box(
        self, left: float, top: float, right: float, bottom: float, *, fill: Colour, radius: float = 0
    ) -> None:
        """Draw a filled box, its corners rounded by *radius*."""
        corners = self._at([(left, top), (right, bottom)])
        self.pen.rounded_rectangle(corners, radius * self.scale, fill=fill)

    def shape(self, points: Sequence[Point], fill: Colour) -> None:
        """Draw a filled outline."""
        self.pen.polygon(self._at(points), fill=fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draw a line with round ends and joints."""
        self.pen.line(self._at(points), fill=fill, width=round(width * self.scale), joint="curve")
        for x, y in points:  # joints of short pieces show cracks otherwise
            self.ellipse(x, y, width / 2, width / 2, fill=fill)

    def arc(
        self, box: tuple[float, float, float, float], start: float, end: float, fill: Colour, width: float
    ) -> None:
        """Draw a part of an ellipse's line, angles in degrees clockwise from three o'clock."""
        corners = self._at([box[:2], box[2:]])
        self.pen.arc(corners, start, end, fill=fill, width=round(width * self.scale))

    def sky(self, top: Colour, bottom: Colour, until: float) -> None:
        """Fill downwards to *until* from one colour to the other."""
        height = max(1, round(until * self.scale))
        column = Image.new("RGB", (1, 2))
        column.putpixel((0, 0), _rgb(top))
        column.putpixel((0, 1), _rgb(bottom))
        # The middle half of the stretched pair is the even part of its gradient.
        tall = column.resize((1, height * 2), Image.Resampling.BILINEAR).crop(
            (0, height // 2, 1, height // 2 + height)
        )
        self.image.paste(tall.resize((self.image.width, height)), (0, 0))

    def soften(self, radius: float) -> None:
        """Blur what is drawn so far."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * self.scale))
        self.pen = ImageDraw.Draw(self.image)

    def finished(self) -> Image.Image:
        """Return the picture at its size."""
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    if not isinstance(colour, str):
        return colour
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def curve(points: Sequence[Point], steps: int = 16) -> list[Point]:
    """Return a smooth closed outline through *points* (Catmull-Rom)."""
    smooth: list[Point] = []
    count = len(points)
    for place in range(count):
        a, b, c, d = (points[(place + shift) % count] for shift in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            smooth.append((_spline(a[0], b[0], c[0], d[0], t), _spline(a[1], b[1], c[1], d[1], t)))
    return smooth


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def path(points: Sequence[Point]) -> list[Point]:
    """Return a smooth open line through *points*."""
    steps = 16
    return curve([points[0], *points, points[-1]], steps)[steps : -2 * steps + 1]
