"""Who answers a client, and how that is kept."""

from __future__ import annotations

import pytest

from kling_async.errors import ConfigError
from kling_async.protocol.service import Service, is_vendors, origin

REAL = Service("https://gateway.example")
ONE, OTHER = Service("http://127.0.0.1:1", "one"), Service("http://127.0.0.1:2", "other")


def test_a_path_is_not_kept() -> None:
    """Some gateways have a secret in it."""
    assert origin("https://gateway.example:8443/secret/kling") == "https://gateway.example:8443"


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("https://api-singapore.klingai.com", True),
        ("https://api.klingai.com:443/x", True),
        ("http://api.klingai.com", False),
        ("https://klingai.com.example", False),
        ("https://notklingai.com", False),
        ("http://127.0.0.1:8377", False),
    ],
)
def test_the_vendors_addresses_are_known(address: str, own: bool) -> None:  # noqa: FBT001 - a parameter
    """Those that need a certificate of the vendor's."""
    assert is_vendors(address) is own


def test_what_is_kept_is_read_again() -> None:
    """Of an emulator only the name counts; what tells nothing is nobody."""
    assert Service.from_json(REAL.as_json()) == REAL
    assert Service.from_json({"run": "r", **ONE.as_json()}) == Service("", "one")
    assert Service.from_json({"run": "r"}) is None


def test_only_a_service_elsewhere_vouches_for_its_address() -> None:
    """On this machine anything may listen, and an emulator's address means nothing."""
    local = Service("http://127.0.0.1:1")

    assert REAL.vouches_for("https://gateway.example")
    assert not REAL.vouches_for("https://other.example")
    assert not local.vouches_for(local.address)
    assert not ONE.vouches_for(ONE.address)


def test_kinds_do_not_mix() -> None:
    """Real and emulated exclude each other; two emulators do not, but do not know each other's tasks."""
    REAL.check(Service("https://other.example"), "out")
    ONE.check(OTHER, "out")
    ONE.check_memory(Service("", "one"), "out")

    with pytest.raises(ConfigError, match="expected emulated results in out, since an emulator answers"):
        REAL.check(ONE, "out")
    with pytest.raises(ConfigError, match="expected real results in out, since the service answers"):
        ONE.check_memory(REAL, "out")
    with pytest.raises(ConfigError, match=r"found another one at http://127\.0\.0\.1:2"):
        ONE.check_memory(OTHER, "out")
