"""What a poll plan asks, and what the answers tell it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from attrs import frozen

__all__ = ["Glance", "Look", "Seen", "Turn"]


class Look(Protocol):
    """One task as a list page shows it."""

    @property
    def task_id(self) -> str:
        """Which task it is."""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""

    @property
    def seconds(self) -> float | None:
        """The seconds from its creation to its end by the service's clock, if told."""

    @property
    def status(self) -> str:
        """The service's word for where it stands."""


class Glance(NamedTuple):
    """A `Look`; a named tuple, because a sweep makes hundreds of them and an attrs class takes three times as long."""

    task_id: str
    ended: bool
    seconds: float | None = None
    status: str = ""


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
