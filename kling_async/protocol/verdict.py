"""
What the end of a create means.

There are three answers to "was a task made, and is it paid for": yes, no, and nobody knows. Only a *no* may ever be
sent again without asking first.
"""

from __future__ import annotations

from enum import Enum, auto

from kling_async import errors
from kling_async.protocol.codes import is_known

__all__ = ["Verdict", "judge"]


class Verdict(Enum):
    """The six ends of a create that did not bring a task (one that did is its task)."""

    NOT_SENT = auto()
    """No byte left this machine: repeat after a pause."""
    REJECTED = auto()
    """The service refused the job itself; it will never pass. Free."""
    DUPLICATE = auto()
    """A task with this external id exists already: look it up."""
    BACK_PRESSURE = auto()
    """No slot (1303) or too fast (1302): free, wait, not an attempt."""
    ACCOUNT_STOP = auto()
    """Nothing can be created on this account until somebody acts. A new token has been tried where that may help."""
    AMBIGUOUS = auto()
    """A task may have been made. Ask before sending again."""


# The first row that fits decides; the most specific class comes first.
_TABLE: tuple[tuple[type[errors.KlingError], Verdict], ...] = (
    # A picture changed while it was sent: the request never arrived whole.
    (errors.InvalidJob, Verdict.REJECTED),
    (errors.LeaseLost, Verdict.REJECTED),
    (errors.SlotStoreError, Verdict.NOT_SENT),
    (errors.ConfigError, Verdict.ACCOUNT_STOP),
    (errors.AuthError, Verdict.ACCOUNT_STOP),
    (errors.AccountError, Verdict.ACCOUNT_STOP),
    (errors.DuplicateExternalId, Verdict.DUPLICATE),
    (errors.RateLimited, Verdict.BACK_PRESSURE),
    (errors.NoFreeSlot, Verdict.BACK_PRESSURE),
    (errors.PolicyRefusal, Verdict.REJECTED),
    (errors.ContentRefusal, Verdict.REJECTED),
    (errors.NoSuchResource, Verdict.REJECTED),
    (errors.BadRequest, Verdict.REJECTED),
)

# Without a code only these statuses tell that the service (or what stands before it) did not act on the request.
_CLEAR_WITHOUT_CODE = frozenset({401, 402, 403, 413, 414, 415, 422, 429})
# With a code that the table does not know it was the service itself that refused.
_CLEAR_WITH_STRANGE_CODE = _CLEAR_WITHOUT_CODE | {400, 404}


def judge(error: errors.KlingError) -> Verdict:
    """Judge the *error* that a create ended with, after `flows.exchange()` has tried a new token."""
    if isinstance(error, errors.TransportError):
        return Verdict.AMBIGUOUS if error.sent else Verdict.NOT_SENT
    if isinstance(error, errors.ApiError) and not is_known(error.code):
        clear = _CLEAR_WITH_STRANGE_CODE if error.code else _CLEAR_WITHOUT_CODE
        if error.http_status not in clear:
            return Verdict.AMBIGUOUS
    return next((verdict for kind, verdict in _TABLE if isinstance(error, kind)), Verdict.AMBIGUOUS)
