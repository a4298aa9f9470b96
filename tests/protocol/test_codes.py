"""The table of codes, row by row as the vendor prints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.codes import CODES, api_error, is_duplicate, is_known, is_not_found, name_model

VENDOR = [
    (1000, 401, errors.AuthError),
    (1001, 401, errors.AuthError),
    (1002, 401, errors.AuthError),
    (1003, 401, errors.TokenNotYetValid),
    (1004, 401, errors.TokenExpired),
    (1100, 429, errors.AccountError),
    (1101, 429, errors.InArrears),
    (1102, 429, errors.OutOfUnits),
    (1103, 403, errors.NotPermitted),
    (1200, 400, errors.BadRequest),
    (1201, 400, errors.BadRequest),
    (1202, 404, errors.NoSuchResource),
    (1203, 404, errors.NoSuchResource),
    (1300, 400, errors.PolicyRefusal),
    (1301, 400, errors.ContentRefusal),
    (1302, 429, errors.RateLimited),
    (1303, 429, errors.NoFreeSlot),
    (1304, 429, errors.AddressNotAllowed),
    (5000, 500, errors.ServerError),
    (5001, 503, errors.ServerError),
    (5002, 504, errors.ServerError),
]


@pytest.mark.parametrize(("code", "http_status", "kind"), VENDOR)
def test_each_code_has_its_status_meaning_remedy_and_error(
    code: int, http_status: int, kind: type[errors.ApiError]
) -> None:
    """Every row of the vendor's table is here, and its error says what happened and what to do."""
    row = CODES[code]
    error = api_error(code, http_status, request_id="r-1")

    assert (row.http_status, row.error, type(error)) == (http_status, kind, kind)
    assert str(error) == f"{row.meaning} (code {code}); {row.remedy}; request id r-1"


def test_the_table_has_no_other_rows() -> None:
    """Codes that only libraries of others speak of (1104 "QUEUE_FULL") are not taken for the vendor's."""
    assert sorted(CODES) == [code for code, *_ in VENDOR]


@pytest.mark.parametrize(("code", "http_status", "kind"), VENDOR)
def test_the_code_decides_before_the_status(code: int, http_status: int, kind: type[errors.ApiError]) -> None:
    """A code means the same whatever HTTP status it comes with."""
    for status in {200, 400, 401, 403, 404, 429, 500, 502} - {http_status}:
        assert type(api_error(code, status)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1099, errors.AuthError),
        (1104, errors.AccountError),
        (1299, errors.BadRequest),
        (1305, errors.PolicyRefusal),
        (5099, errors.ServerError),
    ],
)
def test_unknown_codes_go_by_their_hundred(code: int, kind: type[errors.ApiError]) -> None:
    """A code that came after the table is known by its hundred and keeps its number."""
    error = api_error(code, 200, "new")

    assert type(error) is kind
    assert (error.code, error.remedy, str(error)) == (code, "", f"new (code {code})")


@pytest.mark.parametrize("code", [0, 1999, 5100, -1, 10**20])
@pytest.mark.parametrize(
    ("http_status", "kind"),
    [
        (200, errors.ApiError),
        (400, errors.BadRequest),
        (401, errors.AuthError),
        (402, errors.AccountError),
        (403, errors.NotPermitted),
        (404, errors.NoSuchResource),
        (408, errors.ServerError),
        (409, errors.BadRequest),
        (425, errors.ServerError),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (599, errors.ServerError),
    ],
)
def test_without_a_code_of_use_the_status_decides(
    code: int, http_status: int, kind: type[errors.ApiError]
) -> None:
    """No code, or one that no table has, leaves the HTTP status to choose."""
    error = api_error(code, http_status)

    assert type(error) is kind
    assert str(error).count(str(http_status)) == (0 if code else 1)
    assert str(error).startswith("the request ")


