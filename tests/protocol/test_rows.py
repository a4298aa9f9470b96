"""Rows of a manifest: the seed's own JSON, short names, and what people get wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.rows import UNKNOWN_FIELD, job_from_row, unknown_fields
from kling_async.protocol.sources import ImageSource

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
URL = "https://example.com/a.png"
BASE = Path("/jobs")


def refused(row: object) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        job_from_row(row, BASE)
    return caught.value


def test_the_seeds_own_json() -> None:
    """The example request of the vendor's page, as it stands, is a row."""
    row = json.loads((SAMPLES / "seed_job" / "request.json").read_bytes())

    made = job_from_row(row, BASE)

    images = "https://v1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test"
    assert made == MultiImage(
        model_name="kling-v2-1",
        prompt="Wearing a flowing red dress on the grassland, in Ghibli style.",
        subject_images=[f"{images}/multi-1.png", f"{images}/multi-2.png"],
        scene_image=f"{images}/background.jpeg",
        style_image=f"{images}/16x9_jipuli.png",
        n=2,
        aspect_ratio="9:16",
    )


def test_unknown_names_are_found_together() -> None:
    """Each has the error that making the job stops at, which is the first one."""
    row = {"promt": "x", "id": "a", "subject_image_list": [URL], "  ": "y"}

    found = unknown_fields(row)

    assert list(found) == ["promt", "  "]
    assert {error.rule for error in found.values()} == {UNKNOWN_FIELD}
    assert found["promt"].remedy == "did you mean 'prompt'?"
    assert str(found["promt"]) == str(refused(row))


def test_short_names() -> None:
    """The names of `MultiImage` make the same job as those of the seed."""
    short = {"subject_images": [URL, "b.png"], "watermark": True, "key": "k", "extra": {"a": 1}}
    seeds = {
        "subject_image_list": [{"subject_image": URL}, "b.png"],
        "watermark_info": {"enabled": True},
        "id": "k",
        "extra": {"a": 1},
    }

    assert job_from_row(short, BASE) == job_from_row(seeds, BASE)
    assert job_from_row(short).watermark is True


@pytest.mark.parametrize("name", ["callback_url", "scene_image", "style_image", "negative_prompt", "prompt"])
@pytest.mark.parametrize("empty", ["", None])
def test_what_is_empty_is_not_given(name: str, empty: str | None) -> None:
    """The vendor's examples send empty texts for what is not given (facts 7.7), and null means the same."""
    assert job_from_row({"subject_images": [URL], name: empty}) == MultiImage(subject_images=[URL])


def test_an_empty_external_id_is_a_mistake() -> None:
    """A row that names its task with nothing does not mean that it has no name."""
    assert refused({"subject_images": [URL], "external_task_id": ""}).field == "external_task_id"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ([], "an array"),
        ("x", "a text"),
        (None, "null"),
        (True, "a boolean"),
        (7, "a number"),
        (1.5, "a number"),
    ],
)
def test_a_row_that_is_no_object(row: object, kind: str) -> None:
    """It says what it is instead."""
    assert (refused(row).field, refused(row).value) == ("row", kind)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("subject_image", "did you mean 'subject_images'?"),
        ("promt", "did you mean 'prompt'?"),
        ("aspect-ratio", "did you mean 'aspect_ratio'?"),
        ("watermark_inf", "did you mean 'watermark_info'?"),
        ("model", "did you mean 'model_name'?"),
        ("seed", "remove it, or put it into extra"),
        ("x" * 1_000_000, "remove it, or put it into extra"),
        ("résolution", "remove it, or put it into extra"),
    ],
)
def test_an_unknown_name_offers_the_nearest(name: str, remedy: str) -> None:
    """A slip of the pen is an error with its remedy, not a field that is silently ignored (facts 9.18)."""
    error = refused({"subject_images": [URL], name: "x"})

    assert (error.field, error.remedy) == (name[:80], remedy)


@pytest.mark.parametrize(
    ("name", "field"), [("", "''"), (" ", "' '"), ("a\ud800", "'a\\ud800'"), ("a\n", "'a\\n'")]
)
def test_an_unknown_name_that_cannot_be_shown(name: str, field: str) -> None:
    """Blanks, line breaks and half surrogates are shown as Python writes them."""
    assert refused({name: 1}).field == field


@pytest.mark.parametrize(
    ("first", "second"),
    [("subject_images", "subject_image_list"), ("key", "id"), ("watermark", "watermark_info")],
)
def test_one_field_under_two_names(first: str, second: str) -> None:
    """Two names for one field are a contradiction even if they agree; null does not count."""
    values = {"subject_images": [URL], "key": "k", "watermark": True}
    row: dict[str, Any] = {"subject_images": [URL], first: values[first], second: values[first]}

    assert (refused(row).field, refused(row).value) == (first, f"two, as {first} and {second}")
    assert isinstance(job_from_row(row | {second: None}), MultiImage)


