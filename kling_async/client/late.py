"""A part of a client that is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Late"]

T = TypeVar("T")


class Late(Generic[T]):
    """What a program may never need, or not before its first task is made, is not even loaded before."""

    __slots__ = ("_make", "made")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # The part, if it was asked for.
        self.made: T | None = None

    def get(self) -> T:
        """Return the part, the same each time."""
        if self.made is None:
            self.made = self._make()
        return self.made
