"""What a browser is told of tasks, over ASGI and over sockets from aiohttp.web."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from socket_kit import client, job, leaves_nothing, until
from web_kit import Asgi, Sent, events

from kling_async import Kling
from kling_async.emulator import Emulator
from kling_async.errors import ConfigError, ContentRefusal, SubmissionUnknown, TransportError
from kling_async.integrations.aiohttp_web import progress_app
from kling_async.integrations.asgi import progress
from kling_async.integrations.board import Board, TaskState, live
from kling_async.protocol.events import Dropped, Resumed

pytestmark = pytest.mark.anyio


def state(name: str, status: str = "submitted", **fields: object) -> TaskState:
    """Return the state of a made-up task."""
    return TaskState(external_task_id=name, status=status, ended=status in {"succeed", "failed"}, **fields)  # type: ignore[arg-type]  # as given


def board_of(kling: Kling) -> Board:
    """Return the board of *kling*."""
    return live(kling).board


@asynccontextmanager
async def idle_client() -> AsyncIterator[Kling]:
    """Open a client that has nothing to do; what happens is put on its board by hand."""
    async with Kling(api_key="some-api-key", base_url="http://127.0.0.1:9", trust_env=False) as kling:
        yield kling


async def statuses(stream: AsyncIterator[Sent]) -> list[str]:
    """Return the statuses of a stream until its end."""
    return [sent.data["status"] async for sent in stream if sent.name == "task"]


# What is told.


async def test_a_task_is_followed_to_its_end() -> None:
    """The stream of one task has its statuses in order, ends with `end`, and tells of no other task."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.6, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        app = progress(kling)
        handles = [await kling.images.multi_image.create(job(key="secret@example.com")) for _ in range(3)]
        async with Asgi(app, f"task={handles[0].external_task_id}") as call:
            told = [sent async for sent in call.events() if sent.name != "retry"]

    assert (call.status, call.said["content-type"], call.said["cache-control"]) == (
        200,
        "text/event-stream",
        "no-store",
    )
    assert [sent.name for sent in told] == ["task"] * (len(told) - 1) + ["end"]
    assert [sent.data["status"] for sent in told[:-1]] in (
        ["submitted", "processing", "succeed"],
        # What changes twice within a moment is told once.
        ["submitted", "succeed"],
        ["processing", "succeed"],
    )
    assert told[-2].data == {
        "id": handles[0].external_task_id,
        "task_id": handles[0].task_id,
        "status": "succeed",
        "ended": True,
    }
    assert b"secret" not in call.body
    assert b"http" not in call.body


