"""
The service's error codes: what each means, what to do, and which exception says so.

The table is the vendor's (22 rows, the same in every snapshot of its page from 2026-02 to 2026-09). The code
decides before the HTTP status, because HTTP 429 alone covers six codes of which only two heal by waiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from kling_async import errors

__all__ = ["CODES", "Code", "api_error", "is_duplicate", "is_known", "is_not_found", "name_model"]


@frozen
class Code:
    """One row of the vendor's table: *http_status* is the one documented, *remedy* the advice given."""

    code: int
    http_status: int
    meaning: str
    remedy: str
    error: type[errors.ApiError]


_ROWS = (
    Code(
        1000,
        401,
        "Authentication failed",
        "check the credentials and the region they belong to",
        errors.AuthError,
    ),
    Code(
        1001,
        401,
        "Authorization is empty",
        "give an API key, or an access key and a secret key",
        errors.AuthError,
    ),
    Code(
        1002,
        401,
        "Authorization is invalid",
        "check the credentials and the region they belong to",
        errors.AuthError,
    ),
    Code(1003, 401, "Authorization is not yet valid", "set this machine's clock", errors.TokenNotYetValid),
    Code(
        1004,
        401,
        "Authorization has expired",
        "set this machine's clock or make a new token",
        errors.TokenExpired,
    ),
    Code(
        1100, 429, "Abnormal account status", "verify the account in the Kling console", errors.AccountError
    ),
    Code(1101, 429, "Account in arrears", "top up the account, then run again to continue", errors.InArrears),
    Code(
        1102,
        429,
        "Resource pack exhausted or expired",
        "buy a pack of this product type or activate postpaid billing, then run again to continue",
        errors.OutOfUnits,
    ),
    Code(
        1103,
        403,
        "No access to this resource, such as the API or model",
        "check the account's permissions",
        errors.NotPermitted,
    ),
    Code(1200, 400, "Invalid request parameters", "correct the request", errors.BadRequest),
    Code(1201, 400, "Invalid parameter", "correct what the message names", errors.BadRequest),
    Code(
        1202,
        404,
        "Invalid request method",
        "check the base URL and the version of this package",
        errors.NoSuchResource,
    ),
    Code(
        1203,
        404,
        "The requested resource does not exist, such as the model",
        "check the model name and the base URL",
        errors.NoSuchResource,
    ),
    Code(1300, 400, "Blocked by platform policy", "change the prompt or the pictures", errors.PolicyRefusal),
    Code(
        1301,
        400,
        "Refused by the content security policy",
        "change the prompt or the pictures (not charged)",
        errors.ContentRefusal,
    ),
    Code(1302, 429, "Too many requests", "wait and send fewer requests at once", errors.RateLimited),
    Code(
        1303,
        429,
        "More parallel tasks than the resource pack allows",
        "wait for a task to end (the refusal is free)",
        errors.NoFreeSlot,
    ),
    Code(
        1304,
        429,
        "Blocked by the account's IP whitelist",
        "allow this machine's address in the Kling console",
        errors.AddressNotAllowed,
    ),
    Code(5000, 500, "Server internal error", "try again later", errors.ServerError),
    Code(
        5001,
        503,
        "Server temporarily unavailable",
        "try again later; usually maintenance",
        errors.ServerError,
    ),
    Code(5002, 504, "Server internal timeout", "try again later; usually a backlog", errors.ServerError),
)

CODES: Mapping[int, Code] = MappingProxyType({row.code: row for row in _ROWS})

# Codes the table does not know are mapped by their hundred (1999 has none and falls through to the HTTP status).
_BY_HUNDRED: Mapping[int, type[errors.ApiError]] = MappingProxyType(
    {
        10: errors.AuthError,
        11: errors.AccountError,
        12: errors.BadRequest,
        13: errors.PolicyRefusal,
        50: errors.ServerError,
    }
)
_BY_STATUS: Mapping[int, type[errors.ApiError]] = MappingProxyType(
    {
        400: errors.BadRequest,
        401: errors.AuthError,
        402: errors.AccountError,
        403: errors.NotPermitted,
        404: errors.NoSuchResource,
        408: errors.ServerError,
        425: errors.ServerError,
        429: errors.RateLimited,
    }
)

# Seen live (2026-09): code 1201 "Task not found by id/external id: X" and "External_task_id X already exists".
_NOT_FOUND = re.compile(r"task not found", re.IGNORECASE)
_MODEL = re.compile(r"\bmodel", re.IGNORECASE)
_DUPLICATE = re.compile(r"external_?\s?task_?\s?id\b.*\balready exist", re.IGNORECASE | re.DOTALL)

_WITHOUT_CODE = "it came without a code, as from a gateway: check the base URL and any proxy"
_WITHOUT_CODE_NOW = (
    "it came without a code, as from a gateway, and usually passes: try again later; if it stays, check the base URL "
    "and any proxy"
)
# What a gateway says of a service that is away or overwhelmed for the moment.
_PASSING = frozenset({408, 425, 429})

# A message of megabytes must not travel through errors and logs.
_LONGEST_MESSAGE = 1_000


def is_known(code: int) -> bool:
    """Tell whether the vendor's table says what *code* means, at least by its hundred."""
    return code in CODES or code // 100 in _BY_HUNDRED


def is_not_found(code: int, message: str) -> bool:
    """Tell whether a refused look-up means that there is no such task: 1200 and 1201 by their text (seen live), or 1203."""
    return code == 1203 or (code in {1200, 1201} and _NOT_FOUND.search(message) is not None)


def is_duplicate(code: int, message: str) -> bool:
    """Tell whether a refused create means that the external id is taken, so that the task exists already."""
    return code in {1200, 1201} and _DUPLICATE.search(message) is not None


def api_error(
    code: int, http_status: int, message: str = "", *, request_id: str = "", retry_after: float | None = None
) -> errors.ApiError:
    """Choose the exception for a refused call: by *code*, for an unknown one by its hundred, without one by *http_status*."""
    row = CODES.get(code)
    message = message.strip()[:_LONGEST_MESSAGE]
    kind = row.error if row else _BY_HUNDRED.get(code // 100) or _by_status(http_status)
    if is_duplicate(code, message):
        kind = errors.DuplicateExternalId
    elif code != 1203 and is_not_found(code, message):
        kind = errors.TaskNotFound
    passes = http_status >= 500 or http_status in _PASSING
    text = message or (row.meaning if row else "the request failed" if passes else "the request was refused")
    remedy = row.remedy if row else "" if code else _WITHOUT_CODE_NOW if passes else _WITHOUT_CODE
    return kind(text, code, http_status, request_id, remedy, retry_after)


def name_model(error: errors.KlingError, model: str) -> None:
    """Say in the remedy of *error* which *model* a refused create asked for, where it speaks of models and names none."""
    if not isinstance(error, errors.BadRequest | errors.NoSuchResource):
        return
    if _MODEL.search(error.message) and model not in error.message:
        error.remedy = f"the job asks for model_name {model!r}: give it another"


def _by_status(http_status: int) -> type[errors.ApiError]:
    if http_status >= 500:
        return errors.ServerError
    return _BY_STATUS.get(http_status, errors.BadRequest if 400 <= http_status < 500 else errors.ApiError)
