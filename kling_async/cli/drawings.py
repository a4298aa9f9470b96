"""
The demo's ten reference pictures, drawn here, so that they belong to nobody else.

Four subjects on plain backgrounds, three scenes, three styles.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image

from kling_async.cli.canvas import UNITS, Canvas, Colour, Point, curve, path

__all__ = ["PICTURES", "draw_picture"]


def _wave(base: float, height: float, turns: float, phase: float) -> list[Point]:
    return [(x, base - height * math.sin(x / UNITS * turns * math.tau + phase)) for x in range(-10, 1020, 10)]


def _hill(canvas: Canvas, base: float, height: float, turns: float, phase: float, *, fill: Colour) -> None:
    canvas.shape([(-10, canvas.bottom), *_wave(base, height, turns, phase), (1010, canvas.bottom)], fill)


# Subjects


def _robot(c: Canvas) -> None:
    c.line([(500, 215), (500, 120)], "#5b6b7a", 16)
    c.ellipse(500, 105, 30, 30, fill="#ff6b5e")
    c.ellipse(490, 96, 9, 9, fill="#ffc9c2")
    for side in (-1, 1):
        c.line([(500 + side * 190, 560), (500 + side * 265, 640), (500 + side * 250, 730)], "#7d8fa0", 42)
        c.ellipse(500 + side * 250, 745, 40, 40, fill="#ffb54d")
        c.box(500 + side * 95 - 45, 800, 500 + side * 95 + 45, 890, fill="#7d8fa0", radius=14)
        c.box(500 + side * 105 - 75, 870, 500 + side * 105 + 75, 925, fill="#4b5a68", radius=27)
        c.box(500 + side * 245 - 28, 300, 500 + side * 245 + 28, 400, fill="#ffb54d", radius=20)
    c.box(265, 205, 735, 500, fill="#38b6a8", radius=90)
    c.box(265, 205, 735, 350, fill="#4cc9ba", radius=90)
    c.box(305, 250, 695, 455, fill="#17323b", radius=62)
    for side in (-1, 1):
        c.ellipse(500 + side * 92, 335, 46, 50, fill="#9ff5ff")
        c.ellipse(500 + side * 92, 335, 22, 26, fill="#17323b")
        c.ellipse(500 + side * 92 + 12, 322, 10, 10, fill="#ffffff")
        c.ellipse(500 + side * 150, 400, 24, 14, fill="#e06c75")
    c.arc((440, 350, 560, 425), 15, 165, "#9ff5ff", 12)
    c.box(455, 495, 545, 540, fill="#5b6b7a", radius=10)
    c.box(305, 530, 695, 815, fill="#38b6a8", radius=70)
    c.box(365, 585, 635, 735, fill="#eaf7f4", radius=34)
    c.line([(395, 665), (450, 665), (475, 615), (515, 710), (545, 665), (605, 665)], "#ff6b5e", 13)
    for place, colour in enumerate(("#ff6b5e", "#ffb54d", "#eaf7f4")):
        c.ellipse(440 + place * 60, 775, 17, 17, fill=colour)


def _jug(c: Canvas) -> None:
    x: float
    y: float
    handle = [(585, 285), (690, 265), (800, 320), (830, 450), (780, 590), (690, 690)]
    c.line(path(handle), "#1f4e8c", 62)
    c.line(path(handle), "#3a7bc8", 22)
    body = [(420, 190), (400, 290), (330, 400), (265, 560), (290, 740), (370, 890), (500, 905)]
    mirrored = [(1000 - x, y) for x, y in reversed(body[:-1])]
    c.shape(curve([*body, *mirrored]), "#2f6fbd")
    c.shape(
        curve(
            [(425, 250), (355, 420), (305, 560), (330, 730), (400, 860), (360, 700), (350, 560), (400, 410)]
        ),
        "#5c98dd",
    )
    c.shape(curve([(400, 160), (345, 150), (300, 128), (330, 185), (405, 260), (450, 200)], 8), "#2f6fbd")
    c.ellipse(500, 175, 112, 38, fill="#1f4e8c")
    c.ellipse(500, 178, 92, 26, fill="#12315a")
    for y, half in ((430, 178), (770, 190)):
        c.box(500 - half, y - 13, 500 + half, y + 13, fill="#f6efe0", radius=13)
    for turn in range(8):
        angle = turn * math.tau / 8
        x, y = 500 + 78 * math.cos(angle), 600 + 78 * math.sin(angle)
        c.ellipse(x, y, 40, 40, fill="#f6efe0")
    c.ellipse(500, 600, 52, 52, fill="#f2b134")
    c.ellipse(500, 600, 22, 22, fill="#d98e04")
    for x, y in ((330, 600), (670, 600), (380, 500), (620, 500), (380, 700), (620, 700)):
        c.ellipse(x, y, 13, 13, fill="#f6efe0")


def _dress(c: Canvas) -> None:
    c.line([(500, 70), (500, 130)], "#8a6a4a", 12)
    c.arc((470, 30, 530, 90), 150, 400, "#8a6a4a", 12)
    c.line([(330, 185), (500, 125), (670, 185)], "#a47f58", 20)
    for side in (-1, 1):
        c.line([(500 + side * 115, 160), (500 + side * 95, 270)], "#b3122f", 28)
    skirt = [(385, 500), (300, 640), (215, 800), (160, 905), (270, 935), (385, 910), (500, 945)]
    mirrored = [(1000 - x, y) for x, y in reversed(skirt[:-1])]
    c.shape([*skirt, *mirrored], "#d81e3f")
    for x_top, x_low in ((430, 320), (500, 500), (570, 680)):
        c.shape([(x_top - 6, 510), (x_top + 6, 510), (x_low + 34, 925), (x_low - 34, 925)], "#b3122f")
    for x_top, x_low in ((465, 410), (535, 590)):
        c.shape([(x_top - 5, 510), (x_top + 5, 510), (x_low + 26, 920), (x_low - 26, 920)], "#ef4a63")
    c.shape(
        curve(
            [
                (385, 260),
                (440, 285),
                (500, 320),
                (560, 285),
                (615, 260),
                (630, 380),
                (605, 500),
                (395, 500),
                (370, 380),
            ],
            10,
        ),
        "#d81e3f",
    )
    c.box(378, 478, 622, 530, fill="#ffd166", radius=20)
    c.ellipse(500, 504, 34, 34, fill="#f4a72c")
    c.ellipse(500, 504, 17, 17, fill="#fff3d1")
    spots = random.Random(7)
    for _ in range(70):
        y = 570 + 320 * math.sqrt(spots.random())
        half = 70 + (y - 530) * 0.6
        c.ellipse(500 + spots.uniform(-half, half), y, 9, 9, fill="#ffe9ec")


def _bird(c: Canvas) -> None:
    c.line([(430, 770), (410, 890), (360, 905)], "#f08a24", 20)
    c.line([(410, 890), (455, 908)], "#f08a24", 20)
    c.line([(540, 770), (540, 890), (490, 905)], "#f08a24", 20)
    c.line([(540, 890), (588, 906)], "#f08a24", 20)
    for place, colour in enumerate(("#f6c445", "#ee8434", "#d1495b")):
        c.shape(
            curve(
                [
                    (690, 640 + place * 26),
                    (820, 655 + place * 44),
                    (920, 720 + place * 46),
                    (780, 720 + place * 30),
                    (680, 690 + place * 20),
                ]
            ),
            colour,
        )
    c.shape(
        curve(
            [
                (345, 240),
                (480, 200),
                (590, 280),
                (660, 440),
                (740, 640),
                (640, 770),
                (460, 800),
                (300, 700),
                (245, 500),
                (270, 340),
            ]
        ),
        "#f9a620",
    )
    c.shape(curve([(300, 470), (400, 520), (480, 640), (470, 770), (380, 760), (290, 660)]), "#ffe3a3")
    c.shape(curve([(500, 430), (620, 460), (720, 580), (760, 690), (620, 690), (510, 600)]), "#d1495b")
    for place in range(3):
        c.arc(
            (515 + place * 45, 520 + place * 30, 655 + place * 38, 660 + place * 12), 20, 110, "#f7b2b7", 12
        )
    for tip in ((420, 105), (470, 92), (520, 112)):
        c.line([(450, 215), tip], "#d1495b", 20)
        c.ellipse(tip[0], tip[1], 18, 18, fill="#f9a620")
    c.shape(curve([(285, 345), (160, 385), (120, 420), (190, 430), (280, 425)]), "#ee6c2d")
    c.shape(curve([(275, 420), (190, 428), (160, 450), (220, 465), (275, 450)]), "#c94f1c")
    c.ellipse(385, 335, 62, 62, fill="#ffffff")
    c.ellipse(372, 338, 36, 38, fill="#26282c")
    c.ellipse(360, 324, 12, 12, fill="#ffffff")
    c.ellipse(430, 425, 38, 24, fill="#f47d6c")


# Scenes


def _meadow(c: Canvas) -> None:
    x: float
    y: float
    c.sky("#5db7f0", "#e3f5ff", 380)
    c.ellipse(820, 110, 62, 62, fill="#fff2a8")
    for x, y, size in ((160, 110, 1.0), (520, 70, 0.7), (660, 180, 0.55)):
        for dx, dy, r in ((-70, 12, 38), (-20, -10, 52), (42, 2, 44), (90, 16, 30)):
            c.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.8, fill="#ffffff")
    _hill(c, 330, 42, 0.8, 0.6, fill="#9fd3c7")
    _hill(c, 372, 40, 1.1, 2.8, fill="#6fbf73")
    for x in (90, 150, 205, 860, 920):
        c.box(x - 5, 345, x + 5, 400, fill="#6b4f3a")
        c.ellipse(x, 325, 30, 44, fill="#3f8f52")
        c.ellipse(x - 8, 314, 16, 24, fill="#5cab67")
    _hill(c, 425, 26, 0.9, 5.0, fill="#7ccf5f")
    c.shape([(470, 420), (490, 420), (560, 480), (520, c.bottom), (330, c.bottom), (430, 480)], "#f1dfae")
    flowers = random.Random(3)
    for _ in range(150):
        x, y = flowers.uniform(0, 1000), flowers.uniform(445, c.bottom)
        if abs(x - 460) < 110:
            continue
        size = 2 + (y - 430) / 26
        c.line([(x, y), (x, y + size * 2)], "#4f9d45", size / 3)
        c.ellipse(x, y, size, size, fill=flowers.choice(("#ff6b6b", "#ffffff", "#ffd93d", "#b388eb")))
        c.ellipse(x, y, size * 0.4, size * 0.4, fill="#f2a541")


def _harbour(c: Canvas) -> None:
    x: float
    y: float
    c.sky("#2b2d63", "#ff9e6d", 370)
    c.ellipse(610, 330, 84, 84, fill="#ffe08a")
    town = random.Random(11)
    _hill(c, 340, 30, 0.7, 1.2, fill="#5a4a78")
    for place in range(14):
        x, height = place * 74 - 20, town.uniform(70, 170)
        colour = town.choice(("#40365f", "#4d3f6e", "#37305a"))
        c.box(x, 372 - height, x + 66, 375, fill=colour)
        if place % 3 == 0:
            c.shape([(x - 4, 372 - height), (x + 33, 335 - height), (x + 70, 372 - height)], "#6e3f5c")
        for row in range(int(height // 34)):
            for column in range(3):
                if town.random() < 0.6:
                    c.box(
                        x + 9 + column * 19,
                        384 - height + row * 32,
                        x + 19 + column * 19,
                        398 - height + row * 32,
                        fill="#ffd27a",
                    )
    c.box(0, 372, 1000, c.bottom, fill="#31406f")
    for _ in range(90):
        y = town.uniform(380, c.bottom)
        x = 610 + town.gauss(0, 60 + (y - 370))
        half = 8 + (y - 370) / 6
        c.box(x - half, y, x + half, y + 4, fill=town.choice(("#ffb070", "#ffd591", "#4a5b8f")), radius=2)
    c.shape([(150, 440), (330, 440), (300, 485), (185, 485)], "#8c2f39")
    c.box(185, 445, 295, 455, fill="#f4e3c1")
    c.line([(236, 440), (236, 290)], "#e8d9bd", 7)
    c.shape([(245, 300), (245, 425), (325, 425)], "#fff4e0")
    c.shape([(227, 315), (227, 425), (165, 425)], "#ffd9b0")


def _study(c: Canvas) -> None:
    x: float
    y: float
    c.sky("#f3e0c5", "#ecd2ac", 420)
    for x in range(0, 1000, 62):
        c.box(x, 0, x + 22, 420, fill="#efd9b8")
    c.box(0, 420, 1000, c.bottom, fill="#a8704a")
    for y in (420, 452, 492, 540):
        c.box(0, y, 1000, y + 4, fill="#925d3b")
    c.box(330, 50, 670, 330, fill="#fffaf0", radius=12)
    c.box(345, 65, 655, 315, fill="#9ad4f5")
    c.shape(
        [(345, 315), *((x, 270 - 34 * math.sin((x - 345) / 60)) for x in range(345, 656, 5)), (655, 315)],
        "#7bc47f",
    )
    c.shape(
        [(345, 315), *((x, 296 + 18 * math.sin((x - 345) / 48)) for x in range(345, 656, 5)), (655, 315)],
        "#5fae6a",
    )
    c.ellipse(590, 120, 30, 30, fill="#fff1a8")
    c.box(493, 60, 507, 320, fill="#fffaf0")
    c.box(345, 180, 655, 192, fill="#fffaf0")
    for left, right, inner in ((290, 350, 330), (710, 650, 670)):
        c.shape(
            [
                (left, 35),
                (right + (right - left) * 0.4, 35),
                (inner, 180),
                (left + (right - left) * 0.6, 345),
                (left, 345),
            ],
            "#d9694f",
        )
    c.box(270, 26, 730, 42, fill="#8a5a36", radius=8)
    books = random.Random(5)
    for shelf, top in enumerate((110, 215, 320)):
        c.box(40, top, 245, top + 10, fill="#7a4d2e")
        x = 48.0
        while x < 225:
            width, height = books.uniform(11, 22), books.uniform(52, 82)
            c.box(
                x,
                top - height,
                x + width,
                top,
                fill=books.choice(("#c8553d", "#588b8b", "#f28f3b", "#2d3047", "#93b7be")),
                radius=2,
            )
            x += width + 2 + shelf * 0.5
    c.ellipse(850, 300, 64, 12, fill="#7a4d2e")
    c.box(842, 300, 858, 425, fill="#7a4d2e")
    c.box(805, 225, 895, 296, fill="#e3b23c", radius=8)
    for angle in range(-70, 71, 20):
        x, y = 850 + 110 * math.sin(math.radians(angle)), 215 - 100 * math.cos(math.radians(angle))
        c.line([(850, 230), (x, y)], "#4f8a4c", 9)
        c.ellipse(x, y, 22, 15, fill="#63a95f")
    c.ellipse(500, 510, 330, 48, fill="#c94f4f")
    c.ellipse(500, 510, 280, 38, fill="#f0c987")
    c.ellipse(500, 510, 220, 28, fill="#c94f4f")


# Styles


def _watercolour(c: Canvas) -> None:
    wash = random.Random(21)
    for _ in range(46):
        x, y, r = wash.uniform(0, 1000), wash.uniform(0, 1000), wash.uniform(60, 190)
        outline = [
            (x + r * wash.uniform(0.7, 1.15) * math.cos(a), y + r * wash.uniform(0.7, 1.15) * math.sin(a))
            for a in (step * math.tau / 11 for step in range(11))
        ]
        c.shape(
            curve(outline, 8),
            wash.choice(("#a8d5e2", "#f9c6d0", "#fbe7a1", "#c3e2c2", "#d9c9ef", "#8fc1dd")),
        )
    c.soften(15)
    for _ in range(60):
        x, y, r = wash.uniform(0, 1000), wash.uniform(0, 1000), wash.uniform(4, 16)
        c.ellipse(x, y, r, r, fill=wash.choice(("#7fb3d5", "#f1a7b7", "#f2d36b", "#9ccf9a")))
    c.soften(2)


def _woodcut(c: Canvas) -> None:
    c.ellipse(500, 420, 210, 210, fill="#d5382b")
    for row in range(13):
        base = 300 + row * 62
        for shift in (0, 20):
            colour = "#15324f" if shift == 0 else "#f4ead5"
            wave = _wave(base + shift, 26, 3 + row % 2, row * 1.3)
            low = [(x, y + 20) for x, y in reversed(wave)]
            if base > 480 or shift == 0:
                c.shape([*wave, *low], colour)
    for x, y, r in ((200, 640, 150), (780, 760, 190)):
        for ring in range(5):
            colour = "#15324f" if ring % 2 == 0 else "#f4ead5"
            c.ellipse(x, y, r - ring * r / 5.5, r - ring * r / 5.5, fill=colour)
    for place in range(16):
        angle = place * math.tau / 16
        inner, outer = (
            (500 + 240 * math.cos(angle), 420 + 240 * math.sin(angle)),
            (500 + 300 * math.cos(angle), 420 + 300 * math.sin(angle)),
        )
        if outer[1] < 430:
            c.line([inner, outer], "#d5382b", 14)


def _poster(c: Canvas) -> None:
    for place, colour in enumerate(("#ff5d8f", "#ff8e72", "#ffc15e", "#ffe29a")):
        c.box(0, place * 175, 1000, place * 175 + 176, fill=colour)
    c.ellipse(500, 460, 250, 250, fill="#fff275")
    for place in range(7):
        y = 490 + place * 36
        c.box(230, y, 770, y + 8 + place * 2.2, fill="#ffc15e" if y < 525 else "#ffe29a")
    c.box(0, 690, 1000, 1000, fill="#3a0ca3")
    for x in range(-1200, 2201, 170):
        c.line([(500 + (x - 500) * 0.18, 690), (x, 1000)], "#f72585", 6)
    for y in (700, 722, 756, 806, 878, 970):
        c.line([(0, y), (1000, y)], "#4cc9f0", 6)
    c.shape([(60, 690), (190, 520), (270, 610), (330, 560), (440, 690)], "#240046")
    c.shape([(600, 690), (720, 560), (800, 640), (880, 530), (990, 690)], "#240046")


# What is drawn, how large and on what; all sides are within the service's rules (300 px, 1:2.5 to 2.5:1).
PICTURES: dict[str, tuple[Callable[[Canvas], None], int, int, Colour]] = {
    "robot.png": (_robot, 768, 768, "#f4f1ea"),
    "jug.png": (_jug, 768, 768, "#f3ead9"),
    "dress.png": (_dress, 768, 768, "#eef3f7"),
    "bird.png": (_bird, 768, 768, "#eaf4ee"),
    "meadow.png": (_meadow, 1024, 576, "#7ccf5f"),
    "harbour.png": (_harbour, 1024, 576, "#31406f"),
    "study.png": (_study, 1024, 576, "#ecd2ac"),
    "watercolour.png": (_watercolour, 640, 640, "#fdfaf3"),
    "woodcut.png": (_woodcut, 640, 640, "#f4ead5"),
    "poster.png": (_poster, 640, 640, "#ff5d8f"),
}


def draw_picture(name: str) -> Image.Image:
    """Draw the picture *name* of `PICTURES`; the same each time, to the pixel."""
    paint, width, height, ground = PICTURES[name]
    canvas = Canvas(width, height, ground)
    paint(canvas)
    return canvas.finished()
