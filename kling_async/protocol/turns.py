"""What a poll plan asks, and what the answers tell it."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

__all__ = ["Glance", "Seen", "Turn"]


class Glance(NamedTuple):
    """
    One task as a list page shows it; *seconds* from its creation to its end by the service's clock, if told.

    A named tuple, because a sweep makes hundreds of them and an attrs class takes three times as long.
    """

    task_id: str
    ended: bool
    seconds: float | None = None


@frozen
class Turn:
    """What to ask now: task ids one by one, and list pages, best in this order; the next plan is wanted at *wake_at*."""

    gets: tuple[str, ...]
    pages: tuple[int, ...]
    page_size: int
    wake_at: float | None


@frozen
class Seen:
    """What a page told: watched tasks that have *ended* (they are no longer watched), and a page to read next in this sweep."""

    ended: tuple[str, ...]
    next_page: int | None
