"""Clients that share an account's slots through a store, judged by the service's books."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from fault_kit import QUICK, job
from fault_server import Fault, FaultServer, Life
from fault_server.checks import assert_paid_once, assert_within, no_leaks
from redis_kit import Server, server

from kling_async import Kling, MultiImage
from kling_async.errors import ConfigError, LeaseLost, SlotStoreError, TransportError
from kling_async.protocol.auth import Sealed
from kling_async.protocol.bodies import Body
from kling_async.protocol.claims import Claim, Opening, Report, Ruling, Terms
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Event, LaneMoved
from kling_async.protocol.requests import create_request
from kling_async.slots import MemorySlots, RedisSlots, SlotStore, SqliteSlots

pytestmark = pytest.mark.anyio

# Short, so that nobody waits long for what the dead hold.
TERMS = Terms(settle=0.3, patience=3.0, orphan=4.0)
_NAMES = count()

Stores = Callable[..., SlotStore]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stores(request: pytest.FixtureRequest, redis_server: Server, tmp_path: Path) -> Stores:
    """Makes a store for another process each time; all of them share one state."""
    memory, prefix = MemorySlots(5), f"test{next(_NAMES)}"

    def make(limit: int | None = 5) -> SlotStore:
        if request.param == "memory":
            return memory
        if request.param == "sqlite":
            return SqliteSlots(tmp_path / "slots.db", limit, terms=TERMS)
        return RedisSlots(redis_server.url, limit, prefix=prefix, terms=TERMS)

    return make


@pytest.fixture
async def service() -> AsyncIterator[FaultServer]:
    """A service that accepts more than its five slots and doubled ids, and writes both down."""
    life = Life(seconds=0.15)
    async with FaultServer.with_settings(slots=5, enforce=False, unique=False, life=life) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may kill."""
    with server(durable=True) as running:
        yield running


@asynccontextmanager
async def clients(service: FaultServer, *stores: SlotStore, **options: Any) -> AsyncIterator[list[Kling]]:
    """Open a client for each of *stores*, which stand for processes; nothing of them is left in the end."""
    gate = service.service.gate
    common: dict[str, Any] = {
        "base_url": service.url,
        "api_key": gate.api_key,
        "timeout": QUICK,
        "max_retries": 3,
    }
    async with no_leaks(service), AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Kling(**(common | {"min_poll_interval": 0.01, "slots": store} | options))
            )
            for store in stores
        ]


async def run_many(kling: Kling, name: str, weights: list[int]) -> None:
    """Run a job of each weight, all at once."""
    async with anyio.create_task_group() as group:
        for number, n in enumerate(weights):
            one = job(f"{name}-{number}", n=n)
            group.start_soon(partial(kling.images.multi_image.run, one, wait_timeout=60))


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nothing in this process announces what the books say
            await asyncio.sleep(0.01)


async def look(store: SlotStore, lane: str, **news: Any) -> Ruling:
    """Take part in *lane* as a process of its own."""
    return await store.exchange(lane, Report(owner="onlooker", nonce="nonce", **news))


def lane_of(kling: Kling) -> str:
    """Return the name under which the lane of *kling* is shared."""
    sharing = kling._engine.links[0].lanes["kling-v2-1"].sharing
    assert sharing is not None
    return sharing.lane


async def test_three_clients_never_pass_the_limit_together(service: FaultServer, stores: Stores) -> None:
    """Jobs of mixed weight from three clients: each is accepted once, and together they hold at most five slots."""
    weights = [1 + number % 5 for number in range(12)]

    async with clients(service, stores(), stores(), stores()) as all_of_them:
        async with anyio.create_task_group() as group:
            for number, kling in enumerate(all_of_them):
                group.start_soon(run_many, kling, f"client{number}", weights)
        lane = lane_of(all_of_them[0])

    assert_paid_once(service.books, 36)
    assert_within(service.books, slots=5, posts=36)
    assert service.books.peak == 5
    rest = stores()
    assert (await look(rest, lane)).held == 0
    await rest.aclose()


async def test_the_newest_word_on_the_limit_counts_for_all(service: FaultServer, stores: Stores) -> None:
    """A process that comes with another limit changes it for those that run already."""
    async with clients(service, stores()) as (kling,):
        await run_many(kling, "before", [1])
        stranger = stores()
        await look(stranger, lane_of(kling), limit=2)
        lane = kling._engine.links[0].lanes["kling-v2-1"].lane
        service.books.peak = 0
        await run_many(kling, "after", [1] * 8)
        await stranger.aclose()

    assert lane.limit == 2
    assert service.books.peak <= 2


