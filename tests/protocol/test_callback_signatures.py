"""Signatures of callbacks: which are genuine, and that nothing a stranger writes is more than refused."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import ConfigError
from kling_async.protocol.callbacks import Verifier, gather_headers, sign

# The example of the vendor's page (2026-09).
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
BODY = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'
NOW = 1781080794.0
SIGNATURE = "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="
HEADERS = {"webhook-id": "9876543210", "webhook-timestamp": "1781080794", "webhook-signature": SIGNATURE}

OTHER = sign("whsec_b3RoZXItb3RoZXItb3RoZXI=", "9876543210", 1781080794, BODY)


def genuine(headers: Mapping[str, str], body: bytes = BODY, now: float = NOW) -> bool:
    return Verifier.of(SECRET).check(headers, body, now).genuine


def test_the_vendors_own_vector() -> None:
    """The example of the vendor's page comes out as printed there, and passes."""
    checked = Verifier.of(SECRET).check(HEADERS, BODY, NOW)

    assert sign(SECRET, "9876543210", 1781080794, BODY) == SIGNATURE
    assert (checked.genuine, checked.message_id, checked.fault) == (True, "9876543210", "")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_é", "SECRET-abc"])
def test_a_secret_that_is_none(secret: str) -> None:
    """A text that is no secret is refused without being shown, by who signs and by who checks."""
    with pytest.raises(ConfigError, match="whsec_<base64>") as caught:
        sign(secret, "1", 1, b"")
    with pytest.raises(ConfigError, match="whsec_<base64>"):
        Verifier.of(secret)

    assert "SECRET" not in str(caught.value)


def test_the_secret_never_shows() -> None:
    """A verifier does not tell what it knows."""
    assert "testsecret" not in repr(Verifier.of(SECRET))


@pytest.mark.parametrize(
    "given_signatures",
    [
        SIGNATURE,
        f"{OTHER} {SIGNATURE}",
        f"{SIGNATURE} {OTHER}",
        f"v1a,xyz {SIGNATURE}",
        f"  {SIGNATURE}",
        f", v1 {SIGNATURE} v1,",
    ],
)
def test_one_signature_of_several_is_enough(given_signatures: str) -> None:
    """While the secret is replaced there are two; other versions and scraps between them do not matter."""
    assert genuine({**HEADERS, "webhook-signature": given_signatures})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"webhook-id": ""}, "webhook-id, found none"),
        ({"webhook-id": "9" * 257}, "at most 256 ASCII"),
        ({"webhook-id": "ä"}, "at most 256 ASCII"),
        ({"webhook-id": "9876543211"}, "made with our secret"),
        ({"webhook-timestamp": ""}, "whole seconds"),
        ({"webhook-timestamp": "nan"}, "whole seconds"),
        ({"webhook-timestamp": "1781080794.0"}, "whole seconds"),
        ({"webhook-timestamp": "+1781080794"}, "whole seconds"),
        ({"webhook-timestamp": "-1781080794"}, "whole seconds"),
        ({"webhook-timestamp": "1e9"}, "whole seconds"),
        ({"webhook-timestamp": "٣"}, "whole seconds"),
        ({"webhook-timestamp": "9" * 5000}, "whole seconds"),
        ({"webhook-timestamp": "1781080493"}, "301 s old; check the clock"),
        ({"webhook-timestamp": "1781081095"}, "301 s in the future; check the clock"),
        ({"webhook-timestamp": "1781080795"}, "made with our secret"),
        ({"webhook-signature": ""}, "made with our secret"),
        ({"webhook-signature": OTHER}, "made with our secret"),
        ({"webhook-signature": SIGNATURE.removeprefix("v1,")}, "made with our secret"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v1")}, "made with our secret"),
        ({"webhook-signature": SIGNATURE.replace("v1", "v2")}, "made with our secret"),
        ({"webhook-signature": SIGNATURE.rstrip("=")}, "made with our secret"),
        ({"webhook-signature": "v1,\x00é\udc80"}, "made with our secret"),
        ({"webhook-signature": "v1,a,b"}, "made with our secret"),
        ({"webhook-signature": f"{'x ' * 16}{SIGNATURE}"}, "made with our secret"),
    ],
)
def test_what_is_not_genuine_is_refused_with_the_reason(changed: dict[str, str], told: str) -> None:
    """Missing, malformed, old, future and wrong headers are each refused, and it is said why."""
    checked = Verifier.of(SECRET).check({**HEADERS, **changed}, BODY, NOW)

    assert not checked.genuine
    assert told in checked.fault
    assert checked.message_id == ""


@pytest.mark.parametrize("late", [-300.0, 0.0, 300.0])
def test_five_minutes_either_way(late: float) -> None:
    """A callback may be up to five minutes old or early by our clock."""
    assert genuine(HEADERS, now=NOW + late)


def test_another_body_is_refused() -> None:
    """A body changed by one byte does not pass."""
    assert not genuine(HEADERS, BODY.replace(b"succeeded", b"succeeced"))


@given(
    names=st.lists(
        st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "WEBHOOK-ID"]) | st.text()
    ),
    values=st.data(),
)
def test_no_header_can_raise(names: list[str], values: st.DataObject) -> None:
    """Whatever names and values come, as bytes or as text, they are refused and nothing else happens."""
    texts = st.text() | st.sampled_from([SIGNATURE, "1781080794", "9876543210", "v1,", "\udcff", "nan"])
    pairs = [(name, values.draw(texts)) for name in names]
    raw = [(b"webhook-id", values.draw(st.binary())), (b"webhook-signature", values.draw(st.binary()))]

    by_text, by_bytes = gather_headers(pairs), gather_headers(raw)

    assert not genuine({**by_text, "webhook-timestamp": "1781080700"})
    assert not genuine({**by_bytes, "webhook-timestamp": "1781080794"})


def test_headers_that_come_twice_are_one() -> None:
    """Names are compared without case; repeated ones are joined, so that a second id cannot hide behind the first."""
    joined = gather_headers([(b"Webhook-Id", b"1"), (b"webhook-id", b"2"), (b"x", b"\xff")])

    assert joined == {"webhook-id": "1, 2", "x": "ÿ"}
    assert not genuine({**HEADERS, "webhook-timestamp": "1781080794, 1781080794"})


def test_checking_is_quick_whatever_comes() -> None:
    """A signature header of a megabyte is cut off before it is looked through."""
    header = "v1,x " * 200_000
    began = time.perf_counter()

    for _ in range(20):
        assert not genuine({**HEADERS, "webhook-signature": header})

    assert time.perf_counter() - began < 5


def test_a_key_of_any_length_signs() -> None:
    """Secrets of 24 to 64 bytes are all the same to it."""
    for size in (24, 32, 64):
        secret = "whsec_" + base64.b64encode(bytes(range(size))).decode()
        headers = {**HEADERS, "webhook-signature": sign(secret, "9876543210", 1781080794, BODY)}

        assert Verifier.of(secret).check(headers, BODY, NOW).genuine
