"""The rules of shared slots are stated twice, in Python and in Lua: the two must never differ."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_kit import Server

from kling_async.protocol.claims import Claim, Grant, Opening, Refusal, Report, Ruling, Terms
from kling_async.protocol.leases import Book
from kling_async.slots import RedisSlots, SqliteSlots

# The test is the clock; the server's own is used in all other tests.
_CLOCK = "local function clock() return tonumber(redis.call('HGET', KEYS[1], 'test-clock') or '0') end\n"
_TERMS = Terms(settle=2.0, patience=8.0, orphan=16.0, fresh=1.0)
# The scale session tries more.
_TRIES = int(os.environ.get("KLING_TEST_RULES", "30"))
_LANES = count()

_job = st.sampled_from(["j1", "j2", "j3", "j4"])
_token = st.sampled_from(["t1", "t2", "t3"])
_pair = st.tuples(_job, _token)
_claim = st.builds(Claim, _job, _token, st.integers(1, 9), st.booleans())


def _few(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


_report = st.builds(
    Report,
    owner=st.sampled_from(["a", "b", "c"]),
    nonce=st.sampled_from(["n1", "n2", "n3"]),
    generation=st.sampled_from(["", "n1", "n2"]),
    turn=st.sampled_from([0, 1, 50]),
    limit=st.sampled_from([None, None, None, 0, 6, 12]),
    guess=st.sampled_from([None, None, 4]),
    asks=_few(_claim),
    holds=_few(_claim),
    ends=_few(_pair),
    refusals=_few(st.builds(Refusal, _job, _token, st.sampled_from([0.0, 0.0, 3.5, 100.0]))),
    opens=st.lists(
        st.builds(Opening, _job, _token, st.sampled_from([0.5, 20.0])),
        max_size=2,
        unique_by=lambda o: o.token,
    ).map(tuple),
    closes=_few(_pair),
)
# Mostly small steps; long ones bury processes and raise ceilings, and a clock may be set back.
_step = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 2.5, 9.0, 40.0, 700.0, -3.0])


@settings(max_examples=_TRIES)
@given(st.lists(st.tuples(_step, _report), min_size=1, max_size=20))
def test_all_stores_rule_alike(redis_server: Server, steps: list[tuple[float, Report]]) -> None:
    """Whatever processes report and whenever, memory, SQLite and Redis give the same rulings."""
    with TemporaryDirectory() as folder:
        expected, in_file, on_server = asyncio.run(_rule(redis_server, Path(folder) / "slots.db", steps))

    assert in_file == expected
    assert on_server == expected


_move = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.sampled_from([1, 1, 1, 2, 3, 9]), max_size=6),  # asked for
    st.integers(0, 3),  # how many end
    st.sampled_from(["", "", "", "open", "open", "run", "refuse"]),
    st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 3.0, 9.0]),
)


@settings(max_examples=_TRIES)
@given(st.lists(_move, min_size=20, max_size=60))
def test_all_stores_rule_alike_in_a_run(redis_server: Server, moves: list[Any]) -> None:
    """Processes that do what processes do, on a lane that is full, get the same rulings from all stores."""
    with TemporaryDirectory() as folder:
        expected, in_file, on_server = asyncio.run(
            _rule(redis_server, Path(folder) / "slots.db", _Run(moves))
        )

    assert in_file == expected
    assert on_server == expected


def test_all_stores_lose_patience_alike(redis_server: Server, tmp_path: Path) -> None:
    """Who does not fit is passed for as many slots in every store, and then served first."""

    def steps() -> Iterator[tuple[float, Report]]:
        yield 0.0, Report(owner="a", nonce="n1", limit=20)
        first = (
            Claim("wide", "w", 18),
            Claim("small0", "s0", 1),
            Claim("heavy", "h", 3),
            Claim("small1", "s1", 1),
        )
        yield 5.0, Report(owner="a", nonce="n1", asks=first)
        for number in range(20):
            asks = (Claim(f"small{number + 2}", f"s{number + 2}", 1),)
            yield 0.0, Report(owner="a", nonce="n1", asks=asks, ends=((f"small{number}", f"s{number}"),))

    expected, in_file, on_server = asyncio.run(_rule(redis_server, tmp_path / "slots.db", steps()))

    assert in_file == expected
    assert on_server == expected
    passed = [grant.job for ruling in expected for grant in ruling.granted]
    assert 8 < len(passed) < 16


@define
class _Run:
    """Reports that depend on what was granted."""

    moves: list[Any]
    granted: dict[str, list[Grant]] = field(factory=lambda: {"a": [], "b": [], "c": []})
    numbers: Iterator[int] = field(factory=count)

    def __iter__(self) -> Iterator[tuple[float, Report]]:
        # So wide that the patience of who is passed comes to its end within a run.
        yield 0.0, Report(owner="a", nonce="n1", limit=20)
        yield 5.0, Report(owner="a", nonce="n1")
        for owner, weights, ends, event, passed in self.moves:
            mine = self.granted[owner]
            ended, mine[:ends] = mine[:ends], []
            asks = tuple(
                Claim(f"j{number}", f"{owner}{number}", slots)
                for number, slots in zip(self.numbers, weights, strict=False)
            )
            one = mine[-1:]
            yield (
                passed,
                Report(
                    owner=owner,
                    nonce="n1",
                    asks=asks,
                    ends=tuple((grant.job, grant.token) for grant in ended),
                    opens=tuple(Opening(each.job, each.token, 5.0) for each in one if event == "open"),
                    holds=tuple(Claim(each.job, each.token, 1) for each in one if event == "run"),
                    refusals=tuple(Refusal(each.job, each.token, 0.0) for each in one if event == "refuse"),
                ),
            )

    def hear(self, owner: str, ruling: Ruling) -> None:
        self.granted[owner] += ruling.granted


async def _rule(
    server: Server, file: Path, steps: Iterable[tuple[float, Report]]
) -> tuple[list[Ruling], list[Ruling], list[Ruling]]:
    book, now, lane = Book(terms=_TERMS), 1000.0, f"lane{next(_LANES)}"
    in_file = SqliteSlots(file, terms=_TERMS, now=lambda: now)
    on_server = RedisSlots(server.url, prefix="same", terms=_TERMS, clock=_CLOCK)
    rulings: tuple[list[Ruling], list[Ruling], list[Ruling]] = ([], [], [])
    for passed, report in steps:
        now += passed
        rulings[0].append(book.exchange(report, now))
        if isinstance(steps, _Run):
            steps.hear(report.owner, rulings[0][-1])
        rulings[1].append(await in_file.exchange(lane, report))
        server.ask("HSET", f"same:{{{lane}}}:meta", "test-clock", str(now))
        rulings[2].append(await on_server.exchange(lane, report))
    await in_file.aclose()
    await on_server.aclose()
    return rulings
