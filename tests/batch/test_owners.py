"""Whose results a folder has: emulated and real ones never mix, however the emulator is reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from socket_kit import client, creates, job, until

from kling_async import Kling, MultiImage, Outcome, Skipped, Succeeded, errors
from kling_async.batch.upkeep import read_status
from kling_async.emulator import Emulator
from kling_async.protocol.lifecycle import JobState
from kling_async.testing import Answer, ScriptedTransport

pytestmark = pytest.mark.anyio

JOBS = [job(key="one"), job(key="two")]
GATEWAY = "https://gateway.example:8443/kling"


def emulator(**options: Any) -> Emulator:
    return Emulator(speed=1000, paint="stamp", **options)


def real_client(service: FaultServer) -> Kling:
    """A client of a service that is none of our emulators, and on this machine all the same."""
    return Kling(
        base_url=service.url,
        api_key=service.service.gate.api_key,
        slots=9,
        min_poll_interval=0.01,
        trust_env=False,
    )


def scripted_client(script: ScriptedTransport, base_url: str | None = GATEWAY) -> Kling:
    return Kling(session=script, api_key="secret", slots=9, base_url=base_url)


async def run(kling: Kling, jobs: Sequence[MultiImage] = JOBS, **options: Any) -> list[Outcome]:
    async with kling:
        return [outcome async for outcome in kling.batch(jobs, **options)]


def marks(out: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((out / "run.json").read_bytes())
    return {name: kept[name] for name in kept if name in {"emulator", "service"}}


def as_an_earlier_version_left_it(out: Path) -> None:
    kept = json.loads((out / "run.json").read_bytes())
    (out / "run.json").write_text(json.dumps({name: kept[name] for name in kept if name not in marks(out)}))


async def test_emulated_results_are_not_taken_for_real_ones(tmp_path: Path) -> None:
    """A run made on an emulator by its address is refused by the service: nothing counts as done, nothing is sent."""
    async with emulator() as first:
        await run(client(first), out=tmp_path)

    async with FaultServer() as service:
        with pytest.raises(errors.ConfigError, match=r"expected real results in .*found emulated ones"):
            await run(real_client(service), out=tmp_path)

    assert service.books.posts == 0
    assert len((tmp_path / "results.jsonl").read_text("utf-8").splitlines()) == 2


async def test_real_results_are_not_taken_for_emulated_ones(tmp_path: Path) -> None:
    """The other way round, too."""
    async with FaultServer() as service:
        made = await run(real_client(service), out=tmp_path)

    async with emulator() as second:
        with pytest.raises(errors.ConfigError, match=r"expected emulated results in .*found real ones"):
            await run(client(second), out=tmp_path)

    assert all(isinstance(outcome, Succeeded) for outcome in made)
    assert marks(tmp_path) == {"service": service.url}
    assert creates(second) == 0


@pytest.mark.parametrize("slots", [9, "auto"])
async def test_any_emulator_continues_for_one_request(tmp_path: Path, slots: Any) -> None:
    """Another emulator at another port takes up what one has left; it is asked once, and not at all by a new folder."""
    jobs = [job(key=f"k{number}") for number in range(6)]
    async with emulator() as first:
        await run(client(first, slots=slots), jobs[:3], out=tmp_path)
    async with emulator() as second:
        outcomes = await run(client(second, slots=slots), jobs, out=tmp_path)

    asked = [sum(record.route == "costs" for record in each.requests) for each in (first, second)]
    assert asked == ([1, 1] if slots == "auto" else [0, 1])
    assert sum(isinstance(outcome, Skipped) for outcome in outcomes) == creates(second) == 3
    assert marks(tmp_path)["emulator"] != ""


async def test_tasks_that_went_with_an_emulator_begin_again(tmp_path: Path) -> None:
    """What ran on an emulator that was ended is made anew by the next one, and counts once for the budget."""
    async with Emulator(speed="manual", paint="stamp") as first, client(first) as kling:
        async with kling.batch(JOBS, out=tmp_path, budget=32) as batch:
            await until(lambda: batch.statistics().in_flight == 2)
    before = await read_status(tmp_path / "journal.db")

    async with emulator() as second:
        outcomes = await run(client(second), out=tmp_path, budget=32)

    assert before.totals == {JobState.SUBMITTED: 2}
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert creates(second) == 2
    assert (await read_status(tmp_path / "journal.db")).units == 32


async def test_an_emulator_that_forgot_is_another_one(tmp_path: Path) -> None:
    """After `reset()` its tasks are gone as if it had been started anew."""
    async with Emulator(speed="manual", paint="stamp") as first:
        async with client(first) as kling, kling.batch(JOBS, out=tmp_path) as batch:
            await until(lambda: batch.statistics().in_flight == 2)
        await first.reset()
        async with client(first) as kling, kling.batch(JOBS, out=tmp_path) as batch:
            await until(lambda: batch.statistics().in_flight == 2)

    assert len(first.tasks) == 2


async def test_the_same_emulator_keeps_its_tasks(tmp_path: Path) -> None:
    """As long as the emulator lives its tasks are taken up as the service's are."""
    async with Emulator(speed="manual", paint="stamp") as first:
        async with client(first) as kling, kling.batch(JOBS, out=tmp_path) as batch:
            await until(lambda: batch.statistics().in_flight == 2)
        await first.advance(3600)
        outcomes = await run(client(first), out=tmp_path)

    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert creates(first) == 2


