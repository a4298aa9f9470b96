"""Slots held by creates whose fate nobody knows, and those who wait behind them."""

from __future__ import annotations

import asyncio

import pytest

from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.client.tracked import Tracked
from kling_async.client.turnstile import Pass, Turnstile
from kling_async.errors import ServerError, TransportError
from kling_async.protocol.slots import Lane, Limit
from kling_async.protocol.tasks import Task, TaskStatus

pytestmark = pytest.mark.anyio

TROUBLE = ServerError("the service answered HTTP 502", 0, 502)


def turnstile(slots: int = 9) -> Turnstile:
    """Return a turnstile whose clock goes a hundred times as fast."""
    return Turnstile("main", "kling-v2-1", Lane(Limit.known(slots)), Clock.hurried(100), Emitter())


async def joined(gate: Turnstile, *passes: Pass) -> list[Pass]:
    """Let *passes* queue, and return those who are let through at once."""
    for each in passes:
        gate.join(each)
    await asyncio.sleep(0.01)
    return [each for each in passes if each.granted is not None and each.granted.done()]


async def in_doubt(gate: Turnstile) -> tuple[list[Pass], Pass]:
    """Have all creates that an untried lane lets through end in doubt, with one more who waits behind them."""
    passes = [Pass(1, patience=50.0) for _ in range(4)]
    through = await joined(gate, *passes)
    for each in through:
        await gate.wait(each)
        gate.doubted(each, TROUBLE)
    assert len(through) == 3
    return through, passes[3]


async def test_who_waits_behind_creates_in_doubt_is_sent_away_when_his_patience_is_over() -> None:
    """Nobody probes while all that may be sent is in doubt, so the queue ends by the clock, with what the look-ups said."""
    gate = turnstile()
    doubtful, behind = await in_doubt(gate)

    async with asyncio.timeout(30):
        with pytest.raises(
            TransportError, match=r"for 50 s \(3 creates in doubt, the last one: .*502"
        ) as caught:
            await gate.wait(behind)

    assert not caught.value.sent
    assert gate.held == len(doubtful)


async def test_who_comes_later_has_his_own_patience() -> None:
    """The silence of before he came does not count against a caller."""
    gate = turnstile()
    await in_doubt(gate)
    gate.troubled_since = -1000.0
    late = Pass(1, patience=30.0)
    began = asyncio.get_running_loop().time()

    await joined(gate, late)
    with pytest.raises(TransportError):
        await gate.wait(late)

    assert asyncio.get_running_loop().time() - began >= 0.29


async def test_a_task_that_is_found_lets_the_next_one_through() -> None:
    """An answer at last: the create counts as accepted, and the lane goes on while its task runs."""
    gate = turnstile()
    doubtful, behind = await in_doubt(gate)

    gate.found(doubtful[0])
    gate.found(doubtful[0])
    async with asyncio.timeout(30):
        await gate.wait(behind)

    assert gate.held == 4


async def test_what_the_poller_sees_of_a_task_in_doubt_lets_the_next_one_through() -> None:
    """The row that is looked after tells the lane, with the first status that anybody hears of its task."""
    gate = turnstile()
    doubtful, behind = await in_doubt(gate)
    row = Tracked(
        path="/", ask_for="ka-1", external_task_id="ka-1", since=0.0, ticket=doubtful[0], turnstile=gate
    )

    row.update(Task(task_id="1", external_task_id="ka-1", status=TaskStatus("processing")))
    async with asyncio.timeout(30):
        await gate.wait(behind)

    assert gate.held == 4


async def test_a_create_that_made_no_task_gives_its_slot_back_and_breaks_the_silence() -> None:
    """What is known to be absent holds nothing, and whoever waits begins to count anew."""
    gate = turnstile()
    doubtful, behind = await in_doubt(gate)
    gate.troubled_since = -1000.0

    gate.release(doubtful[0])
    async with asyncio.timeout(30):
        await gate.wait(behind)

    assert gate.held == 3
    assert gate.troubled_since is not None
    assert gate.troubled_since > 0


async def test_found_says_nothing_of_a_create_that_was_never_in_doubt() -> None:
    """A task whose create was answered is accepted once."""
    gate = turnstile()
    ticket = Pass(1)
    await joined(gate, ticket)
    await gate.wait(ticket)
    gate.accepted(ticket)

    gate.found(ticket)

    assert gate.held == 1


async def test_closing_leaves_no_timer() -> None:
    """A turnstile that is closed sends everybody away and never looks again."""
    gate = turnstile()
    _, behind = await in_doubt(gate)

    gate.close(TransportError("closed"))

    with pytest.raises(TransportError, match="closed"):
        await gate.wait(behind)
    assert gate._silence is None
