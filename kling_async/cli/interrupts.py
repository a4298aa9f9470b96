"""Ctrl-C in two stages: the first asks for an orderly end, the second leaves; a third does not even tidy up."""

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
    """Whether and how the run was interrupted: *signal* is the first one that came, *count* how many did."""

    signal: int | None = None
    count: int = 0

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def two_stages(
    first: Callable[[], None], second: Callable[[], None], third: Callable[[int], None]
) -> Iterator[Interruption]:
    """
    Call *first* in the running loop at the first SIGINT or SIGTERM and *second* at the next one.

    *third* is called with the exit code right inside the handler, whether the loop still turns or not. The handlers
    that stood before are put back at the end. Only for the main thread.
    """
    loop = asyncio.get_running_loop()
    interruption = Interruption()

    def receive(number: int, _frame: FrameType | None) -> None:
        interruption.count += 1
        if interruption.signal is None:
            interruption.signal = number
        if interruption.count > 2:
            third(interruption.exit_code)
        else:
            loop.call_soon_threadsafe(first if interruption.count == 1 else second)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
