"""
A lane against a simulated service in virtual time: no sockets, no loop, a hundred thousand jobs in seconds.

The service has a true limit of its own and tasks of other programs; the lane learns of both from refusals only. A
finished task is seen by the next look of a poller, as in life, so the lane always believes to hold a little more
than runs.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from math import ceil
from random import Random

from attrs import Factory, define, field, frozen

from kling_async.protocol.limits import Change, Limit
from kling_async.protocol.slots import Lane

# Jobs of the largest runs; the scale session has all of them.
MANY = 100_000 if os.environ.get("KLING_TEST_SCALE") else 25_000


@frozen(kw_only=True)
class Scenario:
    """What is tried: *foreign* is a list of (time, slots held by other programs from then on)."""

    limit: Limit
    true: int
    weights: Sequence[int]
    seconds: Callable[[Random], float]
    foreign: Sequence[tuple[float, int]] = ()
    codes: Callable[[float], int | None] = lambda _now: (
        None
    )  # a code the service refuses everything with at that time
    latency: float = 0.05
    look_every: float = 0.4
    ahead: int = 1_000_000_000
    parties: int = 1
    seed: int = 1


@define(kw_only=True)
class Findings:
    """What was seen, on the service's side unless said otherwise."""

    lane: Lane
    posts: list[tuple[float, int]] = Factory(list)  # when, and the code of the answer (0: accepted)
    waits: dict[int, list[float]] = Factory(dict)  # seconds between asking and acceptance, by weight
    shares: dict[int, float] = Factory(dict)  # slot-seconds by party
    changes: list[Change] = Factory(list)
    peak: int = 0
    used: float = 0.0
    offered: float = 0.0
    ended: float = 0.0
    succeeded: int = 0

    @property
    def utilisation(self) -> float:
        """Slot-seconds used of those not taken by others, until the queue ran dry."""
        return self.used / self.offered

    @property
    def refusals(self) -> int:
        """How many creates were answered 1303."""
        return sum(code == 1303 for _, code in self.posts)


@define
class World:
    """The heap of what happens next."""

    scenario: Scenario
    found: Findings = field(init=False)
    _dice: Random = field(init=False)
    _events: list[tuple[float, int, Callable[[], None]]] = field(init=False, default=Factory(list))
    _numbers: Iterator[int] = field(init=False, default=Factory(count))
    _asked: dict[int, float] = field(init=False, default=Factory(dict))
    _next_job: int = field(init=False, default=0)
    _live: int = field(init=False, default=0)
    _others: int = field(init=False, default=0)
    _now: float = field(init=False, default=0.0)
    _counted: float = field(init=False, default=0.0)
    _wake: float | None = field(init=False, default=None)
    _begun: dict[int, float] = field(init=False, default=Factory(dict))

    def __attrs_post_init__(self) -> None:
        self.found = Findings(lane=Lane(self.scenario.limit))
        self._dice = Random(self.scenario.seed)

    def run(self, until: float = float("inf")) -> Findings:
        """Run until every job has ended, or until the time given."""
        for at, slots in self.scenario.foreign:
            self._at(at, partial(self._foreign, slots))
        self._turn()
        while self._events and self.found.succeeded < len(self.scenario.weights):
            at, _, happens = heapq.heappop(self._events)
            if at > until:
                break
            self._advance(at)
            happens()
        self.found.ended = self._now
        return self.found

    def _at(self, at: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happens))

    def _advance(self, now: float) -> None:
        if self._next_job < len(self.scenario.weights) or self.found.lane.waiting:
            passed = now - self._counted
            self.found.used += passed * self._live
            self.found.offered += passed * max(0, self.scenario.true - self._others)
        self._counted = self._now = now

    def _foreign(self, slots: int) -> None:
        self._others = slots

    def _turn(self) -> None:
        """Ask for what is ready, and send what the lane grants."""
        lane, now, scenario = self.found.lane, self._now, self.scenario
        while self._next_job < len(scenario.weights) and lane.waiting < scenario.ahead:
            job = self._next_job
            self._next_job += 1
            self._asked[job] = now
            lane.ask(job, scenario.weights[job], now, party=job % scenario.parties)
        granted, again = lane.grant(now)
        assert lane.held <= lane.limit or not granted
        self.found.changes += lane.changes()
        for ticket in granted:
            assert isinstance(ticket, int)
            self._at(now + scenario.latency / 2, partial(self._arrive, ticket))
        if again is not None and (self._wake is None or again < self._wake or self._wake <= now):
            self._wake = again
            self._at(again, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._turn()

    def _arrive(self, job: int) -> None:
        """Decide as the service does, and send the answer."""
        scenario, slots, now = self.scenario, self.scenario.weights[job], self._now
        code = scenario.codes(now) or (1303 if self._live + self._others + slots > scenario.true else 0)
        self.found.posts.append((now, code))
        if code == 0:
            self._live += slots
            self._begun[job] = now
            self.found.peak = max(self.found.peak, self._live)
            self._at(now + scenario.seconds(self._dice), lambda: self._end(job))
        self._at(now + scenario.latency / 2, lambda: self._answer(job, code))

    def _answer(self, job: int, code: int) -> None:
        lane, now = self.found.lane, self._now
        if code == 0:
            lane.accepted(job, now)
            self.found.waits.setdefault(self.scenario.weights[job], []).append(now - self._asked[job])
        else:
            {1303: lane.refused, 1302: lane.throttled, 5001: lane.paused}[code](
                job, now, dice=self._dice.random()
            )
        self._turn()

    def _end(self, job: int) -> None:
        """End a task; the poller sees it at its next look."""
        party = job % self.scenario.parties
        used = (self._now - self._begun.pop(job)) * self.scenario.weights[job]
        self.found.shares[party] = self.found.shares.get(party, 0.0) + used
        self._live -= self.scenario.weights[job]
        step = self.scenario.look_every
        self._at(
            max(ceil(self._now / step) * step, self._now) + self.scenario.latency / 2, lambda: self._seen(job)
        )

    def _seen(self, job: int) -> None:
        lane = self.found.lane
        self.found.succeeded += 1
        lane.release(job, self._now)
        self._turn()


def simulate(scenario: Scenario, until: float = float("inf")) -> Findings:
    """Run *scenario* and tell what was found."""
    return World(scenario).run(until)


def constant(_dice: Random) -> float:
    """Every task takes 24 seconds."""
    return 24.0


def lognormal(dice: Random) -> float:
    """Tasks take 24 seconds in the middle, some three times as long."""
    return 24.0 * dice.lognormvariate(0.0, 0.4)


def bimodal(dice: Random) -> float:
    """One task in five takes five times as long."""
    return 12.0 if dice.random() < 0.8 else 60.0


def mixed(jobs: int, *, most: int = 9, seed: int = 7) -> list[int]:
    """Draw *jobs* weights from 1 to *most*."""
    dice = Random(seed)
    return [dice.randint(1, most) for _ in range(jobs)]
