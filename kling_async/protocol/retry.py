"""How long to pause before sending again, and whether that may be done at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from attrs import define, field, frozen

from kling_async import errors

__all__ = ["Pacing", "RetryQuota", "heals", "http_date", "retry_after"]

# A server's wish is honoured up to a minute (R4); more than that is our own pacing's business.
LONGEST_WISH = 60.0


@frozen(kw_only=True)
class Pacing:
    """Exponential pauses with jitter: between half a step and a whole one, never more than *cap* seconds."""

    base: float = 0.5
    cap: float = 20.0

    def pause(self, attempt: int, dice: float, wish: float | None = None) -> float:
        """
        Return the seconds to wait after failed *attempt* (1, 2, …); *dice* is drawn from [0, 1).

        *wish* is the service's `Retry-After`, already bounded by `retry_after()`, which wins.
        """
        if wish is not None:
            return wish
        step = min(self.cap, self.base * 2.0 ** min(attempt - 1, 32))
        return step * (0.5 + dice / 2)


def retry_after(headers: Mapping[str, str], service_time: float | None = None) -> float | None:
    """
    Read the `Retry-After` header as seconds, at most 60; None where it is absent or makes no sense.

    A date is measured against *service_time*, the Unix time of the same reply's `Date`, so that a wrong clock
    here does not matter.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        moment = http_date(text)
        if moment is None or service_time is None:
            return None
        seconds = moment - service_time
    return min(seconds, LONGEST_WISH) if math.isfinite(seconds) and seconds > 0 else None


def http_date(text: str) -> float | None:
    """Return the Unix time of an HTTP date, None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        # A date without a zone is in GMT like all others, and not in the zone of this machine.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def heals(error: errors.KlingError) -> bool:
    """Tell whether a call that only reads is worth repeating after *error*; a redirect will not change by itself."""
    if isinstance(error, errors.MalformedReply) and error.is_redirect:
        return False
    return isinstance(
        error,
        errors.TransportError
        | errors.MalformedReply
        | errors.ServerError
        | errors.RateLimited
        | errors.NoFreeSlot,
    )


@define(eq=False)
class RetryQuota:
    """
    A bucket of retries that one client shares, so that an outage does not multiply its traffic.

    As in botocore's standard mode: a retry takes *cost* out, a success puts one back. Waiting for a slot or for the
    rate gate costs nothing, since those have pauses of their own.
    """

    capacity: int = 100
    cost: int = 5
    _left: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.capacity

    @property
    def left(self) -> int:
        """What is in the bucket."""
        return self._left

    def take(self) -> bool:
        """Pay for one retry; False, and nothing taken, if the bucket holds too little."""
        if self._left < self.cost:
            return False
        self._left -= self.cost
        return True

    def give_back(self) -> None:
        """Note a success."""
        self._left = min(self.capacity, self._left + 1)
