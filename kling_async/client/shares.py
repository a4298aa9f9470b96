"""What one process has to tell the store that shares a lane's slots."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container

from attrs import Factory, define, field

from kling_async.errors import KlingError
from kling_async.protocol.claims import Claim, Opening, Refusal, Report, Ruling

__all__ = ["Meter", "News", "Share"]


@define(eq=False)
class Share:
    """
    A job's claim to slots that are shared. *told* is called when it is granted or came to nothing.

    *inherited* says that another process may have sent the job's create before.
    """

    job: str
    token: str
    slots: int
    told: Callable[[KlingError | None], None] | None = field(default=None, repr=False)
    running: bool = False
    granted: bool = False
    inherited: bool = False
    # Its create may be under way, and arrive until the end of its window.
    sending: bool = False
    window_ends: float = 0.0
    firm: bool = True
    ended: bool = False


@define(eq=False)
class News:
    """What the store has not been told yet."""

    limit: int | None = None
    guess: int | None = None
    asks: dict[str, Share] = Factory(dict)
    holds: dict[str, Share] = Factory(dict)
    ends: dict[str, Share] = Factory(dict)
    refusals: dict[str, Refusal] = Factory(dict)
    opens: dict[str, Opening] = Factory(dict)
    closes: dict[str, Share] = Factory(dict)

    def __bool__(self) -> bool:
        tokens = self.asks or self.holds or self.ends or self.refusals or self.opens or self.closes
        return bool(tokens) or self.limit is not None

    def report(self, owner: str, known: Ruling | None) -> Report:
        """Return everything as a report of *owner*, whose last ruling is *known*."""
        return Report(
            owner=owner,
            nonce=secrets.token_hex(8),
            generation=known.generation if known else "",
            turn=known.turn if known else 0,
            limit=self.limit,
            guess=self.guess,
            asks=tuple(map(_claim, self.asks.values())),
            holds=tuple(map(_claim, self.holds.values())),
            ends=tuple((share.job, share.token) for share in self.ends.values()),
            refusals=tuple(self.refusals.values()),
            opens=tuple(self.opens.values()),
            closes=tuple((share.job, share.token) for share in self.closes.values()),
        )

    def before(self, later: News, wanted: Container[str]) -> News:
        """
        Return this, which could not be told, with what came up *later*; of wishes for windows only those still *wanted*.

        It may have been heard all the same, and is told again without harm.
        """
        return News(
            limit=self.limit if later.limit is None else later.limit,
            guess=self.guess,
            asks=_living(self.asks) | later.asks,
            holds=_living(self.holds) | later.holds,
            ends=self.ends | later.ends,
            refusals=self.refusals | later.refusals,
            opens={token: wish for token, wish in self.opens.items() if token in wanted} | later.opens,
            closes=_living(self.closes) | later.closes,
        )


@define(eq=False)
class Meter:
    """Adds a number up over time."""

    value: int = 0
    _total: float = field(default=0.0, init=False)
    _at: float = field(default=0.0, init=False)

    def add(self, amount: int, now: float) -> None:
        """Change the number by *amount*."""
        self._total, self._at = self.total(now), now
        self.value += amount

    def total(self, now: float) -> float:
        """Return the number times seconds so far."""
        return self._total + self.value * (now - self._at)


def _claim(share: Share) -> Claim:
    return Claim(share.job, share.token, share.slots, share.firm)


def _living(shares: dict[str, Share]) -> dict[str, Share]:
    return {token: share for token, share in shares.items() if not share.ended}