async def test_a_process_without_a_limit_takes_that_of_the_others(
    service: FaultServer, redis_server: Server
) -> None:
    """Only one has to know how many slots the account has."""
    prefix = f"test{next(_NAMES)}"
    knows, asks = (RedisSlots(redis_server.url, limit, prefix=prefix, terms=TERMS) for limit in (3, None))

    async with clients(service, knows, asks) as (first, second):
        await run_many(first, "first", [1])
        await run_many(second, "second", [1] * 9)

    assert service.books.peak == 3


async def test_a_refusal_slows_all_down(service: FaultServer, stores: Stores) -> None:
    """When the service has fewer slots than believed, the refusal of one client keeps the others from trying."""
    service.change(slots=2, enforce=True)

    async with clients(service, stores(), stores()) as (first, second), anyio.create_task_group() as group:
        group.start_soon(run_many, first, "first", [1] * 8)
        group.start_soon(run_many, second, "second", [1] * 8)

    assert_paid_once(service.books, 16)
    assert service.books.codes[1303] <= 10


async def test_nothing_is_sent_while_the_store_is_away(service: FaultServer, own_server: Server) -> None:
    """Without its store a client sends nothing and polls on; when the store is back it goes on by itself."""
    store = RedisSlots(own_server.url, limit=5, terms=TERMS)
    async with clients(service, store) as (kling,):
        handle = await kling.images.multi_image.create(job("before"))
        own_server.kill()
        async with anyio.create_task_group() as group:
            group.start_soon(run_many, kling, "after", [1] * 5)
            await handle
            gets = service.books.gets
            await asyncio.sleep(0.5)
            assert service.books.posts == 1
            assert gets >= 1
            own_server.start()

    assert_paid_once(service.books, 6)


