"""The seed's rules, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_kit import body, subjects

from kling_async.emulator import EmulatorSettings
from kling_async.emulator.intake import LongText
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.rules import RATIOS, MultiImageOrder

SETTINGS = EmulatorSettings()
URL = "https://pictures.example/a.png"


def order(**fields: Any) -> MultiImageOrder:
    return MultiImageOrder.parse(body(**fields), SETTINGS)


def test_the_seeds_example_becomes_an_order() -> None:
    """The fields of the vendor's own example are read, the empty ones as not given."""
    read = order(
        negative_prompt="",
        subject_image_list=subjects(URL, URL),
        scene_image=URL,
        style_image=URL,
        n=2,
        aspect_ratio="9:16",
        external_task_id="",
        callback_url="",
    )

    assert [each.role for each in read.pictures] == ["subject", "subject", "scene", "style"]
    assert (read.n, read.weight, read.units, read.aspect_ratio) == (2, 2, 32, "9:16")
    assert (read.external_task_id, read.callback_url, read.watermark) == ("", "", False)


def test_what_is_not_given_has_the_seeds_defaults() -> None:
    """Without model, n, ratio and watermark the seed's defaults hold; unknown fields are ignored, `model` among them."""
    read = order(model_name=..., prompt=..., model="kling-v2-1", nonsense=[1])

    assert (read.model_name, read.n, read.aspect_ratio, read.watermark) == ("kling-v2", 1, "16:9", False)


@pytest.mark.parametrize("ratio", RATIOS)
def test_all_eight_ratios_are_taken(ratio: str) -> None:
    """Each of the eight ratios of the seed is accepted."""
    assert order(aspect_ratio=ratio).aspect_ratio == ratio


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model_name": "kling-v9"}, 1201, "model is not supported"),
        ({"model_name": 7}, 1201, "model_name must be a string"),
        ({"prompt": "x" * 2501}, 1201, "2500 characters, got 2501"),
        ({"prompt": ["x"]}, 1201, "prompt must be a string"),
        ({"negative_prompt": 1}, 1201, "negative_prompt must be a string"),
        ({"subject_image_list": ...}, 1201, "1 to 4 images, got none"),
        ({"subject_image_list": []}, 1201, "1 to 4 images, got 0"),
        ({"subject_image_list": subjects(*[URL] * 5)}, 1201, "1 to 4 images, got 5"),
        ({"subject_image_list": [URL]}, 1201, "subject_image_list[0]"),
        ({"subject_image_list": [{"image": URL}]}, 1201, "subject_image_list[0]"),
        ({"subject_image_list": subjects(URL, "")}, 1201, "subject_image_list[1]"),
        ({"scene_image": 5}, 1201, "scene_image must be a string"),
        ({"style_image": {}}, 1201, "style_image must be a string"),
        ({"n": 0}, 1201, "n must be"),
        ({"n": 10}, 1201, "n must be"),
        ({"n": "2"}, 1201, "n must be"),
        ({"n": True}, 1201, "n must be"),
        ({"n": 2.0}, 1201, "n must be"),
        ({"n": None}, 1201, "n must be"),
        ({"aspect_ratio": "5:4"}, 1201, "aspect_ratio must be one of"),
        ({"aspect_ratio": "auto"}, 1201, "aspect_ratio must be one of"),
        ({"watermark_info": True}, 1201, "watermark_info must be"),
        ({"watermark_info": {"enabled": "true"}}, 1201, "watermark_info must be"),
        ({"callback_url": "ftp://x"}, 1201, "http(s) URL"),
        ({"callback_url": "http://x/" + "y" * 1024}, 1201, "1024"),
        ({"external_task_id": 5}, 1201, "external_task_id must be a string"),
        ({"prompt": "a [[refuse]] b"}, 1301, "content security"),
        ({"prompt": "a [[policy]] b"}, 1300, "policy"),
    ],
)
def test_a_broken_rule_is_refused(fields: dict[str, Any], code: int, words: str) -> None:
    """Each broken rule is refused with its code and a message that names it."""
    with pytest.raises(Refusal) as caught:
        order(**fields)

    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.http_status == 400


def test_limits_are_inclusive() -> None:
    """2500 characters, four subjects, nine images and an empty watermark object are still accepted."""
    read = order(prompt="x" * 2500, subject_image_list=subjects(*[URL] * 4), n=9, watermark_info={})

    assert (len(read.prompt), len(read.pictures), read.n, read.watermark) == (2500, 4, 9, False)


def test_the_documented_dialect_has_another_code_for_models() -> None:
    """By the vendor's table an unknown model is 1203; live it was 1201."""
    with pytest.raises(Refusal) as caught:
        MultiImageOrder.parse(body(model_name="kling-v9"), EmulatorSettings(dialect="documented"))

    assert (caught.value.code, caught.value.http_status) == (1203, 404)


@pytest.mark.parametrize(
    ("prompt", "marker"),
    [
        ("plain", ("", "")),
        ("[[risk]] x", ("risk", "")),
        ("x [[fail: bad hat ]]", ("fail", "bad hat")),
        ("[[stuck]]", ("stuck", "")),
        ("[[unknown]]", ("", "")),
    ],
)
def test_markers_are_read_from_the_prompt(prompt: str, marker: tuple[str, str]) -> None:
    """Words in double brackets steer a task; others mean nothing."""
    assert order(prompt=prompt).marker == marker


def test_long_texts_are_texts() -> None:
    """A string that was lifted out of a long body counts as the string it is."""
    long = LongText(b"aGVsbG8=")

    read = order(scene_image=long, subject_image_list=[{"subject_image": long}], prompt=LongText(b"hi"))

    assert read.prompt == "hi"
    assert all(each.url is None for each in read.pictures)
    assert "aGVsbG8" not in repr(read)