async def test_tasks_that_run_show_it_though_they_are_read_by_pages() -> None:
    """With several tasks, which are read from the list, each is seen to be processing."""
    async with (
        Emulator(speed=1, task_seconds=1.0, paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        board = board_of(kling)
        seen: set[tuple[str, str]] = set()
        with board.follow(None) as reader:
            handles = [await kling.images.multi_image.create(job()) for _ in range(5)]
            while len([state for state in board.since(0) if state.ended]) < 5:
                await reader.changed()
                seen |= {(state.task_id, state.status) for state in reader.take()}

    assert {(handle.task_id, "processing") for handle in handles} <= seen


async def test_a_wait_for_slots_is_told() -> None:
    """A create that waits for slots is `waiting`, before it has a task id."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=3600.0, slots=1, paint="stamp") as emulator,
        client(emulator, slots=1) as kling,
    ):
        app = progress(kling)
        _ = await kling.images.multi_image.create(job())
        waiting = asyncio.ensure_future(kling.images.multi_image.create(job(external_task_id="order-2")))
        await until(lambda: board_of(kling).find("order-2"))
        async with Asgi(app, "task=order-2") as call:
            stream = call.events()
            told = [await anext(stream), await anext(stream)]
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = await waiting

    assert told[1].data == {"id": "order-2", "task_id": "", "status": "waiting", "ended": False}


async def test_a_create_that_is_refused_ends_its_stream() -> None:
    """A job that gets no task is `dropped`, with the service's reason; the same id may begin again."""
    async with (
        Emulator(speed="instant", paint="stamp", faults="1301:x1") as emulator,
        client(emulator) as kling,
    ):
        app = progress(kling)
        with pytest.raises(ContentRefusal):
            _ = await kling.images.multi_image.create(job(external_task_id="order-3"))
        async with Asgi(app, "task=order-3") as call:
            refused = [sent.data async for sent in call.events() if sent.name == "task"]
        await kling.images.multi_image.run(job(external_task_id="order-3"))
        async with Asgi(app, "task=order-3") as call:
            made = await statuses(call.events())

    assert (refused[-1]["status"], refused[-1]["ended"]) == ("dropped", True)
    assert refused[-1]["reason"]
    assert made == ["succeed"]


async def test_a_create_of_unknown_fate_is_told_as_such() -> None:
    """While nobody can tell whether there is a task it is `unknown`; why a wait was left is nobody's business."""
    board = Board()
    lost = SubmissionUnknown("nobody knows", "ka-1")

    for error in (lost, None, TransportError("cannot connect to 10.0.0.7")):
        board.see(Dropped(account="main", key="", external_task_id="ka-1", error=error))

    assert [(found.status, found.reason, found.ended) for found in board.since(0)] == [("dropped", "", True)]
    assert board.since(0)[0].version == 2


async def test_a_task_that_is_taken_up_again_is_told() -> None:
    """After a restart a task whose handle is waited for is on the board, and is not set back when taken up twice."""
    async with (
        Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator,
        client(emulator) as before,
        client(emulator) as after,
    ):
        made = await before.images.multi_image.create(job())
        board = board_of(after)
        waiting = asyncio.ensure_future(after.images.multi_image.handle(made.task_id).wait())
        await until(lambda: board.find(made.task_id))
        await emulator.advance(4000)
        await waiting
        board.see(Resumed(account="main", key="", external_task_id="ka-9", task_id=made.task_id))

    assert [found.status for found in board.since(0)] == ["succeed"]


async def test_a_task_id_will_do() -> None:
    """A task can be followed by either of its ids, also one that is on nobody's board yet."""
    async with idle_client() as kling:
        board = board_of(kling)
        async with Asgi(progress(kling), "task=77") as call:
            board.post(state("ka-1", task_id="77"))
            board.post(state("ka-2", task_id="78"))
            board.post(state("ka-1", "succeed", task_id="77"))
            told = await statuses(call.events())

    assert told[-1] == "succeed"
    assert b"ka-2" not in call.body


async def test_everything_is_told_only_where_that_was_said() -> None:
    """Without ids a stream is refused; with `all_tasks` it has every task, with the caller's keys."""
    async with idle_client() as kling:
        board_of(kling).post(state("ka-1", key="row 1"))
        async with Asgi(progress(kling)) as refused:
            await refused.ended.wait()
        async with Asgi(progress(kling, all_tasks=True)) as call:
            stream = call.events()
            told = [await anext(stream), await anext(stream)]

    assert refused.status == 400
    assert b"?task=ID" in refused.body
    assert told[1].data["key"] == "row 1"


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [
        ("POST", "task=a", 405),
        ("GET", "", 400),
        ("GET", "task=", 400),
        ("GET", "task=a%0Ab", 400),
        ("GET", "task=" + "a" * 65, 400),
        ("GET", "&".join(f"task=t{number}" for number in range(51)), 400),
        ("GET", "task=\xff", 400),
    ],
)
async def test_what_makes_no_sense_is_refused(method: str, query: str, status: int) -> None:
    """Other methods and ids that are none get an answer at once, and nobody follows anything."""
    async with idle_client() as kling:
        async with Asgi(progress(kling), query, method) as call:
            await call.ended.wait()

        assert board_of(kling).readers == 0
    assert call.status == status
    assert call.said["content-type"] == "application/json"


async def test_only_http_is_answered() -> None:
    """A websocket is closed, and a server that asks for a lifespan hears that all is well."""
    sent: list[MutableMapping[str, Any]] = []
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> MutableMapping[str, Any]:
        return waiting.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async with idle_client() as kling:
        await progress(kling)({"type": "lifespan"}, receive, send)
        await progress(kling)({"type": "websocket"}, receive, send)

    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


async def test_a_closed_client_has_no_progress() -> None:
    """`progress()` of a closed client is a ConfigError; streams of a client that is closed later end."""
    async with idle_client() as kling:
        app = progress(kling, heartbeat=0.05)
        async with Asgi(app, "task=ka-1") as call:
            await kling.aclose()
            await asyncio.wait_for(call.ended.wait(), 10)
        async with Asgi(app, "task=ka-1") as late:
            await late.ended.wait()

    assert (call.status, late.status, late.said["retry-after"]) == (200, 503, "10")
    with pytest.raises(ConfigError, match="closed"):
        progress(kling)


# Coming again.


async def test_a_browser_goes_on_where_it_was() -> None:
    """With `Last-Event-ID` only what came after it is told."""
    async with idle_client() as kling:
        board, app = board_of(kling), progress(kling)
        board.post(state("ka-1"))
        board.post(state("ka-2"))
        async with Asgi(app, "task=ka-1&task=ka-2") as call:
            stream = call.events()
            seen = [await anext(stream) for _ in range(3)]
        board.post(state("ka-1", "processing"))
        async with Asgi(app, "task=ka-1&task=ka-2", headers={"Last-Event-ID": seen[-1].event_id}) as again:
            stream = again.events()
            more = [await anext(stream), await anext(stream)]

    assert [sent.data["id"] for sent in seen[1:]] == ["ka-1", "ka-2"]
    assert (more[1].data["id"], more[1].data["status"]) == ("ka-1", "processing")


@pytest.mark.parametrize("last", ["", "abc", "00000000-1", "ffffffff-999999", "\r\n"])
async def test_a_number_from_elsewhere_means_nothing(last: str) -> None:
    """With a `Last-Event-ID` of another process, or of nobody, everything is told anew."""
    async with idle_client() as kling:
        board_of(kling).post(state("ka-1"))
        async with Asgi(progress(kling), "task=ka-1", headers={"Last-Event-ID": last}) as call:
            stream = call.events()
            told = [await anext(stream), await anext(stream)]

    assert told[1].data["status"] == "submitted"


async def test_a_browser_that_knows_the_end_is_sent_away() -> None:
    """Who asks again for what has ended and was read gets a 204, upon which a browser comes no more."""
    async with idle_client() as kling:
        board_of(kling).post(state("ka-1", "succeed"))
        async with Asgi(progress(kling), "task=ka-1") as call:
            told = [sent async for sent in call.events()]
        async with Asgi(progress(kling), "task=ka-1", headers={"Last-Event-ID": told[1].event_id}) as again:
            await again.ended.wait()

    assert [sent.name for sent in told] == ["retry", "task", "end"]
    assert (again.status, again.body) == (204, b"")


# Slow readers, and those who leave.


async def test_a_slow_reader_loses_detail_and_no_memory() -> None:
    """While a reader takes nothing, thousands of changes are kept as the latest of each task, and those are what it gets."""
    async with idle_client() as kling:
        board = board_of(kling)
        async with Asgi(progress(kling, all_tasks=True)) as call:
            await until(lambda: call.body)
            call.flowing.clear()
            for number in range(5_000):
                board.post(state(f"ka-{number % 10}", f"step-{number}"))
            kept = len(board)
            call.flowing.set()
            await until(lambda: b"step-4999" in call.body)
            told = call.body.count(b"event: task")

    assert kept == 10
    assert told <= 20


async def test_the_board_is_bounded() -> None:
    """Of more tasks than it keeps a board forgets those that changed least recently, under both of their names."""
    board = Board(most=3)

    for number in range(5):
        board.post(state(f"ka-{number}", task_id=str(number)))

    assert [found.external_task_id for found in board.since(0)] == ["ka-2", "ka-3", "ka-4"]
    assert (board.find("1"), len(board._names)) == (None, 3)


async def test_what_has_ended_stays_so() -> None:
    """A late word about an ended task changes nothing, and saying the same again is no change."""
    board = Board()

    board.post(state("ka-1"))
    board.post(state("ka-1"))
    board.post(state("ka-1", "failed"))
    board.post(state("ka-1", "processing"))

    assert [(found.status, found.version) for found in board.since(0)] == [("failed", 2)]


async def test_many_tasks_come_in_pieces() -> None:
    """A reader of everything gets thousands of states some at a time, each once."""
    board = Board()
    for number in range(1_000):
        board.post(state(f"ka-{number}"))
    pieces = []

    with board.follow(None) as reader:
        while piece := reader.take():
            pieces.append([found.external_task_id for found in piece])

    assert max(map(len, pieces)) < 100
    assert list(chain.from_iterable(pieces)) == [f"ka-{number}" for number in range(1_000)]


async def test_silence_is_filled() -> None:
    """Where nothing happens a comment is sent now and then."""
    async with idle_client() as kling, Asgi(progress(kling, heartbeat=0.02), "task=ka-1") as call:
        stream = call.events()
        told = [(await anext(stream)).name for _ in range(4)]

    assert told == ["retry", "comment", "comment", "comment"]


async def test_who_leaves_leaves_nothing() -> None:
    """A browser that goes away, also while it takes nothing, leaves no task and no reader behind."""
    async with idle_client() as kling:
        app = progress(kling)
        board = board_of(kling)
        async with leaves_nothing():
            async with Asgi(app, "task=ka-1") as call:
                assert board.readers == 1
            async with Asgi(app, "task=ka-1") as stuck:
                stuck.flowing.clear()
                board.post(state("ka-1"))
                await stuck.leave()

        assert board.readers == 0
    assert call.ended.is_set()


async def test_a_server_may_say_by_an_error_that_a_reader_has_gone() -> None:
    """An `OSError` from `send` ends the stream without a word."""
    async with leaves_nothing(), idle_client() as kling:

        async def send(_: object) -> None:
            raise ConnectionResetError

        async def receive() -> dict[str, object]:
            await asyncio.sleep(3600)
            return {}

        scope = {"type": "http", "method": "GET", "query_string": b"task=ka-1", "headers": []}
        await asyncio.wait_for(progress(kling)(scope, receive, send), 10)

        assert board_of(kling).readers == 0


async def test_streams_are_counted() -> None:
    """More streams than *most_streams* are refused with 503, and when one has gone there is room again."""
    async with idle_client() as kling:
        app = progress(kling, most_streams=1)
        async with Asgi(app, "task=ka-1"):
            async with Asgi(app, "task=ka-1") as second:
                await second.ended.wait()
        async with Asgi(app, "task=ka-1") as third:
            pass

    assert (second.status, third.status) == (503, 200)


# aiohttp.web.


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve *app* on a socket."""
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_same_from_aiohttp_web() -> None:
    """The sub-app streams the same events, refuses the same, and its readers are gone when they have left."""
    async with leaves_nothing(), idle_client() as kling, aiohttp.ClientSession() as session:
        app = web.Application()
        app.add_subapp("/kling/live/", progress_app(kling))
        board = board_of(kling)
        board.post(state("ka-1"))
        async with served(app) as url:
            async with session.get(f"{url}/kling/live/?task=ka-1") as reply:
                stream = events(reply.content)
                told = [await anext(stream), await anext(stream)]
            await until(lambda: not board.readers)
            async with session.post(f"{url}/kling/live/?task=ka-1") as wrong:
                refused = (wrong.status, wrong.headers["Allow"])
            board.post(state("ka-1", "succeed"))
            known = {"Last-Event-ID": told[1].event_id}
            async with session.get(f"{url}/kling/live/?task=ka-1", headers=known) as again:
                more = await statuses(events(again.content))

    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/event-stream")
    assert told[1].data["status"] == "submitted"
    assert refused == (405, "GET")
    assert more == ["succeed"]


async def test_an_application_that_shuts_down_ends_its_streams() -> None:
    """Open streams do not hold up the end of an aiohttp server."""
    async with leaves_nothing(), idle_client() as kling, aiohttp.ClientSession() as session:
        app = web.Application()
        app.add_subapp("/kling/live/", progress_app(kling))
        async with asyncio.timeout(10), served(app) as url:
            reply = await session.get(f"{url}/kling/live/?task=ka-1")
            stream = events(reply.content)
            _ = await anext(stream)
        rest = [sent.name async for sent in stream]

    assert rest == []
