"""Jobs and the seed's rules: every limit of every field at its border, on both sides."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from attrs import fields_dict
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kling_async.errors import InvalidJob
from kling_async.protocol import jobs
from kling_async.protocol.jobs import ASPECT_RATIOS, MultiImage
from kling_async.protocol.sources import ImageSource

URL = "https://example.com/a.png"
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


def job(**fields: Any) -> MultiImage:
    return MultiImage(**{"subject_images": [URL], **fields})


def refused(**fields: Any) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        job(**fields)
    error = caught.value
    assert isinstance(error, ValueError)
    assert str(error) == f"{error.field}: expected {error.rule}, found {error.value}; {error.remedy}"
    assert all((error.field, error.rule, error.value, error.remedy))
    assert len(str(error)) < 400
    return error


ALLOWED = [
    ("subject_images", [URL]),
    ("subject_images", [URL] * 4),
    ("subject_images", (Path("a.png"),)),
    ("subject_images", (each for each in [URL, b"png"])),
    ("scene_image", None),
    ("scene_image", "meadow.jpg"),
    ("style_image", b"bytes"),
    ("prompt", None),
    ("prompt", ""),
    ("prompt", "x" * 2500),
    ("prompt", "红" * 2500),
    ("prompt", "👗" * 2500),
    ("negative_prompt", "x" * 2500),
    ("model_name", "kling-v2"),
    ("model_name", "kling-v99"),
    ("n", 1),
    ("n", 9),
    *[("aspect_ratio", ratio) for ratio in ASPECT_RATIOS],
    ("aspect_ratio", None),
    ("watermark", True),
    ("watermark", False),
    ("watermark", None),
    ("callback_url", "https://shop.example/hook"),
    ("callback_url", "http://h"),
    ("callback_url", "https://h/" + "x" * 1014),
    ("external_task_id", "a"),
    ("external_task_id", "A-z_0" + "9" * 59),
    ("key", "row 1"),
    ("key", "x" * 512),
    ("extra", {}),
    ("extra", {"resolution": "2k", "nested": [1, {"a": None}]}),
]

REFUSED = [
    ("subject_images", [], "1 to 4 pictures"),
    ("subject_images", [URL] * 5, "1 to 4 pictures"),
    ("subject_images", URL, "a list of pictures"),
    ("subject_images", b"png", "a list of pictures"),
    ("subject_images", {"url": URL}, "a list of pictures"),
    ("subject_images", 7, "a list of pictures"),
    ("subject_images", None, "a list of pictures"),
    ("scene_image", "", "a path or a URL"),
    ("scene_image", "data:image/png;base64,AAAA", "a path or a URL"),
    ("style_image", 7, "a path, an http or https URL"),
    ("prompt", "x" * 2501, "at most 2500 characters"),
    ("prompt", 7, "text"),
    ("prompt", ["a"], "text"),
    ("prompt", "red \ud83d dress", "text that UTF-8 can carry"),
    ("negative_prompt", "x" * 2501, "at most 2500 characters"),
    ("negative_prompt", "\udc00", "text that UTF-8 can carry"),
    ("model_name", "", "the name of a model"),
    ("model_name", " ", "the name of a model"),
    ("model_name", None, "the name of a model"),
    ("model_name", 2, "the name of a model"),
    ("model_name", "kling\ud800", "text that UTF-8 can carry"),
    ("n", 0, "1 to 9"),
    ("n", 10, "1 to 9"),
    ("n", -1, "1 to 9"),
    ("n", "2", "a whole number from 1 to 9"),
    ("n", True, "a whole number from 1 to 9"),
    ("n", 2.0, "a whole number from 1 to 9"),
    ("n", None, "a whole number from 1 to 9"),
    ("aspect_ratio", "5:4", "one of 16:9, 9:16, 1:1, 4:3, 3:4, 3:2, 2:3, 21:9"),
    ("aspect_ratio", "16x9", "one of 16:9"),
    ("aspect_ratio", "", "one of 16:9"),
    ("aspect_ratio", ["16:9"], "one of 16:9"),
    ("watermark", 1, "true or false"),
    ("watermark", "true", "true or false"),
    ("watermark", {"enabled": True}, "true or false"),
    ("callback_url", "", "an http.s. URL"),
    ("callback_url", "shop.example", "an http.s. URL"),
    ("callback_url", "https://", "an http.s. URL"),
    ("callback_url", 7, "an http.s. URL"),
    ("callback_url", "https://h/" + "x" * 1015, "at most 1024 characters"),
    ("external_task_id", "", "1 to 64 of the characters"),
    ("external_task_id", "x" * 65, "1 to 64 of the characters"),
    ("external_task_id", "a/b", "1 to 64 of the characters"),
    ("external_task_id", "a b", "1 to 64 of the characters"),
    ("external_task_id", "a\n", "1 to 64 of the characters"),
    ("external_task_id", "é", "1 to 64 of the characters"),
    ("external_task_id", 7, "1 to 64 of the characters"),
    ("key", "", "a text that is not empty"),
    ("key", "  ", "a text that is not empty"),
    ("key", 7, "a text that is not empty"),
    ("key", "x" * 513, "at most 512 characters"),
    ("key", "\ud800", "text that UTF-8 can carry"),
    ("extra", [], "an object of further fields"),
    ("extra", None, "an object of further fields"),
    ("extra", {"a": object()}, "values that JSON can carry"),
    ("extra", {"a": float("nan")}, "values that JSON can carry"),
    ("extra", {"a": DEEP}, "values that JSON can carry"),
    ("extra", {1: "a", "b": 2}, "values that JSON can carry"),
]


@pytest.mark.parametrize(("field", "value"), ALLOWED)
def test_what_the_rules_allow(field: str, value: object) -> None:
    """Everything up to the border passes."""
    assert isinstance(job(**{field: value}), MultiImage)


@pytest.mark.parametrize(("field", "value", "rule"), REFUSED)
def test_what_the_rules_forbid(field: str, value: object, rule: str) -> None:
    """Everything beyond the border names its field, the rule, what was found and what to do."""
    error = refused(**{field: value})

    assert error.field == field
    assert rule.replace(".s.", "(s)") in error.rule


def test_one_picture_among_several_is_named_by_its_place() -> None:
    """The third of four pictures is `subject_images[2]`."""
    assert refused(subject_images=[URL, URL, None, URL]).field == "subject_images[2]"


def test_long_values_are_shown_shortened() -> None:
    """A refusal shows the beginning of a long value and no picture's bytes."""
    assert refused(aspect_ratio="x" * 1000).value == f"'{'x' * 59}…"
    assert refused(prompt="x" * 2501).value == "2501 characters"


