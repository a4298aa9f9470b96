"""Ctrl-C in two stages: the first asks for an orderly end, the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from attrs import define

__all__ = ["Interruption", "two_stages"]


@define(eq=False)
class Interruption:
    """Whether and how the run was interrupted: *signal* is the first one that came, *leaving* tells of a second."""

    signal: int | None = None
    leaving: bool = False

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def two_stages(first: Callable[[], None], second: Callable[[], None]) -> Iterator[Interruption]:
    """
    Call *first* in the running loop at the first SIGINT or SIGTERM, *second* at the next one.

    The handlers that stood before are put back at the end. Only for the main thread.
    """
    loop = asyncio.get_running_loop()
    interruption = Interruption()

    def decide(number: int) -> None:
        if interruption.signal is None:
            interruption.signal = number
            first()
        else:
            interruption.leaving = True
            second()

    def receive(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(decide, number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
