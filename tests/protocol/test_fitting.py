from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.fitting import Encoding, Look, Plan, check_pixels, plan
from kling_async.protocol.pictures import MAX_BYTES, Fitted, PictureHeader, PictureRules, check_picture


def look(**changes: Any) -> Look:
    return Look(**{"format": "png", "width": 800, "height": 600, "size": 1000, **changes})


def planned(**changes: Any) -> Plan:
    found = plan(look(**changes), "style_image", "a.png")
    assert found is not None
    return found


def told(**changes: Any) -> tuple[str, ...]:
    todo = planned(**changes)
    return todo.told(todo.encodings[0], 2_000_000)


def refused(**changes: Any) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        plan(look(**changes), "style_image", "a.png")
    assert caught.value.field == "style_image"
    assert "a.png" in caught.value.value
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"format": "jpeg"},
        {"mode": "L"},
        {"format": "jpeg", "mode": "L", "size": MAX_BYTES},
        {"profile": "sRGB IEC61966-2.1"},
        {"width": 300, "height": 750},
        {"width": 300, "height": 300},
    ],
)
def test_what_is_within_the_rules_is_not_touched(changes: dict[str, Any]) -> None:
    """A plain PNG or JPEG within the rules stays as it is, to the byte."""
    assert plan(look(**changes), "style_image", "a.png") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "webp"}, ("WebP saved as JPEG of quality 95",)),
        ({"format": "heic"}, ("HEIC saved as JPEG of quality 95",)),
        ({"format": "bmp"}, ("BMP saved as PNG",)),
        ({"format": "tiff", "mode": "CMYK"}, ("CMYK made RGB", "TIFF saved as PNG")),
        (
            {"format": "gif", "mode": "P", "moving": True},
            ("only the first frame taken", "a palette made RGB", "GIF saved as PNG"),
        ),
        ({"moving": True}, ("only the first frame taken",)),
        ({"mode": "P"}, ("a palette made RGB",)),
        ({"mode": "1"}, ("black and white made grey",)),
        ({"mode": "RGBX"}, ("RGBX made RGB",)),
        ({"mode": "RGBA", "see_through": True}, ("transparency laid on white",)),
        ({"mode": "I;16", "deep": True}, ("16 bits a channel made 8",)),
        ({"deep": True}, ("16 bits a channel made 8",)),
        ({"profile": "Display P3"}, ("colours brought from Display P3 to sRGB",)),
        ({"mode": "CMYK", "profile": "SWOP"}, ("colours brought from SWOP to sRGB",)),
        (
            {"format": "jpeg", "orientation": 6},
            ("turned the way its EXIF data says", "saved again as JPEG of quality 95"),
        ),
        ({"width": 200, "height": 150}, ("enlarged from 200x150 to 400x300",)),
        ({"width": 1200, "height": 300}, ("padded with white to 1200x480",)),
        ({"width": 300, "height": 1500}, ("padded with white to 600x1500",)),
        (
            {"width": 500, "height": 110},
            ("padded with white to 500x200", "enlarged from 500x200 to 750x300"),
        ),
        ({"width": 110, "height": 500, "orientation": 8}, ("turned the way its EXIF data says", "padded with white to 500x200", "enlarged from 500x200 to 750x300")),
        ({"size": 14_200_000}, ("PNG of 14.2 MB saved as PNG of 2.0 MB",)),
    ],
)  # fmt: skip
def test_each_change_is_the_least_and_is_told(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    """For each way to break the rules there is one change, and it is said in words."""
    assert told(**changes) == words


@pytest.mark.parametrize(
    ("changes", "mode", "flatten", "deep", "srgb"),
    [
        ({"mode": "1"}, "L", False, False, False),
        ({"mode": "I;16", "deep": True}, "L", False, True, False),
        ({"mode": "LA", "see_through": True}, "RGB", True, False, False),
        ({"format": "tiff", "mode": "L", "profile": "Dot Gain 20%"}, "RGB", False, False, True),
        ({"mode": "P"}, "RGB", False, False, False),
    ],
)
def test_grey_stays_grey_where_it_can(
    changes: dict[str, Any],
    mode: str,
    flatten: bool,  # noqa: FBT001  # a column of the table
    deep: bool,  # noqa: FBT001
    srgb: bool,  # noqa: FBT001
) -> None:
    """What is to be done with the pixels follows from their mode alone."""
    todo = planned(**changes)

    assert (todo.mode, todo.flatten, todo.to_eight_bits, todo.to_srgb) == (mode, flatten, deep, srgb)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 14_000, "height": 14_000}, "80 million"),
        ({"width": 74, "height": 74}, "75 px"),
        ({"width": 3100, "height": 300}, "10:1"),
        ({"mode": "F"}, "8 or 16 bits"),
        ({"mode": "I", "format": "tiff"}, "8 or 16 bits"),
    ],
)
def test_what_cannot_be_made_to_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    """A bomb of pixels, a picture far too small or too long, and pixels of no known range are refused with the rule."""
    assert words in refused(**changes).rule


