"""The tree of errors: what is caught by what, and that errors travel."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from kling_async import errors
from kling_async.errors import KlingError
from kling_async.protocol.tasks import ResultImage, Task, TaskStatus

PARENTS = {
    "KlingError": "Exception",
    "ConfigError": "KlingError",
    "MissingExtra": "ConfigError",
    "JournalError": "ConfigError",
    "SlotStoreError": "KlingError",
    "ClusterLost": "KlingError",
    "LeaseLost": "KlingError",
    "InvalidJob": "KlingError",
    "TransportError": "KlingError",
    "RequestTimeout": "TransportError",
    "ApiError": "KlingError",
    "AuthError": "ApiError",
    "TokenNotYetValid": "AuthError",
    "TokenExpired": "AuthError",
    "AccountError": "ApiError",
    "InArrears": "AccountError",
    "OutOfUnits": "AccountError",
    "NotPermitted": "AccountError",
    "AddressNotAllowed": "AccountError",
    "BadRequest": "ApiError",
    "DuplicateExternalId": "BadRequest",
    "TaskNotFound": "BadRequest",
    "NoSuchResource": "ApiError",
    "PolicyRefusal": "ApiError",
    "ContentRefusal": "ApiError",
    "RateLimited": "ApiError",
    "NoFreeSlot": "ApiError",
    "ServerError": "ApiError",
    "MalformedReply": "KlingError",
    "SubmissionUnknown": "KlingError",
    "TaskFailed": "KlingError",
    "TaskTimeout": "KlingError",
    "EmptyResult": "KlingError",
    "DownloadError": "KlingError",
    "LinkExpired": "DownloadError",
    "BatchStopped": "KlingError",
    "BudgetSpent": "BatchStopped",
}
KINDS = [getattr(errors, name) for name in PARENTS]
TASK = Task(
    task_id="77",
    status=TaskStatus("queued"),
    images=(ResultImage(index=0, url="https://host/a.png?ksSecret=abc"),),
)


def example(kind: type[KlingError]) -> KlingError:
    """Make an error with every field filled."""
    values: dict[str, Any] = {
        "message": "what happened",
        "code": 1303,
        "http_status": 429,
        "retry_after": 3.0,
        "task": TASK,
        "sent": False,
        "retryable": True,
        "local": True,
        "budget": 5,
        "committed": 4,
    }
    return kind(*(values.get(name, f"<{name}>") for name in list(inspect.signature(kind).parameters)))


def test_the_tree() -> None:
    """Every error has its documented parent first, and the module names them all."""
    found = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, KlingError)
    }

    assert found == PARENTS
    assert sorted(PARENTS) == sorted(errors.__all__)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling_and_copying(kind: type[KlingError]) -> None:
    """Batches carry errors as values between processes: class, fields, text and notes stay."""
    error = example(kind)
    error.add_note("external_task_id: ka-1")

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
    assert vars(copy.copy(error)) == vars(copy.deepcopy(error)) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_say_what_happened(kind: type[KlingError]) -> None:
    """The text begins with the message and the repr has the class; neither shows a signed link."""
    error = example(kind)

    assert str(error).startswith("what happened")
    assert repr(error) == f"{kind.__name__}({str(error)!r})"
    assert "abc" not in str(error) + repr(error)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_compare_by_identity_and_can_be_raised(kind: type[KlingError]) -> None:
    """Two errors with the same fields are two errors; each is hashable, as tracebacks and groups need."""
    error, other = example(kind), example(kind)

    assert error != other
    assert len({error, other}) == 2
    with pytest.raises(kind) as caught:
        raise error from other
    assert caught.value.__cause__ is other


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidJob("x"), ValueError),
        (errors.RequestTimeout("x"), TimeoutError),
        (errors.TaskTimeout("x"), TimeoutError),
    ],
)
def test_built_in_names_catch_ours(error: KlingError, builtin: type[Exception]) -> None:
    """`except ValueError` and `except TimeoutError` work as Python's users expect."""
    with pytest.raises(builtin) as caught:
        raise error

    assert caught.value is error
    assert str(error) == "x"


def test_only_those_are_built_in_ones() -> None:
    """No other error is caught by accident with `ValueError`, `TimeoutError` or `OSError`."""
    loose = {
        kind.__name__ for kind in KINDS if issubclass(kind, ValueError | OSError | LookupError | RuntimeError)
    }

    assert loose == {"InvalidJob", "RequestTimeout", "TaskTimeout"}


def test_an_api_error_tells_what_a_caller_needs() -> None:
    """Message, code, remedy and request id, as far as they are known."""
    whole = errors.NoFreeSlot("no slot", 1303, 429, "r-1", "wait")
    bare = errors.ServerError("bad gateway", 0, 502)

    assert str(whole) == "no slot (code 1303); wait; request id r-1"
    assert str(bare) == "bad gateway (HTTP 502)"


def test_an_invalid_job_names_its_parts() -> None:
    """Field, rule, value and remedy are in the text and on their own."""
    error = errors.InvalidJob.because("n", "1 to 9", "0", "ask for at least one picture")

    assert str(error) == "n: expected 1 to 9, found 0; ask for at least one picture"
    assert (error.field, error.rule, error.value) == ("n", "1 to 9", "0")
    assert error.remedy == "ask for at least one picture"


def test_defaults() -> None:
    """A bare error is careful: what may have been sent counts as sent."""
    assert errors.TransportError("x").sent
    assert not errors.DownloadError("x").retryable
    assert errors.ApiError("x").retry_after is None


@pytest.mark.parametrize(
    ("reason", "astray"),
    [
        (errors.MalformedReply("moved", 302), True),
        (errors.BadRequest("not here", 0, 404), True),
        (errors.MalformedReply("a page", 200), False),
        (errors.TaskNotFound("no such task", 1201, 400), False),
        (errors.RateLimited("slow down", 0, 429), False),
        (errors.ServerError("bad gateway", 0, 502), False),
        (errors.TransportError("reset"), False),
    ],
)
def test_look_ups_that_can_never_be_answered_are_told_from_those_that_may(
    reason: errors.KlingError, *, astray: bool
) -> None:
    """A redirect, and a refusal without a code, come from somebody else than the service: the address is wrong."""
    error = errors.SubmissionUnknown("unknown", "ka-1")
    error.__cause__ = reason

    assert isinstance(error.astray, errors.ConfigError) == astray