@pytest.mark.parametrize("row", [{}, {"prompt": "p"}, {"subject_images": None}])
def test_no_subjects(row: dict[str, Any]) -> None:
    """A row without subjects says that one is needed."""
    assert (refused(row).field, refused(row).value) == ("subject_images", "none")


@pytest.mark.parametrize(
    ("given_path", "path"),
    [
        ("a.png", "/jobs/a.png"),
        ("in/a.png", "/jobs/in/a.png"),
        ("/abs/a.png", "/abs/a.png"),
        ("file:///f.png", "/f.png"),
    ],
)
def test_relative_paths_begin_at_the_manifest(given_path: str, path: str) -> None:
    """Paths are taken from the manifest's folder unless they are whole."""
    made = job_from_row({"subject_images": [given_path], "scene_image": given_path}, BASE)

    assert made.scene_image is not None
    assert (made.subject_images[0].path, made.scene_image.path) == (Path(path), Path(path))


def test_without_a_folder_paths_stay() -> None:
    """A row from elsewhere keeps its paths."""
    assert job_from_row({"subject_images": ["a.png"]}).subject_images[0].path == Path("a.png")


def test_base64_must_say_so() -> None:
    """A picture may stand in the row as `{"base64": …}`, also inside the seed's own list."""
    text = base64.b64encode(b"png").decode()

    made = job_from_row(
        {"subject_image_list": [{"subject_image": {"base64": text}}], "style_image": {"base64": text}}
    )

    assert made.subject_images[0].data == b"png"
    assert made.style_image is not None
    assert made.style_image.data == b"png"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"subject_images": [URL, 7]}, "subject_images[1]"),
        ({"subject_images": [{"image": URL}]}, "subject_images[0]"),
        ({"subject_images": [{"subject_image": URL, "x": 1}]}, "subject_images[0]"),
        ({"subject_images": [{"base64": 7}]}, "subject_images[0]"),
        ({"subject_images": [{"base64": "a\nb"}]}, "subject_images[0]"),
        ({"subject_images": URL}, "subject_images"),
        ({"subject_images": {"subject_image": URL}}, "subject_images"),
        ({"subject_images": []}, "subject_images"),
        ({"subject_images": ["data:image/png;base64,AAAA"]}, "subject_images[0]"),
        ({"scene_image": [URL]}, "scene_image"),
        ({"style_image": {}}, "style_image"),
        ({"watermark_info": {"enabled": True, "x": 1}}, "watermark_info"),
        ({"watermark_info": {"enabled": "yes"}}, "watermark"),
        ({"watermark": "true"}, "watermark"),
        ({"n": "2"}, "n"),
        ({"key": 1.5}, "key"),
        ({"key": True}, "key"),
        ({"extra": {"n": 9}}, "extra"),
    ],
)
def test_values_of_the_wrong_shape(fields: dict[str, Any], field: str) -> None:
    """Each names the field, also where the row used another name for it."""
    assert refused({"subject_images": [URL]} | fields).field == field


def test_a_watermark_without_a_word_is_not_given() -> None:
    """`{}` says neither yes nor no."""
    assert job_from_row({"subject_images": [URL], "watermark_info": {}}).watermark is None


def test_a_number_is_a_key() -> None:
    """Spreadsheets number their rows."""
    assert job_from_row({"subject_images": [URL], "id": 17}).key == "17"


def test_a_tuple_of_subjects() -> None:
    """Rows made by programs may hold tuples."""
    assert len(job_from_row({"subject_images": (URL, URL)}).subject_images) == 2


NAMES = [
    "subject_images",
    "subject_image_list",
    "scene_image",
    "watermark_info",
    "n",
    "id",
    "prompt",
    "extra",
]
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(URL),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["base64", "enabled", "subject_image"]), inner
        )
    ),
    max_leaves=6,
)


@given(json_like | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), json_like))
def test_any_json_is_a_job_or_refused_plainly(row: object) -> None:
    """Whatever a line of a manifest holds, it is a job or an `InvalidJob` that can be written down."""
    told = None
    try:
        job_from_row(row, BASE)
    except InvalidJob as error:
        told = error

    assert told is None or told.field.strip()
    assert str(told).encode()


def test_an_object_in_a_store_may_be_signed() -> None:
    """A row says with an object that the service is to fetch a signed URL; without `presign` the URL alone is enough."""
    signed = {"url": "s3://bucket/a.png", "presign": True}

    job = job_from_row({"subject_images": [signed], "style_image": "gs://bucket/b.png"})

    assert job.subject_images == (ImageSource.from_store("s3://bucket/a.png", presign=True),)
    assert job.style_image == ImageSource.from_store("gs://bucket/b.png")


def test_a_row_is_known_by_its_paths_as_they_stand_there() -> None:
    """The folder of a manifest is no part of what its rows ask for; another file in it is."""
    row = {"subject_images": ["a.png"], "scene_image": "b/c.png"}
    here, there = (job_from_row(row, Path(folder).resolve()) for folder in ("/here", "/there"))
    other = job_from_row(row | {"scene_image": "c.png"}, Path("/here").resolve())

    assert here != there
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != other.fingerprint()