async def test_who_waits_for_long_is_told_that_the_store_is_away(
    service: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that stays away is an error in the end, and nothing was sent."""
    monkeypatch.setattr("kling_async.client.sharing._PATIENCE", 0.2)
    nowhere = RedisSlots("redis://127.0.0.1:9/0", limit=5)

    async with clients(service, nowhere) as (kling,):
        with pytest.raises(SlotStoreError, match="does not answer"):
            _ = await kling.images.multi_image.create(job("never"))

    assert service.books.posts == 0


async def test_a_store_that_forgets_everything_is_told_everything(
    service: FaultServer, redis_server: Server
) -> None:
    """FLUSHALL in the middle: whoever holds slots says so before anybody is granted new ones."""
    service.change(life=Life(seconds=0.6))
    stores = [RedisSlots(redis_server.url, 5, prefix=f"flush{next(_NAMES)}", terms=TERMS)] * 2

    async with clients(service, *stores) as (first, second), anyio.create_task_group() as group:
        group.start_soon(run_many, first, "first", [1, 2] * 4)
        group.start_soon(run_many, second, "second", [1, 2] * 4)
        for wanted in (2, 6):
            await until(partial(_charged, service, wanted))
            redis_server.ask("FLUSHALL")

    assert_paid_once(service.books, 16)
    assert_within(service.books, slots=5)


def _charged(service: FaultServer, wanted: int) -> bool:
    return len(service.books.charges) >= wanted


async def test_a_store_that_was_stopped_goes_on(service: FaultServer, own_server: Server) -> None:
    """A server that is stopped for a while, as by a slow disk, delays the run and changes nothing else."""
    store = RedisSlots(own_server.url, limit=5, terms=TERMS)

    async with clients(service, store) as (kling,), anyio.create_task_group() as group:
        group.start_soon(run_many, kling, "job", [1, 2] * 5)
        await until(lambda: service.books.charges)
        own_server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)
        own_server.send_signal(signal.SIGCONT)

    assert_paid_once(service.books, 10)
    assert_within(service.books, slots=5)


async def test_a_job_that_another_process_takes_over_is_not_sent(
    service: FaultServer, stores: Stores
) -> None:
    """Who waits for slots and loses the job to another process is told so and sends nothing."""
    async with clients(service, stores()) as (kling,):
        await run_many(kling, "first", [1])
        other = stores()
        await look(other, lane_of(kling), holds=(Claim("holds-all", "other.1", 5),))
        async with anyio.create_task_group() as group:

            async def lose() -> None:
                with pytest.raises(LeaseLost, match="another process has taken over wanted"):
                    _ = await kling.images.multi_image.create(job("wanted"))

            group.start_soon(lose)
            await until(lambda: _waiting(kling))
            await look(other, lane_of(kling), asks=(Claim("wanted", "other.2", 1),))
        await other.aclose()

    assert service.books.posts == 1


async def test_slots_that_another_process_has_are_not_counted_as_held(
    service: FaultServer, stores: Stores
) -> None:
    """Statistics and events know a job that waits at the store from one that has its slots."""
    moves: list[LaneMoved] = []

    def watch(event: Event) -> None:
        if isinstance(event, LaneMoved):
            moves.append(event)

    other = stores()
    async with clients(service, stores(), on_event=watch) as (kling,):
        await run_many(kling, "first", [1])
        await look(other, lane_of(kling), holds=(Claim("holds-all", "other.1", 5),))
        async with kling.batch([job("second", n=2)]) as batch:
            await until(lambda: _waiting(kling))
            waits = batch.statistics()
            await look(other, lane_of(kling), ends=(("holds-all", "other.1"),))
            await anext(batch)
            used = batch.statistics()
        await other.aclose()

    assert waits.slots_held == 0
    assert waits.slot_utilisation is not None
    assert waits.slot_utilisation < 0.05
    assert (waits.lanes[0].held, waits.lanes[0].waiting) == (0, 1)
    assert used.slot_utilisation is not None
    assert 0 < used.slot_utilisation <= 0.4
    assert {(0, 1), (2, 0)} <= {(move.held, move.waiting) for move in moves}


async def test_a_window_is_told_of_again(service: FaultServer, redis_server: Server) -> None:
    """A store that forgets while a create is under way learns its window too, and fences who takes the job over."""
    service.break_with(Fault(route="create", phase="read", action="delay", seconds=1.5))
    patient = Timeouts(connect=1, request=5, settle=0.2)
    prefix = f"again{next(_NAMES)}"
    stores = [RedisSlots(redis_server.url, 5, prefix=prefix, terms=TERMS) for _ in range(2)]

    async with clients(service, *stores, timeout=patient) as (first, second):
        async with anyio.create_task_group() as group:

            async def create_first() -> None:
                _ = await first.images.multi_image.create(job("same"))

            group.start_soon(create_first)
            await until(lambda: service.books.posts == 1)
            redis_server.ask("FLUSHALL")
            again = await second.images.multi_image.create(job("same"))

    assert service.books.posts == 1
    assert again.task_id == service.books.charges[0].task_id


def _waiting(kling: Kling) -> bool:
    sharing = kling._engine.links[0].lanes["kling-v2-1"].sharing
    return sharing is not None and bool(sharing._waiting) and not sharing._news


async def test_a_create_that_may_be_under_way_is_never_sent_again(
    service: FaultServer, stores: Stores
) -> None:
    """A second execution of a job waits until the first one's create can no longer arrive, and adopts its task."""
    service.break_with(Fault(route="create", phase="read", action="delay", seconds=0.8))
    patient = Timeouts(connect=1, request=5, settle=0.2)

    async with clients(service, stores(), stores(), timeout=patient) as (first, second):
        async with anyio.create_task_group() as group:

            async def create_first() -> None:
                _ = await first.images.multi_image.create(job("same"))

            group.start_soon(create_first)
            await until(lambda: service.books.posts == 1)
            again = await second.images.multi_image.create(job("same"))

    assert_paid_once(service.books, ["same"])
    assert service.books.posts == 1
    assert again.task_id == service.books.charges[0].task_id


async def test_the_window_of_a_dead_process_is_waited_out(service: FaultServer, stores: Stores) -> None:
    """Also when nobody is left who could close the window: look-ups only begin when it is over."""
    store = stores()
    hasty = Timeouts(connect=5, request=10, settle=0.1)
    async with clients(service, store, timeout=hasty) as (kling,):
        await run_many(kling, "first", [1])
        dead = stores()
        await look(dead, lane_of(kling), asks=(Claim("job", "dead.1", 1),))
        began = time.monotonic()
        opened = await look(dead, lane_of(kling), opens=(Opening("job", "dead.1", 1.5),))
        assert opened.opened == {"dead.1": 0.0}
        _ = await kling.images.multi_image.create(job("job"))
        await dead.aclose()

    assert_paid_once(service.books, ["first-0", "job"])
    assert service.books.times("create")[-1] - began >= 1.5


async def test_a_stopped_process_cannot_send_after_its_window(service: FaultServer) -> None:
    """A body whose time is over does not leave any more, so that the service never has it whole."""
    body = Body.from_json({"model_name": "kling-v2-1", "prompt": "late"})
    async with clients(service, MemorySlots(5)) as (kling,):
        session = kling._engine.links[0].session
        with pytest.raises(
            TransportError, match="the time in which this create could be sent is over"
        ) as caught:
            await session.send(
                create_request(MultiImage.path, body), Sealed("token"), QUICK, not_after=time.monotonic() - 1
            )

    assert not caught.value.sent
    assert service.books.charges == []


async def test_what_a_cancelled_caller_waited_for_is_given_back(service: FaultServer, stores: Stores) -> None:
    """Leaving the queue of a shared lane leaves nothing behind."""
    async with clients(service, stores()) as (kling,):
        handle = await kling.images.multi_image.create(job("holds-all", n=5))
        with anyio.move_on_after(0.1):
            _ = await kling.images.multi_image.create(job("left", n=5))
        await handle
        await run_many(kling, "after", [5])
        lane = lane_of(kling)
        await until(lambda: not kling._engine.links[0].lanes["kling-v2-1"].sharing._shares)  # type: ignore[union-attr]  # a lane that is shared
    rest = stores()
    ruling = await look(rest, lane)
    await rest.aclose()

    assert (ruling.held, ruling.waiting) == (0, 0)
    assert_paid_once(service.books, ["holds-all", "after-0"])


async def test_a_resumed_run_takes_its_slots_back(
    service: FaultServer, stores: Stores, tmp_path: Path
) -> None:
    """Tasks that an earlier run left behind are counted again, in the name of the run that found them."""
    service.change(life=Life(seconds=2.0))
    jobs = [job(None, key=f"k{number}", prompt=f"dress {number}") for number in range(3)]
    async with clients(service, stores()) as (kling,):
        async with kling.batch(jobs, journal=tmp_path / "run.db"):
            await until(lambda: len(service.books.charges) == 3)
            lane = lane_of(kling)
        held_before = await _held(stores(), lane)

    async with clients(service, stores()) as (kling,):
        outcomes = [outcome async for outcome in kling.batch(jobs, journal=tmp_path / "run.db")]

    assert held_before == 3
    assert len(outcomes) == 3
    assert_paid_once(service.books, 3)
    assert await _held(stores(), lane) == 0


async def _held(store: SlotStore, lane: str) -> int:
    ruling = await look(store, lane)
    await store.aclose()
    return ruling.held


async def test_many_jobs_wait_on_few_connections(service: FaultServer, redis_server: Server) -> None:
    """A thousand creates at once share one exchange at a time; no pool runs out of connections."""
    service.change(slots=None, life=Life(polls=1))
    store = RedisSlots(redis_server.url, limit=1_000, prefix=f"test{next(_NAMES)}", terms=TERMS)

    async with clients(service, store, timeout=Timeouts(request=60)) as (kling,):
        await run_many(kling, "job", [1] * 1_000)

    assert_paid_once(service.books, 1_000)


async def test_a_node_of_a_cluster_serves_a_lane(service: FaultServer) -> None:
    """All keys of a lane have one hash slot, so that one script may touch them on a node of a cluster."""
    with server(cluster=True) as node:
        async with clients(service, RedisSlots(node.url, 5, terms=TERMS)) as (kling,):
            await run_many(kling, "job", [1, 2])
        slot_of = {
            node.ask("CLUSTER", "KEYSLOT", f"kling:{{account:model}}:{name}") for name in ("meta", "queue")
        }

    assert_paid_once(service.books, 2)
    assert len(slot_of) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: RedisSlots("http://nowhere.example", 5),
        lambda: RedisSlots("redis://localhost", 0),
        lambda: SqliteSlots(Path("slots.db"), True),  # the wrong kind is what is tried
        lambda: Kling(api_key="key", slots=2.5),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_share_slots_is_refused(make: Callable[[], object]) -> None:
    """Addresses, limits and stores that are none are said to be so, before anything is opened."""
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_a_store_shows_no_password() -> None:
    """The address of a server may hold a password, which shows nowhere."""
    store = RedisSlots("redis://:hunter2@127.0.0.1:9/0", limit=5)

    with pytest.raises(SlotStoreError) as caught:
        asyncio.run(store.exchange("lane", Report(owner="a", nonce="n")))

    assert "hunter2" not in f"{store!r} {caught.value!r} {caught.value.__cause__!r}"
