"""
Many accounts in virtual time, each with a lane of its own, fed by one queue of jobs or by a queue each.

Nothing is shared between accounts but the jobs, so what is found for a hundred of them holds for a thousand. The service
of each has as many slots as its lane believes; what a wrong belief costs is `world`'s matter.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import count
from math import ceil
from random import Random
from zlib import crc32

from attrs import Factory, define, field, frozen

from kling_async.protocol.limits import Limit
from kling_async.protocol.slots import Lane

__all__ = ["Fleet", "FleetFindings"]


@frozen(kw_only=True)
class FleetFindings:
    """
    *used* is the slot-seconds of tasks ÷ those offered, up to the moment when the first account ran dry; *lowest* that
    of the account with the least. *creates* is creates a second in that time, *tasks* how many ran at its end; *stretch*
    the time of the whole ÷ the shortest there could be, in which all slots are in use until the end.
    """

    used: float
    lowest: float
    creates: float
    tasks: int
    stretch: float
    seconds: float


@define
class Fleet:
    """*accounts* of *slots* each; with *common* whoever has room takes the next job, without it a job's key names its account."""

    accounts: int
    slots: int
    weights: Sequence[int]
    common: bool
    seconds: Callable[[Random], float]
    latency: float = 0.05
    look_every: float = 0.4
    ahead: int = 128
    _now: float = field(init=False, default=0.0)
    _events: list[tuple[float, int, int, int, bool]] = field(init=False, default=Factory(list))
    _numbers: Iterator[int] = field(init=False, default=Factory(count))
    _lanes: list[Lane] = field(init=False, default=Factory(list))
    _queues: list[Iterator[int]] = field(init=False, default=Factory(list))
    _dice: Random = field(init=False, factory=lambda: Random(1))
    _dry: float | None = field(init=False, default=None)
    _used_until_dry: list[float] = field(init=False, default=Factory(list))
    _creates: int = field(init=False, default=0)
    _tasks: int = field(init=False, default=0)
    _work: float = field(init=False, default=0.0)

    def run(self) -> FleetFindings:
        """Run until all jobs have ended."""
        self._lanes = [Lane(Limit.known(self.slots)) for _ in range(self.accounts)]
        self._queues = self._split()
        for account in range(self.accounts):
            self._turn(account)
        while self._events:
            self._now, _, account, job, ended = heapq.heappop(self._events)
            if ended:
                self._lanes[account].release(job, self._now)
            else:
                self._lanes[account].accepted(job, self._now)
            self._turn(account)
        dry = self._dry or self._now
        shares = [used / (self.slots * dry) for used in self._used_until_dry]
        return FleetFindings(
            used=sum(shares) / self.accounts,
            lowest=min(shares),
            creates=self._creates / dry,
            tasks=self._tasks,
            stretch=self._now * self.accounts * self.slots / self._work,
            seconds=self._now,
        )

    def _split(self) -> list[Iterator[int]]:
        if self.common:
            return [iter(range(len(self.weights)))] * self.accounts
        queues: list[list[int]] = [[] for _ in range(self.accounts)]
        for job in range(len(self.weights)):
            queues[crc32(b"%d" % job) % self.accounts].append(job)
        return [iter(queue) for queue in queues]

    def _turn(self, account: int) -> None:
        lane, now = self._lanes[account], self._now
        granted: list[Hashable] | None = None
        exhausted = False
        while granted is None or granted:
            while not exhausted and lane.waiting < self.ahead:
                job = next(self._queues[account], None)
                exhausted = job is None
                if job is not None:
                    lane.ask(job, self.weights[job], now)
            granted, _ = lane.grant(now)
            for ticket in granted:
                assert isinstance(ticket, int)
                self._send(account, ticket)
        if self._dry is None and exhausted and not lane.waiting:
            self._dry = now
            self._used_until_dry = [each.slot_seconds(now) for each in self._lanes]
            self._creates = next(self._numbers) // 2
            self._tasks = sum(each.in_flight for each in self._lanes)

    def _send(self, account: int, job: int) -> None:
        took = self.seconds(self._dice)
        self._work += took * self.weights[job]
        ends = self._now + self.latency / 2 + took
        seen = ceil(ends / self.look_every) * self.look_every + self.latency / 2
        heapq.heappush(self._events, (self._now + self.latency, next(self._numbers), account, job, False))
        heapq.heappush(self._events, (seen, next(self._numbers), account, job, True))