def test_a_bomb_is_known_by_its_sides() -> None:
    """The check of the sides alone passes 80 million pixels and not one row more."""
    check_pixels(10_000, 8_000, "style_image", "a.png")
    with pytest.raises(InvalidJob, match="10000x8001"):
        check_pixels(10_000, 8_001, "style_image", "a.png")


def test_encodings_get_smaller_one_after_the_other() -> None:
    """Without loss comes first, then less quality, then fewer pixels, never below 300 in a side."""
    todo = planned(width=1000, height=600, size=20_000_000)
    sizes = [(each.quality, each.width, each.height) for each in todo.encodings]

    assert sizes[:4] == [(None, 1000, 600), (95, 1000, 600), (90, 1000, 600), (85, 1000, 600)]
    assert sizes[4:] == [(85, 800, 480), (85, 640, 384), (85, 512, 307), (85, 500, 300)]
    assert todo.encodings[0].format == "png"
    assert todo.told(todo.encodings[-1], 900_000) == (
        "scaled down from 1000x600 to 500x300",
        "PNG of 20.0 MB saved as JPEG of quality 85 of 0.9 MB",
    )


def test_a_lossy_format_is_not_blown_up() -> None:
    """What was stored with loss is not stored without, which would only be larger."""
    assert all(each.quality for each in planned(format="webp").encodings)


@given(st.integers(75, 9000), st.integers(75, 9000), st.integers(1, 8), st.sampled_from([1000, 30_000_000]))
def test_whatever_is_planned_is_within_the_rules(
    width: int, height: int, orientation: int, size: int
) -> None:
    """Every size that a plan may end with passes the rules of the service."""
    try:
        todo = plan(
            look(width=width, height=height, orientation=orientation, size=size), "style_image", "a.png"
        )
    except InvalidJob:
        assert max(width, height) > 10 * min(width, height) or width * height > 80_000_000
        return

    for each in todo.encodings if todo else ():
        check_picture(PictureHeader(each.format, each.width, each.height), 1, "style_image", "a.png")


def test_rules_are_checked() -> None:
    """Values that mean nothing are refused by name."""
    with pytest.raises(ConfigError, match="fit"):
        PictureRules(fit="always")  # type: ignore[arg-type]  # what a caller without types may pass
    with pytest.raises(ConfigError, match="verify"):
        PictureRules(verify="deep")  # type: ignore[arg-type]  # the same
    assert not PictureRules().need_pillow
    assert PictureRules(fit="auto").need_pillow
    assert PictureRules(verify="full").need_pillow


def test_what_was_fitted_survives_a_journal() -> None:
    """The record of a change says all in one line and is the same after it was written down and read."""
    fitted = Fitted(field="style_image", picture="a.webp", changes=("WebP saved as PNG", "padded"))

    assert str(fitted) == "style_image (a.webp): WebP saved as PNG, padded"
    assert Fitted.from_json(fitted.as_json()) == fitted
    assert Encoding(quality=None, width=1, height=1).format == "png"
