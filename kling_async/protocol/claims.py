"""What a process tells the book of shared slots, and what it is told; see `leases`."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

__all__ = ["GONE", "LOST", "OPEN", "Claim", "Grant", "Opening", "Refusal", "Report", "Ruling", "Terms"]

# What the wish for a window is answered with: it is open, the lease is gone (ask again), somebody else has the job; a
# positive number is how many seconds another's create may still be under way.
OPEN, GONE, LOST = 0.0, -1.0, -2.0


@frozen(kw_only=True)
class Terms:
    """
    The times that a store goes by, in seconds of its own clock.

    *settle* is how long a store that has lost its memory only listens before it grants again, *patience* after how long a
    silent process counts as gone and gives back what it had not used, *orphan* how much longer its tasks hold their
    slots unless another process takes them over, and *fresh* how long room is kept for a process that is not heard of.
    """

    settle: float = 3.0
    patience: float = 30.0
    orphan: float = 120.0
    fresh: float = 2.0


@frozen
class Claim:
    """Slots for *job* (an external id). A *firm* claim takes the job over from whoever has it."""

    job: str
    token: str
    slots: int
    firm: bool = True


@frozen
class Refusal:
    """The service had no slot for *job*; *pause* is how long it asks to wait, 0 if it does not say."""

    job: str
    token: str
    pause: float = 0.0


@frozen
class Opening:
    """The wish to send the create of *job*, which arrives within *seconds* or never."""

    job: str
    token: str
    seconds: float


@frozen(kw_only=True)
class Report:
    """
    What is new with one process.

    *generation* and *turn* are those of the last ruling it has seen, *nonce* is drawn for each report. *limit* is a new
    word on the limit, *guess* one that counts only where there is none. *holds* are tasks that exist; *ends* and *closes* are (job, token): slots to give back, and
    creates that were answered.
    """

    owner: str
    nonce: str
    generation: str = ""
    turn: int = 0
    limit: int | None = None
    guess: int | None = None
    asks: tuple[Claim, ...] = ()
    holds: tuple[Claim, ...] = ()
    ends: tuple[tuple[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    opens: tuple[Opening, ...] = ()
    closes: tuple[tuple[str, str], ...] = ()


@frozen
class Grant:
    """The right to create *job*; *inherited* says that somebody before may have sent its create already."""

    job: str
    token: str
    inherited: bool


@frozen(kw_only=True)
class Ruling:
    """
    What a process is told.

    *forgotten* asks it to tell everything anew. *lost* are tokens whose job somebody else has taken over. *opened*
    answers the wishes for windows by token. *limit* is 0 if nobody knows one. *pause* is for how many seconds nothing
    will be granted, *owners* how many processes share the lane.
    """

    generation: str
    turn: int
    forgotten: bool
    granted: tuple[Grant, ...]
    lost: tuple[str, ...]
    opened: Mapping[str, float]
    limit: int
    ceiling: int
    held: int
    waiting: int
    owners: int
    pause: float
