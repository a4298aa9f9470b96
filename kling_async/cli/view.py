"""What shows a run, however it does so."""

from __future__ import annotations

from typing import Protocol

from kling_async.cli.board import Snapshot

__all__ = ["View", "printable"]


class View(Protocol):
    """Something that shows snapshots, one each *every* seconds."""

    every: float

    def start(self) -> None:
        """Begin."""

    def show(self, shot: Snapshot) -> None:
        """Show where the run stands."""

    def note(self, key: str, text: str) -> None:
        """Show what happened to one job, or to the account if *key* is empty."""

    def stop(self) -> None:
        """End; nothing is shown any more."""


def printable(text: str) -> str:
    """Return *text* in one line, and without what would move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)
