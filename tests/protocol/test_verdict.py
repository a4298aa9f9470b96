"""What the end of a create means: the table of verdicts, row by row."""

from __future__ import annotations

import pytest

from kling_async import errors
from kling_async.protocol.codes import CODES, api_error
from kling_async.protocol.verdict import Verdict, judge

REJECTED = {1200, 1201, 1202, 1203, 1300, 1301}
BACK_PRESSURE = {1302, 1303}
STOP = {1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1304}
AMBIGUOUS = {5000, 5001, 5002}


def expected(code: int) -> Verdict:
    table = {
        Verdict.REJECTED: REJECTED,
        Verdict.BACK_PRESSURE: BACK_PRESSURE,
        Verdict.ACCOUNT_STOP: STOP,
        Verdict.AMBIGUOUS: AMBIGUOUS,
    }
    return next(verdict for verdict, codes in table.items() if code in codes)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("http_status", [None, 200, 400, 409, 429, 502])
def test_each_code_has_its_verdict_whatever_the_status(code: int, http_status: int | None) -> None:
    """The code alone decides: 1303 is back pressure, 1102 stops the account, 5000 is ambiguous, with any status."""
    error = api_error(code, CODES[code].http_status if http_status is None else http_status)

    assert judge(error) is expected(code)


def test_a_duplicate_is_looked_up() -> None:
    """1201 that says "already exists" is no refusal of the job."""
    assert judge(api_error(1201, 400, "External_task_id X already exists")) is Verdict.DUPLICATE


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (errors.TransportError("connect refused", sent=False), Verdict.NOT_SENT),
        (errors.TransportError("reset by peer", sent=True), Verdict.AMBIGUOUS),
        (errors.RequestTimeout("connect", sent=False), Verdict.NOT_SENT),
        (errors.RequestTimeout("no answer", sent=True), Verdict.AMBIGUOUS),
        (errors.MalformedReply("200 without task_id", 200), Verdict.AMBIGUOUS),
        (errors.MalformedReply("redirect", 302), Verdict.AMBIGUOUS),
        (errors.InvalidJob("the file changed"), Verdict.REJECTED),
        (errors.LeaseLost("another process has it"), Verdict.REJECTED),
        (errors.SlotStoreError("the store is away"), Verdict.NOT_SENT),
        (errors.ConfigError("bad certificate"), Verdict.ACCOUNT_STOP),
        (errors.KlingError("anything else"), Verdict.AMBIGUOUS),
    ],
)
def test_what_is_no_refusal_of_the_service(error: errors.KlingError, verdict: Verdict) -> None:
    """Whether bytes left decides for transport errors; what cannot be read is ambiguous."""
    assert judge(error) is verdict


@pytest.mark.parametrize(
    ("http_status", "verdict"),
    [
        (200, Verdict.AMBIGUOUS),
        (400, Verdict.AMBIGUOUS),
        (401, Verdict.ACCOUNT_STOP),
        (402, Verdict.ACCOUNT_STOP),
        (403, Verdict.ACCOUNT_STOP),
        (404, Verdict.AMBIGUOUS),
        (408, Verdict.AMBIGUOUS),
        (409, Verdict.AMBIGUOUS),
        (413, Verdict.REJECTED),
        (414, Verdict.REJECTED),
        (415, Verdict.REJECTED),
        (422, Verdict.REJECTED),
        (425, Verdict.AMBIGUOUS),
        (429, Verdict.BACK_PRESSURE),
        (500, Verdict.AMBIGUOUS),
        (502, Verdict.AMBIGUOUS),
        (504, Verdict.AMBIGUOUS),
    ],
)
def test_without_a_code_few_statuses_are_clear(http_status: int, verdict: Verdict) -> None:
    """A bare status comes from whatever stands before the service, so only some say that no task was made."""
    assert judge(api_error(0, http_status)) is verdict


@pytest.mark.parametrize(
    ("http_status", "verdict"),
    [
        (200, Verdict.AMBIGUOUS),
        (400, Verdict.REJECTED),
        (401, Verdict.ACCOUNT_STOP),
        (404, Verdict.REJECTED),
        (408, Verdict.AMBIGUOUS),
        (409, Verdict.AMBIGUOUS),
        (425, Verdict.AMBIGUOUS),
        (429, Verdict.BACK_PRESSURE),
        (500, Verdict.AMBIGUOUS),
    ],
)
def test_an_unknown_code_goes_by_its_status(http_status: int, verdict: Verdict) -> None:
    """Code 1999 shows that the service itself answered, so a plain refusal is one, but nothing else is."""
    assert judge(api_error(1999, http_status)) is verdict


@pytest.mark.parametrize("http_status", [200, 409, 429, 500])
def test_an_unknown_code_of_a_known_hundred_goes_by_it(http_status: int) -> None:
    """Codes 1000 to 1399 say that there is no task, also those that came after the table."""
    assert judge(api_error(1299, http_status)) is Verdict.REJECTED
    assert judge(api_error(1199, http_status)) is Verdict.ACCOUNT_STOP