@pytest.mark.parametrize(
    ("http_status", "passes"),
    [(400, False), (404, False), (408, True), (429, True), (500, True), (502, True)],
)
def test_an_answer_without_a_code_says_whether_it_passes(http_status: int, *, passes: bool) -> None:
    """A gateway whose service is away for a moment is no reason to doubt the address first; a page that is not there is."""
    remedy = api_error(0, http_status).remedy

    assert ("usually passes" in remedy) is passes
    assert "check the base URL" in remedy


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (api_error(1201, 400, "model is not supported"), True),
        (api_error(1203, 404, "Model does not exist"), True),
        (api_error(1201, 400, "model kling-v9 is not supported"), False),
        (api_error(1201, 400, "image is too small"), False),
        (api_error(1103, 403, "no access to the model"), False),
        (errors.MalformedReply("model"), False),
    ],
)
def test_a_refused_model_is_named(error: errors.KlingError, *, named: bool) -> None:
    """A message that speaks of models without naming one gets the job's as what to change; others stay as they are."""
    before = str(error)

    name_model(error, "kling-v9")

    assert (str(error) != before) is named
    assert ("model_name 'kling-v9'" in str(error)) is named


def test_which_codes_are_known() -> None:
    """Rows of the table and their hundreds are known, other numbers and none are not."""
    assert all(is_known(code) for code in (1000, 1099, 1199, 1303, 5001, 5099))
    assert not any(is_known(code) for code in (0, -1, 999, 1400, 1999, 5100))


@pytest.mark.parametrize("code", [1200, 1201])
def test_the_message_tells_not_found_and_duplicate_apart(code: int) -> None:
    """One code covers a wrong parameter, an unknown task and a doubled id; only the text differs (seen live 2026-09)."""
    missing = api_error(code, 400, "Task not found by id/external id: 7")
    doubled = api_error(code, 400, "External_task_id 7 already exists")
    wrong = api_error(code, 400, "model is not supported")

    assert [type(error) for error in (missing, doubled, wrong)] == [
        errors.TaskNotFound,
        errors.DuplicateExternalId,
        errors.BadRequest,
    ]


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (1201, "Task not found by id/external id: X", True),
        (1200, "task Not Found", True),
        (1203, "", True),
        (1201, "Voice id not found", False),
        (1201, "", False),
        (0, "Task not found", False),
        (5000, "task not found", False),
        (1303, "task not found", False),
    ],
)
def test_what_counts_as_not_found(code: int, message: str, expected: bool) -> None:  # noqa: FBT001  # a table
    """Both dialects mean that there is no such task; anything else means that it could not be told."""
    assert is_not_found(code, message) is expected


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (1201, "External_task_id ka-1 already exists", True),
        (1200, "external task id 'a b' already\nexists", False),
        (1200, "external task id 'a\nb' already exists", True),
        (1201, "ExternalTaskId x already existed", True),
        (1201, "external_task_id is invalid", False),
        (1201, "voice already exists", False),
        (1303, "External_task_id X already exists", False),
    ],
)
def test_what_counts_as_a_duplicate(code: int, message: str, expected: bool) -> None:  # noqa: FBT001  # a table
    """Only a refusal that speaks of the external id says that the task exists."""
    assert is_duplicate(code, message) is expected


def test_long_messages_are_cut() -> None:
    """Megabytes of message do not travel through errors, nor are they searched."""
    error = api_error(1201, 400, "  " + "external_task_id " * 600_000 + "already exists")

    assert type(error) is errors.BadRequest
    assert len(error.message) == 1000


@given(st.integers(), st.integers(100, 599), st.text())
def test_any_refusal_has_an_error(code: int, http_status: int, message: str) -> None:
    """Whatever code, status and text come, there is an error for them, and it tells something."""
    error = api_error(code, http_status, message, retry_after=3.0)

    assert isinstance(error, errors.ApiError)
    assert (error.code, error.http_status, error.retry_after) == (code, http_status, 3.0)
    assert error.message
