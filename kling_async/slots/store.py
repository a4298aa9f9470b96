"""What all stores of shared slots have in common: one call, in which a process tells what is new and is told what it may do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kling_async.errors import ConfigError
from kling_async.protocol.claims import Report, Ruling

__all__ = ["SlotStore", "checked_limit"]


@runtime_checkable
class SlotStore(Protocol):
    """
    Shares the slots of accounts between processes; *limit* is how many each lane has, None if this process does not say.

    The newest word on a limit counts for all who share it. *heal* is within how many seconds a process must be heard of,
    so that a store which has lost its memory learns everything again before it grants anything.
    """

    @property
    def limit(self) -> int | None:
        """The slots of each lane as far as this process says."""

    @property
    def heal(self) -> float:
        """Seconds in which a store that forgot listens before it grants."""

    async def exchange(self, lane: str, report: Report) -> Ruling:
        """Take in *report* on *lane* and rule; raises `SlotStoreError` if the store cannot be used now."""

    async def aclose(self) -> None:
        """Close what is open; the next exchange opens it again."""


def checked_limit(limit: object) -> int | None:
    """Return *limit* if it can be one; raises `ConfigError` if not."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit: expected a whole number of slots above 0, found {limit!r}")
    return limit
