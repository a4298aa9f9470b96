"""Addresses and time limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import ConfigError
from kling_async.protocol.endpoints import REGIONS, Timeouts, base_url, count, is_loopback, seconds


@pytest.mark.parametrize("text", [None, "", "  "])
@pytest.mark.parametrize("region", REGIONS)
def test_regions(text: str | None, region: str) -> None:
    """Without an address the region's host is used."""
    assert base_url(text, region) == REGIONS[region]


def test_unknown_regions() -> None:
    """A region that is none names those that are."""
    with pytest.raises(ConfigError, match="expected one of global, cn, found 'mars'"):
        base_url(None, "mars")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host", "https://host"),
        ("https://host/", "https://host"),
        ("https://host/v1", "https://host"),
        ("https://host/v1/", "https://host"),
        (" https://host/kling/v1/ ", "https://host/kling"),
        ("HTTP://Host:8080//", "http://Host:8080"),
        ("http://[::1]:9/v1", "http://[::1]:9"),
        ("http://host/v1beta", "http://host/v1beta"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    """A trailing `/` or `/v1` is taken off, since the account's paths have no `/v1` (facts 1.14)."""
    assert base_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "host:8080",
        "//host",
        "ftp://host",
        "https://",
        "https:///v1",
        "http://ho st",
        "http://[::1",
        "http://host:99999",
        "http://host:port",
        "https://user@host",
        "https://:pass@host",
        "https://host?key=1",
        "https://host#part",
    ],
)
def test_addresses_that_cannot_work(text: str) -> None:
    """Each says what an address looks like."""
    with pytest.raises(ConfigError, match="expected an address such as https://"):
        base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "user:SECRET@host",
        "ftp://user:SECRET@host",
        "https://user:SECRET@host",
        "host?key=SECRET",
        "https://host?key=SECRET",
        "https://user:SECRET@ho st",
        "https://host#SECRET",
    ],
)
def test_no_refusal_shows_a_secret(text: str) -> None:
    """Credentials and queries of a wrong address do not show in the error."""
    with pytest.raises(ConfigError) as caught:
        base_url(text)

    assert "SECRET" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """An address is accepted as one with scheme and host, or refused with a `ConfigError`."""
    try:
        found = base_url(text)
    except ConfigError:
        return

    assert found.startswith(("http://", "https://"))
    assert not found.endswith(("/", "/v1"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:9/x", True),
        ("http://127.9.9.9", True),
        ("http://[::1]", True),
        ("http://localhost:80", True),
        ("http://kling.localhost", True),
        ("https://api-singapore.klingai.com", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:  # noqa: FBT001  # a table
    """Only this machine's own addresses and names are loopback, without a look-up."""
    assert is_loopback(address) is expected


@pytest.mark.parametrize("value", [1, 0.5, 1e6])
def test_seconds(value: float) -> None:
    """Numbers above zero are time limits."""
    assert seconds("timeout", value) == value


@pytest.mark.parametrize("value", [0, -1, True, "5", None, math.nan, math.inf, []])
def test_no_seconds(value: object) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(ConfigError, match="timeout: expected a number of seconds above 0"):
        seconds("timeout", value)


def test_timeouts_of_what_a_caller_gives() -> None:
    """None is the defaults, a value is itself, a number limits the request and with it the connection."""
    whole = Timeouts(request=5.0)

    assert Timeouts.of(None) == Timeouts()
    assert Timeouts.of(whole) is whole
    assert (Timeouts.of(3).request, Timeouts.of(3).connect) == (3.0, 3.0)
    assert (Timeouts.of(90.0).request, Timeouts.of(90.0).connect) == (90.0, 10.0)


@pytest.mark.parametrize("name", ["connect", "request", "per_megabyte", "download", "settle"])
def test_every_limit_is_checked(name: str) -> None:
    """A limit of zero is refused by its name."""
    with pytest.raises(ConfigError, match=f"{name}: expected"):
        Timeouts(**{name: 0.0})


def test_limits_grow_with_the_body() -> None:
    """Eighty megabytes of pictures have four seconds each on top of the request's limit (R23)."""
    assert Timeouts().for_body(0) == 60.0
    assert Timeouts().for_body(80_000_000) == 380.0


@pytest.mark.parametrize("value", [0, 1, 10**9])
def test_count(value: int) -> None:
    """Whole numbers from 0 up are returned."""
    assert count("max_retries", value) == value


@pytest.mark.parametrize("value", [-1, 1.0, True, "2", None])
def test_no_count(value: object) -> None:
    """Anything else is refused under its name."""
    with pytest.raises(ConfigError, match="max_retries: expected a whole number from 0 up"):
        count("max_retries", value)