async def test_fetching_and_recovery_want_who_made_it(tmp_path: Path) -> None:
    """Neither the service nor another emulator is asked for tasks it cannot know; the journal stays where it is."""
    async with emulator() as first:
        await run(client(first), out=tmp_path)
    (tmp_path / "images" / "one_0.png").unlink()
    journal = (tmp_path / "journal.db").read_bytes()

    async with FaultServer() as service, emulator() as second:
        for kling, told in ((real_client(service), "emulated ones"), (client(second), "another one")):
            async with kling:
                with pytest.raises(errors.ConfigError, match=told):
                    await kling.fetch(out=tmp_path)
                with pytest.raises(errors.ConfigError, match=told):
                    await kling.recover(JOBS, out=tmp_path)

    assert (tmp_path / "journal.db").read_bytes() == journal
    assert not (tmp_path / "images" / "one_0.png").exists()
    assert {record.route for record in second.requests} == {"costs"}


async def test_who_made_it_fetches_and_recovers(tmp_path: Path) -> None:
    """In the right direction both work, and a rebuilt run still knows whose it is."""
    async with emulator() as first:
        await run(client(first), out=tmp_path)
        before = marks(tmp_path)
        (tmp_path / "images" / "one_0.png").unlink()
        async with client(first) as kling:
            fetched = await kling.fetch(out=tmp_path)
            rebuilt = await kling.recover(JOBS, out=tmp_path)

    assert len(fetched.fetched) == 1
    assert rebuilt.found == 2
    assert before == marks(tmp_path) != {}


async def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """One that does not say whose it is continues without a question, and says it from the next create on."""
    async with emulator() as first:
        await run(client(first), JOBS[:1], out=tmp_path)
        whose = marks(tmp_path)
        as_an_earlier_version_left_it(tmp_path)
        nothing_new = await run(client(first), JOBS[:1], out=tmp_path)
        still = marks(tmp_path)
        outcomes = await run(client(first), out=tmp_path)

    assert [type(outcome) for outcome in nothing_new] == [Skipped]
    assert still == {}
    assert {type(outcome) for outcome in outcomes} == {Skipped, Succeeded}
    assert marks(tmp_path) == whose
    assert not any(record.route == "costs" for record in first.requests)


async def test_a_lost_journal_does_not_lose_whose_it_was(tmp_path: Path) -> None:
    """The folder says it, so a run that has lost its journal is refused as well."""
    async with emulator() as first:
        await run(client(first), out=tmp_path)
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)

    async with FaultServer() as service:
        with pytest.raises(errors.ConfigError, match="found emulated ones"):
            await run(real_client(service), out=tmp_path)

    assert service.books.posts == 0


