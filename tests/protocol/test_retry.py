"""Pauses, wishes of the service, and the bucket of retries."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.retry import Pacing, RetryQuota, heals, http_date, retry_after

NOON = 784_887_151.0  # Tue, 15 Nov 1994 08:12:31 GMT


@pytest.fixture
def tokyo() -> Iterator[None]:
    """A machine nine hours ahead of GMT."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("attempt", "dice", "pause"),
    [
        (1, 0.0, 0.25),
        (1, 0.5, 0.375),
        (2, 0.0, 0.5),
        (3, 0.0, 1.0),
        (6, 0.0, 8.0),
        (7, 0.0, 10.0),
        (99, 0.0, 10.0),
        (10**9, 0.0, 10.0),
    ],
)
def test_pauses_double_up_to_the_cap(attempt: int, dice: float, pause: float) -> None:
    """The steps are 0.5, 1, 2 … 20 seconds, and the dice choose within their upper half."""
    assert Pacing().pause(attempt, dice) == pause


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_every_pause_is_between_half_a_step_and_the_cap(attempt: int, dice: float) -> None:
    """No pause is zero, and none is longer than the cap."""
    assert 0.25 <= Pacing().pause(attempt, dice) <= 20.0


def test_a_wish_wins() -> None:
    """What the service asked for is waited, not what the table says."""
    assert Pacing().pause(1, 0.5, wish=42.0) == 42.0


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("60", 60.0),
        ("61", 60.0),
        ("1e9", 60.0),
        ("0", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Tue, 15 Nov 1994 08:12:41 GMT", 10.0),
        ("Tue, 15 Nov 1994 09:12:31 GMT", 60.0),
        ("Tue, 15 Nov 1994 08:12:30 GMT", None),
        ("Tuesday, 15-Nov-94 08:12:41 GMT", 10.0),
        ("Tue Nov 15 08:12:41 1994", 10.0),
    ],
)
def test_forms_of_retry_after(header: str, expected: float | None) -> None:
    """Seconds and the three forms of dates are read, bounded by a minute; nonsense is no wish."""
    assert retry_after({"retry-after": header}, NOON) == expected


def test_a_date_needs_the_time_of_the_service() -> None:
    """Without the `Date` of the reply a date says nothing, since our own clock may be wrong."""
    assert retry_after({"retry-after": "Tue, 15 Nov 1994 08:12:41 GMT"}) is None
    assert retry_after({}, NOON) is None


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    "text",
    [
        "Tue, 15 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 1994 08:12:31 -0000",
        "Tue, 15 Nov 1994 08:12:31",
        "Tue Nov 15 08:12:31 1994",
        "Tue, 15 Nov 1994 09:12:31 +0100",
    ],
)
def test_a_date_does_not_depend_on_the_zone_of_the_machine(text: str) -> None:
    """HTTP dates are in GMT, also those that do not say so."""
    assert http_date(text) == NOON


@given(st.text() | st.from_regex(r"\w{3}, \d{1,4} \w{3} \d{1,6} \d+:\d+:\d+ .*"))
def test_no_header_breaks_the_reading(text: str) -> None:
    """Any header is a sane number of seconds or none; it never hides the error it came with."""
    wish = retry_after({"retry-after": text}, NOON)

    assert wish is None or 0 < wish <= 60
    assert http_date(text) is None or isinstance(http_date(text), float)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.TransportError("reset"), True),
        (errors.RequestTimeout("slow"), True),
        (errors.MalformedReply("HTML"), True),
        (errors.ServerError("5000"), True),
        (errors.RateLimited("1302"), True),
        (errors.NoFreeSlot("1303"), True),
        (errors.BadRequest("1201"), False),
        (errors.TaskNotFound("1201"), False),
        (errors.AuthError("1002"), False),
        (errors.InArrears("1101"), False),
        (errors.ConfigError("certificate"), False),
        (errors.ApiError("HTTP 200 with code 1999"), False),
    ],
)
def test_which_errors_heal_by_asking_again(error: errors.KlingError, expected: bool) -> None:  # noqa: FBT001  # a table
    """Lost and unreadable replies, failures inside and back pressure heal; refusals do not."""
    assert heals(error) is expected


def test_the_quota_pays_for_twenty_retries() -> None:
    """A hundred in the bucket at five a retry are twenty retries, and then there are none."""
    quota = RetryQuota()

    assert [quota.take() for _ in range(22)] == [True] * 20 + [False] * 2
    assert quota.left == 0


def test_successes_fill_the_quota_one_by_one() -> None:
    """Five successes pay for one retry, and the bucket never holds more than it can."""
    quota = RetryQuota(capacity=7, cost=5)
    assert quota.take()

    before = quota.left
    quota.give_back()
    quota.give_back()
    refused = quota.take()
    quota.give_back()

    assert (before, refused, quota.left) == (2, False, 5)
    for _ in range(20):
        quota.give_back()
    assert quota.left == 7


@given(st.lists(st.booleans()))
def test_the_quota_stays_within_its_bounds(moves: list[bool]) -> None:
    """However retries and successes alternate, the bucket is never below empty nor above full."""
    quota = RetryQuota(capacity=12, cost=5)

    for retry in moves:
        if retry:
            quota.take()
        else:
            quota.give_back()

        assert 0 <= quota.left <= 12


def test_a_redirect_does_not_heal() -> None:
    """An unreadable answer is worth another request, a redirect is the same each time."""
    assert heals(errors.MalformedReply("no JSON", 200))
    assert not heals(errors.MalformedReply("elsewhere", 302))
