"""Resource packs and the slots in their names."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.codec import Reply, read_envelope
from kling_async.protocol.packs import Pack, read_packs, slots_in

Sample = Callable[..., Reply]


def test_a_real_reply(sample: Sample) -> None:
    """The inner envelope of the vendor's page holds packs with their units; unknown fields are in `raw`."""
    packs = read_packs(read_envelope(sample("costs")).data)

    image, video = packs
    assert (image.name, image.status, image.slots) == ("Trial-Image-1000Units-9Con-1Months", "online", 9)
    assert (image.total, image.remaining) == (Decimal(1000), Decimal("983.5"))
    assert (image.is_for_images, video.is_for_images, video.slots) == (True, False, 5)
    assert image.raw["resource_pack_type"] == "decreasing_total"
    assert slots_in(packs) == 9


def test_a_refusal_in_the_inner_envelope(sample: Sample) -> None:
    """An outer success may hold an inner refusal, whose text is in `msg` and not in `message`."""
    with pytest.raises(errors.InArrears, match="Account in arrears") as caught:
        read_packs(read_envelope(sample("costs_refused")).data, request_id="r-5")

    assert caught.value.request_id == "r-5"


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("Trial-Image-1000Units-9Con-1Months", 9),
        ("trial-image-1000units-20con-1months", 20),
        ("9Con", 9),
        ("Image 5 Con", None),
        ("Image-1000Units", None),
        ("Image-5Concurrency", None),
        ("Image-v9Con", None),
        ("Image-0Con", 0),
        ("Image-1234567Con", None),
        ("", None),
    ],
)
def test_slots_stand_in_names(name: str, slots: int | None) -> None:
    """Only `<N>Con` as a word of its own promises slots."""
    assert Pack(name=name).slots == slots


@pytest.mark.parametrize(
    ("packs", "slots"),
    [
        ([("Image-5Con", "online"), ("Image-10Con", "online")], 10),
        ([("Image-5Con", "online"), ("Image-10Con", "expired")], 5),
        ([("Image-5Con", "toBeOnline")], None),
        ([("Image-5Con", "online"), ("Video-50Con", "online"), ("Tryon-9Con", "online")], 5),
        ([("Virtual-Try-On-9Con", "online")], None),
        ([("Image-0Con", "online")], None),
        ([("Image", "online")], None),
        ([], None),
    ],
)
def test_the_best_online_image_pack_counts(packs: list[tuple[str, str]], slots: int | None) -> None:
    """5 and 10 are 10 and not 15; packs of other products and those that are over do not count (R2)."""
    assert slots_in(Pack(name=name, status=status) for name, status in packs) == slots


@pytest.mark.parametrize("data", [None, [], "x", 7])
def test_other_shapes_are_malformed(data: object) -> None:
    """Without an object there are no packs to read."""
    with pytest.raises(errors.MalformedReply):
        read_packs(data)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "resource_pack_name": json_like,
        "status": json_like,
        "total_quantity": json_like,
        "remaining_quantity": json_like,
    },
)


@given(
    json_like
    | st.fixed_dictionaries(
        {},
        optional={
            "code": json_like,
            "msg": json_like,
            "resource_pack_subscribe_infos": json_like | st.lists(entries | json_like),
        },
    )
)
def test_any_data_is_packs_or_a_plain_error(data: object) -> None:
    """Whatever the account's page holds, packs come out of it or a `KlingError`."""
    try:
        packs = read_packs(data)
    except errors.KlingError:
        return

    assert all(isinstance(pack.name, str) for pack in packs)
    assert (slots_in(packs) or 1) > 0
