"""Processes that share a lane through the book of leases, in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

from attrs import define, field

from kling_async.protocol.claims import Claim, Report
from kling_async.protocol.leases import Book

__all__ = ["POLL", "Shared"]

# Seconds between the exchanges of a process that waits.
POLL = 0.05


@define
class Shared:
    """*processes* that each keep *ahead* jobs of *weights* in the queue of a lane of *limit* slots."""

    limit: int
    processes: int
    weights: list[int]
    ahead: int = 16
    typical: float = 4.8
    seed: int = 1
    now: float = 100.0
    waits: dict[int, list[float]] = field(factory=dict)
    used: float = 0.0
    exchanges: int = 0
    _book: Book = field(factory=Book)
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _numbers: count[int] = field(factory=count)
    _asked: dict[str, float] = field(factory=dict)
    _ended: dict[int, list[tuple[str, str]]] = field(factory=dict)
    _queued: dict[int, int] = field(factory=dict)

    def run(self) -> float:
        """Run until all jobs have been granted; returns the share of slot-seconds that was used until then."""
        dice = Random(self.seed)
        jobs = iter(enumerate(self.weights))
        self._tell(0, limit=self.limit)
        self.now = began = 110.0
        for process in range(self.processes):
            self._at(self.now + POLL * dice.random(), partial(self._turn, process, jobs, dice))
        last = began
        while self._events and len(self.waits_of_all()) < len(self.weights):
            at, _, happens = heapq.heappop(self._events)
            self.used += (at - self.now) * self._book.held
            self.now = last = at
            happens()
        return self.used / (self.limit * (last - began))

    def waits_of_all(self) -> list[float]:
        """Return how long each granted job has waited."""
        return [wait for waits in self.waits.values() for wait in waits]

    def _at(self, at: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happens))

    def _tell(self, process: int, **news: object) -> list[tuple[str, str]]:
        self.exchanges += 1
        report = Report(owner=str(process), nonce="n", **news)  # type: ignore[arg-type]  # of the right kinds
        return [(grant.job, grant.token) for grant in self._book.exchange(report, self.now).granted]

    def _take_ended(self, process: int) -> tuple[tuple[str, str], ...]:
        ended = self._ended.setdefault(process, [])
        taken = tuple(ended)
        ended.clear()
        return taken

    def _turn(self, process: int, jobs: object, dice: Random) -> None:
        asks = []
        while self._queued.get(process, 0) < self.ahead:
            found = next(jobs, None)  # type: ignore[call-overload]  # an iterator
            if found is None:
                break
            number, slots = found
            asks.append(Claim(f"{number}", f"{process}.{slots}.{number}", slots))
            self._asked[f"{number}"] = self.now
            self._queued[process] = self._queued.get(process, 0) + 1
        for job, token in self._tell(process, asks=tuple(asks), ends=self._take_ended(process)):
            slots = int(token.split(".")[1])
            self.waits.setdefault(slots, []).append(self.now - self._asked[job])
            self._queued[process] -= 1
            seconds = self.typical * dice.lognormvariate(0.0, 0.4)
            self._at(self.now + seconds, partial(self._ended.setdefault(process, []).append, (job, token)))
        self._at(self.now + POLL, lambda: self._turn(process, jobs, dice))