async def test_a_journal_alone_knows_it_too(tmp_path: Path) -> None:
    """A batch without a folder keeps it in its journal."""
    journal = tmp_path / "run.db"
    async with emulator() as first:
        await run(client(first), journal=journal)

    async with FaultServer() as service:
        with pytest.raises(errors.ConfigError, match=r"run\.db.*found emulated ones"):
            await run(real_client(service), journal=journal)

    assert service.books.posts == 0


async def test_the_refused_are_known_by_whoever_refused_them(tmp_path: Path) -> None:
    """Results that are failures only belong to who said so."""
    async with emulator() as first:
        await run(client(first), [job(key="no", prompt="[[refuse]]")], out=tmp_path)

    assert set(marks(tmp_path)) == {"emulator"}


async def test_a_service_at_its_old_address_is_not_asked(tmp_path: Path) -> None:
    """A gateway elsewhere continues without a request, as the service itself does; at a new address it is asked once."""
    scripts = [ScriptedTransport() for _ in range(4)]
    await run(scripted_client(scripts[0]), out=tmp_path)
    same = await run(scripted_client(scripts[1]), out=tmp_path)
    moved = await run(scripted_client(scripts[2], "https://other.example"), out=tmp_path)
    direct = await run(scripted_client(scripts[3], None), out=tmp_path)

    assert [{type(outcome) for outcome in each} for each in (same, moved, direct)] == [{Skipped}] * 3
    assert [[request.route for request in script.requests] for script in scripts[1:]] == [[], ["costs"], []]
    assert marks(tmp_path) == {"service": "https://gateway.example:8443"}


async def test_an_emulator_behind_a_gateway_is_known_by_its_header(tmp_path: Path) -> None:
    """Neither TLS nor another host's name makes an emulator's results real."""
    packs = Answer.json({"code": 0, "data": {}}, X_Kling_Emulator="7f3a")
    await run(scripted_client(ScriptedTransport()), out=tmp_path)

    with pytest.raises(errors.ConfigError, match="found real ones"):
        await run(scripted_client(ScriptedTransport(costs=packs), "https://staging.example"), out=tmp_path)


async def test_who_does_not_answer_gets_nothing(tmp_path: Path) -> None:
    """Without an answer nothing counts as done: the run ends with what is wrong, and goes on when it is mended."""
    async with emulator() as first:
        await run(client(first), out=tmp_path)
        gone = first.url

    with pytest.raises(errors.TransportError):
        await run(Kling(base_url=gone, api_key="any", slots=9, max_retries=0), out=tmp_path)


@pytest.mark.parametrize(
    ("packs", "told"),
    [
        (Answer.refused(1002, status=401), False),
        (Answer(404, b"<html>nothing here</html>"), False),
        (Answer(200, b"<html>an app</html>"), False),
        (Answer.refused(1002, status=401, X_Kling_Emulator="7f3a"), True),
        (Answer(502, b"<html>bad gateway</html>", {"x-kling-emulator": "7f3a"}), True),
    ],
)
async def test_any_reply_tells_who_answers(packs: Answer, told: bool) -> None:  # noqa: FBT001 - a parameter
    """Refusals and pages tell as much as packs do, and nobody is asked twice."""
    script = ScriptedTransport(costs=packs)
    async with Kling(session=script, api_key="secret", slots=9, base_url=GATEWAY, max_retries=0) as kling:
        answers = [await kling.account.is_emulated() for _ in range(2)]

    assert answers == [told, told]
    assert len(script.requests) == 1


async def test_a_gateway_without_its_service_tells_nothing() -> None:
    """A 502 is not the service's word, so nobody is taken for it."""
    script = ScriptedTransport(costs=[Answer(502, b"<html>bad gateway</html>")])
    async with Kling(session=script, api_key="secret", slots=9, base_url=GATEWAY, max_retries=0) as kling:
        with pytest.raises(errors.KlingError):
            await kling.account.is_emulated()
        assert await kling.account.is_emulated() is False


async def test_the_services_own_address_is_not_asked() -> None:
    """Nobody can have a certificate for it but the vendor."""
    script = ScriptedTransport()
    async with Kling(session=script, api_key="secret", region="cn") as kling:
        emulated = await kling.account.is_emulated()

    assert (emulated, script.requests) == (False, [])