def test_extra_cannot_change_what_the_job_says() -> None:
    """The slots, the cost and the external id of a job are its own: `extra` holds only other fields."""
    own = job(
        scene_image=URL,
        style_image=URL,
        prompt="p",
        negative_prompt="q",
        aspect_ratio="1:1",
        watermark=True,
        callback_url=URL,
    ).body("ka-1", dict.fromkeys(("subject_images[0]", "scene_image", "style_image"), URL))

    for name in own:
        assert refused(extra={"resolution": "2k", name: 1}).value == repr(name)
    assert set(own) == jobs._WIRE_FIELDS


def test_the_smallest_body() -> None:
    """A default is not sent, but the model is: the vendor's default has changed between versions of the page."""
    assert job().body(None, {"subject_images[0]": URL}) == {
        "model_name": "kling-v2-1",
        "subject_image_list": [{"subject_image": URL}],
        "n": 1,
    }


def test_the_whole_body() -> None:
    """Every field goes where the seed wants it, and `extra` goes in as it is."""
    whole = MultiImage(
        subject_images=[URL, "b.png"],
        scene_image="scene.png",
        style_image="style.png",
        prompt="p",
        negative_prompt="",
        model_name="kling-v2",
        n=2,
        aspect_ratio="9:16",
        watermark=False,
        callback_url="https://h/x",
        external_task_id="mine",
        key="row",
        extra={"resolution": "2k"},
    )

    names = [name for name, _ in whole.pictures()]
    body = whole.body("ka-1", {name: f"<{name}>" for name in names})

    assert names == ["subject_images[0]", "subject_images[1]", "scene_image", "style_image"]
    assert body == {
        "model_name": "kling-v2",
        "prompt": "p",
        "negative_prompt": "",
        "subject_image_list": [
            {"subject_image": "<subject_images[0]>"},
            {"subject_image": "<subject_images[1]>"},
        ],
        "scene_image": "<scene_image>",
        "style_image": "<style_image>",
        "n": 2,
        "aspect_ratio": "9:16",
        "watermark_info": {"enabled": False},
        "callback_url": "https://h/x",
        "external_task_id": "ka-1",
        "resolution": "2k",
    }


