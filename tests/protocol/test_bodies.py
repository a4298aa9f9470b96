from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.protocol.bodies import Body, base64_length
from kling_async.protocol.pictures import Picture, PictureHeader
from kling_async.protocol.sources import ImageSource


def picture(data: bytes) -> Picture:
    return Picture(source=ImageSource(data=data), size=len(data), header=PictureHeader("png", 300, 300))


def written(body: Body) -> bytes:
    """Write *body* out, which the package itself never does."""
    return b"".join(
        base64.b64encode(part.source.data or b"") if isinstance(part, Picture) else part
        for part in body.parts
    )


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
trees = st.recursive(
    plain | st.binary(max_size=9).map(picture),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary(max_size=50))
def test_the_length_of_base64(data: bytes) -> None:
    """The length is that of the padded text."""
    assert base64_length(len(data)) == len(base64.b64encode(data))


@given(trees)
def test_a_body_is_the_json_of_its_value(value: Any) -> None:
    """Read back, a body gives the value with pictures as base64, and its length is exact."""

    def expected(value: Any) -> Any:
        if isinstance(value, Picture):
            return base64.b64encode(value.source.data or b"").decode()
        if isinstance(value, list):
            return [expected(entry) for entry in value]
        if isinstance(value, dict):
            return {key: expected(entry) for key, entry in value.items()}
        return value

    body = Body.from_json(value)

    assert json.loads(written(body)) == expected(value)
    assert body.length == len(written(body))


def test_urls_alone_make_one_part() -> None:
    """A body without pictures is one compact text."""
    body = Body.from_json(
        {"subject_image_list": [{"subject_image": "https://example.com/x.png"}], "n": 2, "lone": "\ud800"}
    )

    assert body.parts == (
        b'{"subject_image_list":[{"subject_image":"https://example.com/x.png"}],"n":2,"lone":"\\ud800"}',
    )


@pytest.mark.parametrize("value", [{"a": object()}, {"a": b"bytes"}, [float("nan")]])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """A value without JSON form raises as json.dumps does, and never makes a broken body."""
    with pytest.raises((TypeError, ValueError)):
        Body.from_json(value)
