"""Outcomes on their way to whoever iterates over a batch."""

from __future__ import annotations

import asyncio
from collections import deque

from attrs import define, field

from kling_async.batch.outcomes import Outcome

__all__ = ["Outbox"]


@define(eq=False)
class Outbox:
    """
    Holds outcomes until they are taken; *in_order* holds each back until all before it are there.

    *backlog* counts what could be taken now, *next_position* is the first place of the input that is not there yet.
    """

    in_order: bool
    next_position: int = field(default=0, init=False)
    _ready: deque[Outcome] = field(factory=deque, init=False, repr=False)
    _early: dict[int, Outcome | None] = field(factory=dict, init=False, repr=False)
    _closed: bool = field(default=False, init=False)
    _waiter: asyncio.Future[None] | None = field(default=None, init=False, repr=False)

    @property
    def backlog(self) -> int:
        """How many outcomes wait to be taken."""
        return len(self._ready)

    def put(self, position: int, outcome: Outcome | None) -> None:
        """Add the outcome for a place of the input; None for a place that has none."""
        if not self.in_order:
            if outcome is not None:
                self._ready.append(outcome)
        else:
            self._early[position] = outcome
            while self.next_position in self._early:
                due = self._early.pop(self.next_position)
                self.next_position += 1
                if due is not None:
                    self._ready.append(due)
        self._wake()

    def close(self) -> None:
        """Let the taker end once all is taken; what was held back for a place that never came goes out now."""
        for position in sorted(self._early):
            outcome = self._early.pop(position)
            if outcome is not None:
                self._ready.append(outcome)
        self._closed = True
        self._wake()

    async def take(self) -> Outcome | None:
        """Return the next outcome, waiting for it; None when there will be no more."""
        while not self._ready:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._ready.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done() and (self._ready or self._closed):
            self._waiter.set_result(None)
