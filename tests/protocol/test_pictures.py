from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import MAX_BYTES, PictureHeader, UnreadablePicture, check_picture, refusal


def check(width: int, height: int, size: int = 1000) -> None:
    check_picture(PictureHeader("png", width, height), size, "subject_images[1]", "dress.png")


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (300, 300, 1),
        (300, 750, 1),
        (750, 300, 1),
        (1200, 900, 9_900_000),
        (1200, 900, MAX_BYTES),
        (65535, 65535, 9),
    ],
)
def test_pictures_at_the_bounds_pass(width: int, height: int, size: int) -> None:
    """The bounds of the seed are inclusive: 300 px, 1:2.5, 2.5:1 and ten million bytes."""
    check(width, height, size)


@pytest.mark.parametrize(
    ("width", "height", "size", "words"),
    [
        (299, 300, 1, ["300 px", "299x300"]),
        (300, 299, 1, ["300 px", "300x299"]),
        (300, 751, 1, ["1:2.5", "1:2.50", "300x751"]),
        (780, 300, 1, ["2.5:1", "2.60:1"]),
        (300, 780, 1, ["1:2.60"]),
        (300, 300, MAX_BYTES + 1, ["10 MB", "10,000,001"]),
        (300, 300, 10_100_000, ["10,100,000"]),
        (10, 10, 10_590_617, ["10,590,617"]),
    ],
)  # fmt: skip
def test_pictures_past_the_bounds_are_refused(width: int, height: int, size: int, words: list[str]) -> None:
    """A picture past a bound is refused with field, rule, value, file name and remedy in one line."""
    with pytest.raises(InvalidJob) as caught:
        check(width, height, size)

    error = caught.value
    assert error.field == "subject_images[1]"
    assert "dress.png" in error.value
    assert error.remedy
    assert "\n" not in str(error)
    assert all(word in str(error) for word in words)


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_rotation_changes_nothing(width: int, height: int) -> None:
    """The rules on sides and ratio are the same for a picture turned by 90 degrees."""

    def passes(width: int, height: int) -> bool:
        try:
            check(width, height)
        except InvalidJob:
            return False
        return True

    assert (
        passes(width, height)
        == passes(height, width)
        == (min(width, height) >= 300 and 0.4 <= width / height <= 2.5)
    )


def test_a_refusal_names_everything() -> None:
    """What the scan found becomes an error with the field, the file and what to do."""
    error = refusal(UnreadablePicture("a GIF picture"), "style_image", "logo.png")

    assert (
        str(error)
        == "style_image: expected a whole PNG or JPEG picture, found a GIF picture (logo.png); convert it to PNG or JPEG"
    )
