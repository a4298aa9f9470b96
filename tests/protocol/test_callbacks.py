"""What a callback says, what came before, and where callbacks are sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import ConfigError
from kling_async.protocol.auth import ApiKey, KeyPair
from kling_async.protocol.callbacks import Hint, Recent, private_address, read_hint
from kling_async.protocol.tasks import TaskStatus

LEGACY = {
    "task_id": "8666",
    "task_status": "succeed",
    "task_status_msg": "",
    "task_info": {"parent_video": {}, "external_task_id": "mine-1"},
    "created_at": 1722769557708,
    "task_result": {"images": [{"index": 0, "url": "https://attacker.example/x.png"}]},
}
NEW = {
    "id": "8666",
    "status": "succeeded",
    "message": "",
    "external_id": "mine-1",
    "outputs": [{"type": "image"}],
}
SAID = Hint(task_id="8666", external_task_id="mine-1", status=TaskStatus.SUCCEED)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["task_id", "id", "status", "data", "task_info", "task_status"]), inner
        )
    ),
    max_leaves=20,
)


def read(value: Any) -> Hint | None:
    return read_hint(json.dumps(value).encode())


@pytest.mark.parametrize("shown", [LEGACY, NEW])
def test_every_dialect_and_shape_says_the_same(shown: dict[str, Any]) -> None:
    """Legacy and new, bare as documented and wrapped as one client saw it."""
    assert read(shown) == SAID
    assert read({"code": 0, "message": "SUCCEED", "request_id": "r", "data": shown}) == SAID


@pytest.mark.parametrize(
    ("shown", "hint"),
    [
        ({"task_id": 8666}, Hint(task_id="8666")),
        ({"task_id": "8666", "task_info": None}, Hint(task_id="8666")),
        ({"task_id": "8666", "external_task_id": "top"}, Hint(task_id="8666", external_task_id="top")),
        ({"task_info": {"external_task_id": "only"}}, Hint(external_task_id="only")),
        ({"external_id": "only", "status": 7}, Hint(external_task_id="only", status=TaskStatus("7"))),
        ({"task_id": "x" * 257, "external_task_id": "y"}, Hint(external_task_id="y")),
    ],
)
def test_whatever_names_a_task_is_read(shown: dict[str, Any], hint: Hint) -> None:
    """One id is enough, numbers are ids, and absurdly long ones are none."""
    assert read(shown) == hint


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b'"8666"', b"{", b"\xff\xfe", b'{"data": []}', b'{"task_id": ""}', b'{"task_id": ' + b"9" * 5000 + b"}",
     b"[" * 60_000, b'{"task_id": {"id": 1}}', b'{"data": {"data": {"task_id": "8666"}}}'],
)  # fmt: skip
def test_what_names_no_task_is_none(body: bytes) -> None:
    """Anything else is no hint, and nothing is raised."""
    assert read_hint(body) is None


@given(ANY_JSON)
def test_no_body_can_raise(value: object) -> None:
    """Whatever JSON comes, there is a hint with an id or none."""
    hint = read(value)

    assert hint is None or hint.task_id or hint.external_task_id


@given(st.binary())
def test_no_bytes_can_raise(body: bytes) -> None:
    """Bytes that are no JSON are no hint."""
    read_hint(body)


@pytest.mark.parametrize(
    ("word", "worth"),
    [
        ("submitted", False),
        ("processing", False),
        ("succeed", True),
        ("succeeded", True),
        ("failed", True),
        ("archived", True),
        ("", True),
    ],
)
def test_only_what_may_be_an_end_is_worth_a_look(word: str, worth: bool) -> None:  # noqa: FBT001 - a column of the table
    """That a task still runs is no news; a word nobody knows may mean an end."""
    hint = read({"task_id": "8666", "task_status": word})

    assert hint is not None
    assert hint.worth_a_look is worth


# What came before.


def test_recent_names_are_known_for_a_while() -> None:
    """A name is new, then known, then new again."""
    recent = Recent(10, 60.0)

    assert recent.add("a", 0.0)
    assert not recent.add("a", 59.0)
    assert recent.add("a", 60.0)


def test_of_too_many_the_oldest_are_forgotten() -> None:
    """Memory is bounded, whatever comes."""
    recent = Recent(100, 60.0)

    for number in range(10_000):
        recent.add(str(number), number / 1000)

    assert len(recent) == 100
    assert not recent.add("9999", 10.0)
    assert recent.add("9899", 10.0)


def test_a_name_is_taken_once() -> None:
    """What was taken is gone, and what is too old was never there."""
    recent = Recent(10, 60.0)
    recent.add("a", 0.0)
    recent.add("b", 0.0)

    assert recent.take("a", 1.0)
    assert not recent.take("a", 1.0)
    assert not recent.take("b", 60.0)
    assert len(recent) == 0


# Where they are sent.

KEY, PAIR = ApiKey("some-api-key"), KeyPair("access", "secret-secret")


def test_an_address_gets_a_segment_that_nobody_can_guess() -> None:
    """It is the last of the path, before a query; the same each time, another for other credentials and addresses."""
    address, segment = private_address("https://shop.example/kling/hook/?x=1#top", [KEY])

    assert address == f"https://shop.example/kling/hook/{segment}?x=1"
    assert len(segment) == 32
    assert private_address("https://shop.example/kling/hook/?x=1#top", [KEY])[1] == segment
    assert private_address("https://shop.example/kling/hook", [KEY])[1] != segment
    assert private_address("https://shop.example/kling/hook/?x=1#top", [PAIR])[1] != segment


def test_the_order_of_accounts_does_not_matter() -> None:
    """Processes that list their accounts in another order have the same address."""
    assert private_address("https://shop.example", [KEY, PAIR]) == private_address(
        "https://shop.example", [PAIR, KEY]
    )


@pytest.mark.parametrize(
    "address",
    ["", "shop.example/hook", "ftp://shop.example", "https://", "https://shop.example/a b", "https://[", "https://shöp.example/",
     "https://shop.example/" + "x" * 1000],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    """Also one that would be longer with its segment than the service takes."""
    with pytest.raises(ConfigError, match="callback_url: expected an http"):
        private_address(address, [KEY])


def test_the_longest_address_still_fits() -> None:
    """The whole is at most the 1,024 characters that the service takes."""
    head = "https://shop.example/"

    assert len(private_address(head + "x" * (991 - len(head)), [KEY])[0]) == 1024
