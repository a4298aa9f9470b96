"""Composites: size, difference, determinism, marks, and what becomes of the inputs."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest
from emulator_kit import picture
from PIL import Image, ImageDraw

from kling_async.emulator.cutout import cut_out
from kling_async.emulator.painter import Commission, paint, shrink
from kling_async.emulator.pictures import Material, UnreadablePicture
from kling_async.emulator.rules import RATIOS
from kling_async.emulator.stamp import ratio_size

SMALL = 60_000.0


def stand_in(role: str, url: str = "https://pictures.example/a.png") -> Material:
    return Material(role, sha256(url.encode()).hexdigest())


ALL = (stand_in("subject"), stand_in("subject", "b"), stand_in("scene"), stand_in("style"))


def commission(**options: Any) -> Commission:
    usual: dict[str, Any] = {
        "materials": ALL,
        "prompt": "x",
        "ratio": "16:9",
        "index": 0,
        "seed": "0",
        "area": SMALL,
    }
    return Commission(**{**usual, **options})


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_composite_has_the_asked_ratio_and_its_mark(ratio: str) -> None:
    """A decodable PNG of exactly the ratio, with the emulator's text in it."""
    image = opened(paint(commission(ratio=ratio)))

    assert image.size == ratio_size(ratio, SMALL)
    assert image.format == "PNG"
    assert image.info["kling-emulator"].startswith("emulated picture; index 0; order ")


def test_composites_differ_by_all_that_matters_and_repeat() -> None:
    """Index, prompt, seed, pictures and watermark each change the picture; the same commission does not."""
    others: list[dict[str, Any]] = [
        {"index": 1}, {"prompt": "y"}, {"seed": "1"}, {"materials": ALL[1:]}, {"materials": ALL[:1]}, {"watermark": True}
    ]  # fmt: skip

    painted = [paint(commission(**each)) for each in ({}, *others)]

    assert len(set(painted)) == 7
    assert paint(commission()) == painted[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_up_to_four_subjects_stand_together(count: int) -> None:
    """Every number of subjects, with and without scene and style, makes a picture."""
    subjects = [stand_in("subject", str(number)) for number in range(count)]

    for more in ((), (stand_in("scene"),), (stand_in("style"),)):
        assert opened(paint(commission(materials=(*subjects, *more), index=7))).mode == "RGB"


def test_the_scene_and_the_style_show() -> None:
    """A blue style makes the picture bluer than a red one does."""
    blue, red = (
        Material("style", name, shrink(_flat(colour)))
        for name, colour in (("b", (20, 40, 220)), ("r", (220, 40, 20)))
    )

    means = [
        opened(paint(commission(materials=(*ALL[:3], style)))).resize((1, 1)).getpixel((0, 0))
        for style in (blue, red)
    ]

    assert isinstance(means[0], tuple)
    assert isinstance(means[1], tuple)
    assert means[0][2] - means[0][0] > means[1][2] - means[1][0] + 40


def _flat(colour: tuple[int, int, int]) -> bytes:
    out = BytesIO()
    Image.new("RGB", (400, 400), colour).save(out, "PNG")
    return out.getvalue()


def test_a_subject_is_cut_from_its_plain_ground() -> None:
    """The disc is cut out, its enclosed light middle with it, and the margins fall away."""
    image = Image.new("RGB", (400, 400), (245, 245, 245))
    pen = ImageDraw.Draw(image)
    pen.ellipse((100, 100, 300, 300), fill=(180, 20, 20))
    pen.ellipse((170, 170, 230, 230), fill=(245, 245, 245))

    cut = cut_out(image)

    alpha = cut.picture.getchannel("A")
    assert cut.plain
    assert 180 < cut.picture.width < 215
    assert alpha.getpixel((1, 1)) == 0
    assert alpha.getpixel((alpha.width // 2, alpha.height // 2)) == 255


def test_transparency_is_the_cut() -> None:
    """A subject with alpha needs no cutting; alpha that hides nothing is none; a wholly empty picture stays whole."""
    clear = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    empty = cut_out(clear)
    clear.paste((9, 90, 9, 255), (100, 50, 200, 250))

    assert cut_out(clear).picture.size == (100, 200)
    assert empty.picture.size == (300, 300)
    assert cut_out(Image.new("RGBA", (300, 300), (9, 9, 9, 255))).plain is False


@pytest.mark.parametrize("busy", [True, False])
def test_without_a_plain_ground_a_subject_becomes_a_card(busy: bool) -> None:  # noqa: FBT001 - a table column
    """A picture that is busy up to its border, or plain all over, is shown whole with soft edges."""
    image = Image.new("RGB", (300, 300), (77, 99, 11))
    if busy:
        image.paste((250, 250, 250), (0, 0, 150, 300))

    cut = cut_out(image)

    assert cut.plain is False
    assert cut.picture.size == (300, 300)
    assert cut.picture.getchannel("A").getpixel((150, 150)) == 255
    assert cut.picture.getchannel("A").getpixel((0, 0)) == 0


def test_kept_copies_are_small_and_upright() -> None:
    """A copy is at most 720 pixels long, keeps alpha, and obeys the rotation of a camera."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = opened(shrink(picture(1600, 800, "JPEG", exif=exif)))
    clear = BytesIO()
    Image.new("RGBA", (900, 600), (1, 2, 3, 0)).save(clear, "PNG")

    assert turned.size == (360, 720)
    assert opened(shrink(clear.getvalue())).mode == "RGBA"
    assert len(shrink(picture(3000, 2000, "JPEG"))) < 100_000


@pytest.mark.parametrize(
    "data", [picture(900, 900)[:-900], picture(900, 900, "JPEG")[:600], b"\x89PNG\r\n\x1a\n" + bytes(50)]
)
def test_broken_pictures_are_unreadable(data: bytes) -> None:
    """What breaks off or is no picture behind its signature cannot be kept."""
    with pytest.raises(UnreadablePicture):
        shrink(data)