def test_slots_and_units() -> None:
    """A job of n pictures holds n slots and costs 16 units a picture."""
    assert (job(n=9).slots, job(n=9).units) == (9, 144)


def test_a_job_is_a_value() -> None:
    """Jobs compare and hash by their fields, pickle, copy, and cannot be changed."""
    one = job(prompt="p", extra={"a": [1]})
    same = job(prompt="p", extra={"a": [1]})

    assert one == same == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    assert hash(one) == hash(same)
    assert one != job(prompt="p", extra={"a": [2]})
    with pytest.raises(AttributeError):
        one.n = 2  # type: ignore[misc]  # that it cannot be done is the claim


def test_a_jobs_extra_is_its_own() -> None:
    """Changing the mapping that was given changes no job."""
    given_extra = {"a": 1}
    one = job(extra=given_extra)

    given_extra["a"] = 2

    assert one.extra == {"a": 1}


# Fingerprints.


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    """This text must never change: journals and external ids rest on it."""
    assert job(prompt="p", scene_image="b.png").fingerprint() == "c8810156ebbd3541009973d43f314b88"


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "q"},
        {"negative_prompt": "p"},
        {"subject_images": [URL, URL]},
        {"subject_images": ["other.png"]},
        {"subject_images": [b"other"]},
        {"scene_image": URL},
        {"style_image": URL},
        {"model_name": "kling-v2"},
        {"n": 2},
        {"aspect_ratio": "1:1"},
        {"watermark": False},
        {"callback_url": "https://h/x"},
        {"extra": {"a": 1}},
        {"extra": {"pictures": 1}},
        {"extra": {"pictures": 2}},
    ],
)
def test_another_job_has_another_fingerprint(fields: dict[str, Any]) -> None:
    """Whatever is asked for counts."""
    assert job(prompt="p").fingerprint() != job(**{"prompt": "p"} | fields).fingerprint()


def test_extra_cannot_hide_pictures() -> None:
    """Jobs that differ only in `extra`, whatever its names are, have different fingerprints."""
    assert job(extra={"pictures": 1}).fingerprint() != job(extra={"pictures": 2}).fingerprint()


def test_names_do_not_count() -> None:
    """The same job under another key or external id is the same job; so is one with its fields in another order."""
    one = job(prompt="p", extra={"a": 1, "b": 2})
    other = job(prompt="p", extra={"b": 2, "a": 1}, key="k", external_task_id="mine")

    assert one.fingerprint() == other.fingerprint()


def test_bytes_count_by_their_content() -> None:
    """Equal bytes are equal, whatever buffer they came in; an image in memory counts by its size."""
    assert job(scene_image=b"abc").fingerprint() == job(scene_image=bytearray(b"abc")).fingerprint()
    assert job(scene_image=b"abc").fingerprint() != job(scene_image=b"abd").fingerprint()
    assert job(scene_image=Image.new("RGB", (3, 4))).fingerprint()


# Anything at all.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"subject_images": st.just([URL]) | values},
        optional=dict.fromkeys(set(fields_dict(MultiImage)) - {"subject_images"}, values),
    )
)
def test_anything_is_a_job_or_refused_plainly(fields: dict[str, Any]) -> None:
    """Whatever is put into its fields, a job is sound or an `InvalidJob`, and a sound one can be sent."""
    try:
        made = MultiImage(**fields)
    except InvalidJob:
        return

    body = made.body("ka-1", {name: "x" for name, _ in made.pictures()})

    assert json.loads(json.dumps(body, allow_nan=False).encode()) == body
    assert made.fingerprint() == MultiImage(**fields).fingerprint()
    assert all(isinstance(source, ImageSource) for _, source in made.pictures())
