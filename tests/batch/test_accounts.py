"""Several accounts as one pool, over real sockets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from socket_kit import client, creates, job, until

from kling_async import Account, Failed, Succeeded
from kling_async.emulator import EmulatedAccount, Emulator, Fault
from kling_async.errors import InvalidJob, OutOfUnits, SubmissionUnknown
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Recovered

pytestmark = pytest.mark.anyio


def emulated(name: str, slots: int = 4, **fields: Any) -> EmulatedAccount:
    return EmulatedAccount(
        name=name, access_key=f"access-{name}", secret_key=f"secret-{name}-" * 4, api_key=f"key-{name}", slots=slots, **fields
    )  # fmt: skip


def known(*accounts: EmulatedAccount) -> list[Account]:
    return [Account(each.name, api_key=each.api_key, slots=each.slots) for each in accounts]


def shares(emulator: Emulator) -> Counter[str]:
    return Counter(task.account for task in emulator.tasks)


def most_at_once(emulator: Emulator) -> int:
    """Return the most tasks that ran at one moment, whatever their account."""
    moments = [(task.created_at, 1) for task in emulator.tasks] + [
        (task.updated_at, -1) for task in emulator.tasks
    ]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize("sizes", [(4, 4), (2, 10)], ids=["even", "uneven"])
async def test_throughput_adds_up(sizes: tuple[int, int]) -> None:
    """Two accounts run as many tasks at once as their slots are together, each used by its size and none passed."""
    accounts = [emulated(name, slots) for name, slots in zip("ab", sizes, strict=True)]
    total, rounds, seconds = sum(sizes), 5, 0.4

    async with Emulator(accounts=accounts, speed=1, task_seconds=seconds, paint="stamp") as emulator:
        async with client(emulator, accounts=known(*accounts)) as kling:
            async with kling.batch(job(key=f"{number}") for number in range(total * rounds)) as batch:
                outcomes = [outcome async for outcome in batch]
            statistics = batch.statistics()

    assert {type(outcome) for outcome in outcomes} == {Succeeded}
    # Counted and not timed: a busy machine takes longer and runs no fewer at once.
    assert max(sizes) < most_at_once(emulator) <= total
    for account, slots in zip(accounts, sizes, strict=True):
        assert shares(emulator)[account.name] == pytest.approx(slots * rounds, abs=2 + slots // 4)
    told = {one.account: (one.succeeded, one.failed, int(one.units)) for one in statistics.accounts}
    assert told == {name: (count, 0, 16 * count) for name, count in shares(emulator).items()}
    assert statistics.refusals == 0


async def test_rows_of_an_account_that_stops_move_on() -> None:
    """Out of units after five creates, an account is left out; its rows run on the other, what it runs is collected."""
    poor, rich = emulated("poor", units=5 * 16), emulated("rich")

    async with Emulator(accounts=[poor, rich], speed=1, task_seconds=0.1, paint="stamp") as emulator:
        async with client(emulator, accounts=known(poor, rich)) as kling:
            async with kling.batch(job(key=f"{number}") for number in range(40)) as batch:
                outcomes = [outcome async for outcome in batch]
            statistics = batch.statistics()

    assert Counter(map(type, outcomes)) == {Succeeded: 40}
    assert shares(emulator) == {"poor": 5, "rich": 35}
    refused = [record for record in emulator.requests if record.code == 1102]
    assert 1 <= len(refused) <= 4, "no more than were under way when the first was refused"
    assert {one.account: one.succeeded for one in statistics.accounts} == {"poor": 5, "rich": 35}


async def test_when_all_accounts_stopped_the_error_ends_the_batch() -> None:
    """With every account out of units the batch collects what runs and ends with that error."""
    accounts = [emulated("a", units=2 * 16), emulated("b", units=3 * 16)]

    async with Emulator(accounts=accounts, speed=1, task_seconds=0.1, paint="stamp") as emulator:
        async with client(emulator, accounts=known(*accounts)) as kling:
            outcomes = []
            batch = kling.batch(job(key=f"{number}") for number in range(40))
            with pytest.raises(OutOfUnits):
                while True:
                    outcomes.append(await anext(batch))

    assert Counter(map(type, outcomes)) == {Succeeded: 5}
    assert shares(emulator) == {"a": 2, "b": 3}


async def test_an_ambiguous_create_stays_with_its_account() -> None:
    """A create whose reply is lost is asked for on the account it was sent on, also when that one stops meanwhile."""
    events: list[object] = []
    lost = Fault(action="reset-after-accept", match_external_id="lost-*", times=1)
    a, b = emulated("a", units=16), emulated("b")

    async with Emulator(accounts=[a, b], speed=1, task_seconds=0.3, paint="stamp", faults=[lost]) as emulator:
        async with client(emulator, accounts=known(a, b), on_event=events.append) as kling:
            jobs = [job(key="lost", external_task_id="lost-1")]
            jobs += [job(key=f"{number}") for number in range(12)]
            outcomes = {outcome.key: outcome async for outcome in kling.batch(jobs)}

    assert Counter(map(type, outcomes.values())) == {Succeeded: 13}
    assert emulator.accepted("lost-1") == 1
    assert [(event.account, event.key) for event in events if isinstance(event, Recovered)] == [("a", "lost")]
    assert [task.account for task in emulator.tasks if task.external_task_id == "lost-1"] == ["a"]
    assert shares(emulator) == {"a": 1, "b": 12}


async def test_a_create_of_unknown_fate_is_never_sent_elsewhere() -> None:
    """If nothing can be found out, the job has failed as unknown; the other account never sees it and its slots stay held."""
    faults = [
        Fault(action="reset-after-accept", match_external_id="lost-*", times=1),
        Fault(action="refuse", code=1200, route="get"),
    ]
    a, b = emulated("a"), emulated("b")
    timeouts = Timeouts(connect=2, request=2, settle=0.02)

    async with Emulator(accounts=[a, b], speed=1, task_seconds=0.1, paint="stamp", faults=faults) as emulator:
        async with client(emulator, accounts=known(a, b), timeout=timeouts, max_retries=1) as kling:
            (outcome,) = [one async for one in kling.batch([job(key="lost", external_task_id="lost-1")])]
            held = {link.name: sum(t.lane.held for t in link.lanes.values()) for link in kling._engine.links}

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, SubmissionUnknown)
    assert creates(emulator) == 1
    assert held == {"a": 1, "b": 0}


async def test_a_job_goes_where_it_fits() -> None:
    """A heavy job passes an account that can never hold it; one that fits nowhere is refused with the largest number."""
    small, large = emulated("small", 2), emulated("large", 5)

    async with Emulator(accounts=[small, large], speed="instant", paint="stamp") as emulator:
        async with client(emulator, accounts=known(small, large)) as kling:
            for _ in range(3):
                await kling.images.multi_image.run(job(n=5))
            with pytest.raises(InvalidJob, match=r"at most 5.*found 6"):
                _ = await kling.images.multi_image.create(job(n=6))

    assert shares(emulator) == {"large": 3}


async def test_a_job_that_fits_only_a_stopped_account_waits_for_it() -> None:
    """When the one account that could hold a job has stopped, that account's trouble is told, not that the job is wrong."""
    small, large = emulated("small", 2), emulated("large", 5, standing=1102)

    async with Emulator(accounts=[small, large], speed="instant", paint="stamp") as emulator:
        async with client(emulator, accounts=known(small, large)) as kling:
            for _ in range(2):
                with pytest.raises(OutOfUnits):
                    _ = await kling.images.multi_image.create(job(n=5))
            await kling.images.multi_image.run(job(n=1))

    assert shares(emulator) == {"small": 1}


async def test_an_idle_account_takes_over_waiting_rows() -> None:
    """When other programs take an account's slots in mid-run, the rows that wait there run on the other once it has room."""
    foreign = [0]
    slow, quick = emulated("slow", 8, foreign_load=lambda _now: foreign[0]), emulated("quick", 8)

    async with Emulator(accounts=[slow, quick], speed=1, task_seconds=0.2, paint="stamp") as emulator:
        async with client(emulator, accounts=known(slow, quick)) as kling:
            async with kling.batch(job(key=f"{number}") for number in range(120)) as batch:
                await until(lambda: len(emulator.tasks) >= 16)
                foreign[0] = 7
                outcomes = [outcome async for outcome in batch]

    assert Counter(map(type, outcomes)) == {Succeeded: 120}
    assert len({task.external_task_id for task in emulator.tasks}) == 120
    assert shares(emulator)["quick"] >= 80, "rows left at the other account would be made there, one by one"
