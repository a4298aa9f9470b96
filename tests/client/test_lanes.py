"""Slots, refusals, several accounts, and whoever watches: seen from outside, judged by the emulator's books."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from socket_kit import Log, client, creates, job, leaves_nothing, logged, until

from kling_async import Account, Kling, Task
from kling_async.emulator import EmulatedAccount, Emulator, Fault
from kling_async.errors import InArrears, InvalidJob, KlingError, OutOfUnits
from kling_async.protocol.events import (
    Finished,
    LaneChanged,
    LaneStopped,
    Recovered,
    Refused,
    Retried,
    Submitted,
    Waiting,
)

pytestmark = pytest.mark.anyio


async def run_many(kling: Kling, weights: list[int]) -> list[Task]:
    """Run a job of each weight, all at once."""
    ended: list[Task] = []

    async def one(n: int) -> None:
        ended.append(await kling.images.multi_image.run(job(n=n), wait_timeout=20))

    async with anyio.create_task_group() as group:
        for n in weights:
            group.start_soon(one, n)
    return ended


async def test_slots_are_never_passed() -> None:
    """Forty jobs of mixed weight at once: each is accepted once, and the account never refuses one."""
    weights = [1 + number % 4 for number in range(40)]

    async with (
        Emulator(slots=9, speed=1, task_seconds=0.05, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        ended = await run_many(kling, weights)

    assert len(ended) == len(emulator.tasks) == creates(emulator) == 40
    assert emulator.peak_slots <= 9
    assert sum(len(task.images) for task in ended) == sum(weights)


async def test_no_free_slot_is_waited_out_and_costs_nothing() -> None:
    """Where the account has fewer slots than believed, refused creates wait, and every job is accepted exactly once."""
    log = Log()

    async with (
        Emulator(slots=2, speed=1, task_seconds=0.2, paint="stamp") as emulator,
        client(emulator, slots=6, on_event=log.events.append) as kling,
    ):
        ended = await run_many(kling, [1] * 8)
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane

    assert len(ended) == len(emulator.tasks) == 8
    assert {refused.code for refused in log.of(Refused)} == {1303}
    assert 1 <= len(log.of(Refused)) == creates(emulator) - 8 <= 12
    assert log.of(Retried) == []
    assert lane.limit <= 3
    assert log.of(LaneChanged)[0].after < 6


async def test_slots_are_read_from_the_packs() -> None:
    """With slots="auto" the first create asks for the packs, once, and the lane has the slots in their name."""
    async with (
        Emulator(slots=7, speed="instant", paint="stamp") as emulator,
        client(emulator, slots="auto") as kling,
    ):
        await run_many(kling, [1] * 10)
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane

    assert lane.limit == 7
    assert [record.route for record in emulator.requests].count("costs") == 1
    assert emulator.requests[0].route == "costs"


@pytest.mark.parametrize(
    "trouble", ["html-502@costs", "no-data@costs", "bad-json@costs", "reset@costs", "1102@costs"]
)
async def test_slots_are_learned_where_they_cannot_be_read(trouble: str) -> None:
    """Whatever is wrong with the packs, the lane starts low and no create waits for them."""
    async with (
        Emulator(slots=9, speed="instant", paint="stamp", faults=trouble) as emulator,
        client(emulator, slots="auto") as kling,
    ):
        ended = await run_many(kling, [1] * 10)

    assert len(ended) == creates(emulator) == 10


async def test_a_job_too_big_for_the_account_is_refused_here() -> None:
    """More pictures than the account has slots is an error that says so; nothing is sent."""
    async with Emulator(slots=3, paint="stamp") as emulator, client(emulator, slots=3) as kling:
        with pytest.raises(InvalidJob, match=r"n: expected at most 3.*found 9") as caught:
            _ = await kling.images.multi_image.create(job(n=9))

    assert caught.value.field == "n"
    assert creates(emulator) == 0


# Several accounts.


def emulated(**slots: int) -> list[EmulatedAccount]:
    """Return accounts with so many slots."""
    return [
        EmulatedAccount(
            name=name,
            access_key=f"access-{name}",
            secret_key=f"secret-of-{name}-" * 3,
            api_key=f"key-of-{name}",
            slots=count,
        )
        for name, count in slots.items()
    ]


def known(**slots: int) -> list[Account]:
    """Return the same accounts as a client knows them."""
    return [Account(name, api_key=f"key-of-{name}", slots=count) for name, count in slots.items()]


async def test_all_accounts_work() -> None:
    """Jobs spread over the accounts by their slots, and no account gets more than it can hold."""
    async with (
        Emulator(accounts=emulated(a=2, b=6), speed=1, task_seconds=0.1, paint="stamp") as emulator,
        client(emulator, accounts=known(a=2, b=6)) as kling,
    ):
        await run_many(kling, [1] * 32)

    shares = {name: sum(task.account == name for task in emulator.tasks) for name in ("a", "b")}
    assert creates(emulator) == 32
    assert shares["a"] >= 4
    assert shares["b"] >= 12


async def test_a_stopped_account_is_left_out() -> None:
    """When one account is in arrears its jobs move to the other; it is asked once, and the run ends well."""
    log = Log()
    poor, rich = emulated(a=2, b=2)
    poor = EmulatedAccount(**{**_fields(poor), "standing": 1101})

    async with (
        Emulator(accounts=[poor, rich], speed=1, task_seconds=0.02, paint="stamp") as emulator,
        client(emulator, accounts=known(a=2, b=2), on_event=log.events.append) as kling,
    ):
        ended = await run_many(kling, [1] * 12)

    refused = [record for record in emulator.requests if record.code == 1101]
    assert len(ended) == 12
    assert {task.account for task in emulator.tasks} == {"b"}
    assert 1 <= len(refused) <= 2, "only what was under way already may follow the first refusal"
    assert [(event.account, type(event.error)) for event in log.of(LaneStopped)] == [("a", InArrears)]


def _fields(account: EmulatedAccount) -> dict[str, Any]:
    return {name: getattr(account, name) for name in ("name", "access_key", "secret_key", "api_key", "slots")}


async def test_when_all_accounts_stopped_the_first_trouble_is_told() -> None:
    """With no account left a create raises what the first one said."""
    accounts = [EmulatedAccount(**{**_fields(each), "standing": 1101}) for each in emulated(a=1, b=1)]

    async with (
        Emulator(accounts=accounts, paint="stamp") as emulator,
        client(emulator, accounts=known(a=1, b=1)) as kling,
    ):
        with pytest.raises(InArrears):
            _ = await kling.images.multi_image.create(job())

    assert creates(emulator) == 2


async def test_a_create_refused_after_its_account_stopped_does_not_wait_for_ever() -> None:
    """Under way when the account stops, a create that then finds no free slot is told of the stop."""
    faults = [
        Fault(action="delay", route="create", seconds=0.2, match_external_id="late"),
        Fault(action="refuse", code=1303, match_external_id="late"),
        Fault(action="refuse", code=1102, match_external_id="early"),
    ]
    ends: dict[str, type[BaseException]] = {}

    async with Emulator(paint="stamp", faults=faults) as emulator, client(emulator) as kling:

        async def one(name: str) -> None:
            with pytest.raises(KlingError) as caught:
                _ = await kling.images.multi_image.create(job(external_task_id=name))
            ends[name] = caught.type

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(one, "late")
                group.start_soon(one, "early")

    assert ends == {"early": OutOfUnits, "late": OutOfUnits}
    assert creates(emulator) == 2


# Watchers.


async def test_watchers_are_told_the_whole_story() -> None:
    """A job's way is told in order: waiting, submitted, finished; with its key and both ids."""
    log = Log()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=log.events.append) as kling,
    ):
        task = await kling.images.multi_image.run(job(key="row-1", n=2))

    waiting, submitted, finished = log.of(Waiting, Submitted, Finished)
    assert [type(event) for event in (waiting, submitted, finished)] == [Waiting, Submitted, Finished]
    assert {event.key for event in (waiting, submitted, finished)} == {"row-1"}
    assert {submitted.task_id, finished.task_id} == {task.task_id}
    assert (submitted.slots, finished.status, finished.units) == (2, "succeed", 32)


