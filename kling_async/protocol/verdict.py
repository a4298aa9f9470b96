"""
What the end of a create means.

There are three answers to "was a task made, and is it paid for": yes, no, and nobody knows. Only a *no* may ever be
sent again without asking first.
"""

from __future__ import annotations

from enum import Enum, auto

from kling_async import errors

__all__ = ["Verdict", "judge"]


class Verdict(Enum):
    """The seven ends of a create that did not bring a task (one that did is its task)."""

    NOT_SENT = auto()
    """No byte left this machine: repeat after a pause."""
    REJECTED = auto()
    """The service refused the job itself; it will never pass. Free."""
    DUPLICATE = auto()
    """A task with this external id exists already: look it up."""
    BACK_PRESSURE = auto()
    """No slot (1303) or too fast (1302): free, wait, not an attempt."""
    REFRESH = auto()
    """The token was refused for its time: sign anew with the service's clock, once."""
    ACCOUNT_STOP = auto()
    """Nothing can be created on this account until somebody acts."""
    AMBIGUOUS = auto()
    """A task may have been made. Ask before sending again."""


# The first row that fits decides; the most specific class comes first.
_TABLE: tuple[tuple[type[errors.KlingError], Verdict], ...] = (
    (errors.TokenNotYetValid, Verdict.REFRESH),
    (errors.TokenExpired, Verdict.REFRESH),
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

# HTTP statuses that say nothing about whether the request was acted on, when no code comes with them.
_UNCLEAR = frozenset({408, 409, 425})


def judge(error: errors.KlingError, *, stale_token: bool = False) -> Verdict:
    """
    Judge the *error* that a create ended with.

    *stale_token* says that the token it carried was not young: then also a plain "not authorised" is worth one
    new token.
    """
    if isinstance(error, errors.TransportError):
        return Verdict.AMBIGUOUS if error.sent else Verdict.NOT_SENT
    if not isinstance(error, errors.ApiError) or (error.code == 0 and error.http_status in _UNCLEAR):
        return Verdict.AMBIGUOUS
    verdict = next((verdict for kind, verdict in _TABLE if isinstance(error, kind)), Verdict.AMBIGUOUS)
    if verdict is Verdict.ACCOUNT_STOP and stale_token and error.code in {1000, 1002}:
        return Verdict.REFRESH
    return verdict