async def test_a_recovered_create_is_told() -> None:
    """When a create's answer is lost and its task is found, that is told, and it was sent once."""
    log = Log()
    faults = [Fault(action="reset-after-accept", times=1)]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=log.events.append) as kling,
    ):
        handle = await kling.images.multi_image.create(job())

    assert [event.task_id for event in log.of(Recovered)] == [handle.task_id]
    assert (creates(emulator), len(emulator.tasks)) == (1, 1)


def _raise(_: object) -> None:
    raise ZeroDivisionError("the watcher's own mistake")


async def _raise_later(_: object) -> None:
    raise ZeroDivisionError("the watcher's own mistake")


async def _hang(_: object) -> None:
    await anyio.sleep_forever()


async def _sleepy(seen: list[object], event: object) -> None:
    await anyio.sleep(0.001)
    seen.append(event)


@pytest.mark.parametrize(
    "watch", [_raise, _raise_later, partial(_raise_later), lambda event: _raise_later((event,))],
    ids=["sync", "async", "partial", "lambda"],
)  # fmt: skip
async def test_a_watcher_that_raises_disturbs_nobody(watch: Callable[[object], Any]) -> None:
    """An exception in a watcher is logged, again and again though not for every event, and the jobs go on."""
    with logged() as log:
        async with (
            Emulator(speed="instant", paint="stamp") as emulator,
            client(emulator, on_event=watch) as kling,
        ):
            ended = await run_many(kling, [1] * 3)

    assert len(ended) == 3
    assert sum("the watcher's own mistake" in line for line in log.errors) >= 3


async def test_a_watcher_that_hangs_holds_nothing_up() -> None:
    """An async watcher that never returns delays no job."""
    async with leaves_nothing(), Emulator(speed="instant", paint="stamp") as emulator:
        kling = client(emulator, on_event=_hang)
        begin = time.monotonic()
        ended = await run_many(kling, [1] * 3)
        taken = time.monotonic() - begin
        await kling._engine.aclose(grace=0.05)
        await kling.aclose()

    assert len(ended) == 3
    assert taken < 2


async def test_async_watchers_are_told_in_order() -> None:
    """Events reach an async watcher one after another, in the order in which they happened."""
    sync: list[object] = []
    seen: list[object] = []

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=partial(_sleepy, seen)) as kling,
    ):
        kling._engine.emitter.subscribe(sync.append)
        await run_many(kling, [1] * 5)
        await until(lambda: len(seen) == len(sync))

    assert seen == sync
