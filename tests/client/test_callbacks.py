"""Callbacks over real sockets: C01 to C09 of the fault matrix, and what a stranger can do to the receiver (nothing)."""

from __future__ import annotations

import asyncio
import gzip
import json
from random import Random
from typing import Any

import pytest
from attrs import evolve
from callback_kit import MOUNT, SECRET, Shop, open_shop, service, signed
from socket_kit import PATH, Plain, answer, client, collect, job, leaves_nothing, logged, task, until

from kling_async import Kling, Outcome, Succeeded
from kling_async.client.callbacks import CallbackCounts
from kling_async.emulator import Emulator
from kling_async.errors import ConfigError
from kling_async.integrations.aiohttp_web import callback_app
from kling_async.integrations.asgi import callbacks
from kling_async.protocol.callbacks import sign

pytestmark = pytest.mark.anyio

# The vendor's own example; signed at NOW.
VECTOR = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'
NOW = 1781080794
HEADERS = {
    "webhook-id": "9876543210",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
}
OTHER_SECRET = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXI="


def freeze(shop: Shop, wall: float = NOW) -> None:
    """Let the receiver's clock stand at *wall*."""
    engine = shop.kling._engine
    engine.clock = evolve(engine.clock, wall=lambda: wall)


def said(task_id: str, status: str = "succeed", **fields: Any) -> dict[str, Any]:
    """Return a callback of the legacy dialect."""
    return {"task_id": task_id, "task_status": status, "task_info": {"external_task_id": "x"}, **fields}


def counts(shop: Shop) -> CallbackCounts:
    return shop.kling.callbacks.statistics()


# C01, C02, C06: genuine ones.


async def test_the_vendors_callback_makes_the_poller_look_once() -> None:
    """C01: the vendor's own example is answered with 200, and the task is asked for exactly once."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)
        handle = await shop.kling.images.multi_image.create(job())
        books.ended = True

        status = await shop.post(VECTOR, HEADERS)
        done = await handle.wait(30)

    assert status == 200
    assert (done.task_id, books.looks) == ("1234567890", 1)
    assert counts(shop) == CallbackCounts(heeded=1)


async def test_a_repeated_callback_changes_nothing() -> None:
    """C02: five times the same callback is answered with 200 five times and heeded once."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)
        await shop.make()

        statuses = [await shop.post(VECTOR, HEADERS) for _ in range(5)]
        await until(lambda: books.looks)

    assert statuses == [200] * 5
    assert counts(shop) == CallbackCounts(heeded=1, repeated=4)


async def test_one_of_two_signatures_is_enough() -> None:
    """C06: while the secret is being replaced, the second signature counts too."""
    stranger = sign(OTHER_SECRET, "9876543210", NOW, VECTOR)
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)

        status = await shop.post(
            VECTOR, {**HEADERS, "webhook-signature": f"{stranger} {HEADERS['webhook-signature']}"}
        )

    assert status == 200


async def test_the_secret_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`KLING_WEBHOOK_SECRET` counts where no secret is given, and an empty one is none."""
    monkeypatch.setenv("KLING_WEBHOOK_SECRET", SECRET)
    async with service() as books, open_shop(books.server) as shop:
        assert await shop.post(VECTOR) == 401

    monkeypatch.setenv("KLING_WEBHOOK_SECRET", "")
    async with service() as books, open_shop(books.server) as shop:
        assert await shop.post(VECTOR) == 200


# C03: order.


@pytest.mark.parametrize(
    ("faults", "posts"),
    [("reordered-callback", 3), ("dup-callback", 6), ("late-callback=2", 3), ("forged-callback", 6)],
)
async def test_what_is_believed_is_what_the_task_says(faults: str, posts: int) -> None:
    """C03: out of order, doubled, late or forged, callbacks never turn a status back nor bring a picture of their own."""
    settings: dict[str, Any] = {
        "speed": 200,
        "task_seconds": 40.0,
        "paint": "stamp",
        "webhook_secret": SECRET,
    }
    async with Emulator(faults=faults, **settings) as emulator:
        async with open_shop(emulator, webhook_secret=SECRET, min_poll_interval=0.05) as shop:
            handle = await shop.kling.images.multi_image.create(job())
            seen = [step.status.value async for step in handle.events()]
            done = await handle.wait(30)
            await until(lambda: len(emulator.callbacks) >= posts)

    ranks = ["submitted", "processing", "succeed"]
    assert seen == sorted(seen, key=ranks.index)
    assert seen[-1] == "succeed"
    assert all(image.url.startswith("http://127.0.0.1") for image in done.images)
    answers = {record.kind: record.answer for record in emulator.callbacks}
    assert answers == {kind: 401 if kind == "forged" else 200 for kind in answers}


# C04: forgeries.


def forgeries() -> dict[str, dict[str, str]]:
    def by(secret: str = SECRET, message_id: str = "m-1", at: int = NOW) -> dict[str, str]:
        return signed(VECTOR, message_id, secret=secret, at=at)

    return {
        "nothing": {},
        "wrong secret": by(OTHER_SECRET),
        "old": by(at=NOW - 301),
        "future": by(at=NOW + 301),
        "no id": {**by(), "webhook-id": ""},
        "another id": {**by(), "webhook-id": "m-2"},
        "no comma": {**by(), "webhook-signature": "v1"},
        "two commas": {**by(), "webhook-signature": "v1,,"},
        "bad base64": {**by(), "webhook-signature": "v1,%%%"},
        "nan": {**by(), "webhook-timestamp": "nan"},
        "no ASCII": {**by(), "webhook-signature": "v1,é"},
        "huge": {**by(), "webhook-timestamp": "9" * 2000},
        "another version": {**by(), "webhook-signature": by()["webhook-signature"].replace("v1", "v2")},
    }


@pytest.mark.parametrize("name", forgeries())
async def test_a_forged_callback_is_refused(name: str) -> None:
    """C04: whatever is wrong with the headers, the answer is 401, nothing is asked, and it is counted."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)
        await shop.make()

        status = await shop.post(VECTOR, forgeries()[name])

        assert status == 401
        assert counts(shop) == CallbackCounts(refused=1)
    assert books.looks == 0


async def test_no_bytes_in_a_header_are_an_error_of_ours() -> None:
    """C04: 300 requests with random bytes in their headers are refused by us or by the HTTP server, and the next one passes."""
    dice = Random(6)
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)
        with logged() as log:
            answers = {await shop.say(scrambled(shop.path, dice)) for _ in range(300)}
            last = await shop.post(VECTOR, HEADERS)

    assert answers <= {400, 401}
    assert 401 in answers
    assert last == 200
    assert log.errors == []


def scrambled(path: str, dice: Random) -> bytes:
    """Return a callback with some bytes of its headers replaced, line ends apart."""
    lines = []
    for name, value in HEADERS.items():
        text = bytearray(value.encode())
        for _ in range(dice.randint(1, 6)):
            text[dice.randrange(len(text))] = dice.choice([*range(0x20, 0x7F), *range(0x80, 0x100)])
        lines.append(f"{name}: ".encode() + bytes(text) + b"\r\n")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(VECTOR)}\r\n".encode()
    return head + b"".join(lines) + b"\r\n" + VECTOR


async def test_a_refusal_is_told_once_and_shows_no_secret() -> None:
    """A thousand forgeries are one warning, which says what was wrong; the rest is for who debugs."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        with logged() as log:
            for _ in range(20):
                await shop.post(VECTOR, HEADERS)

    warnings = [line for line in log.lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "old; check the clock" in warnings[0]
    assert "dGVzdHNl" not in "".join(log.lines)


# C05: without a secret.


async def test_a_stranger_who_knows_a_task_can_make_us_look_and_nothing_more() -> None:
    """C05: without a secret a claim of success makes us ask the task; the address in it is never asked."""
    async with Plain(lambda _: answer(task())) as attacker, service() as books:
        async with open_shop(books.server) as shop:
            handle = await shop.kling.images.multi_image.create(job())
            claim = said(
                books.task_id, task_result={"images": [{"index": 0, "url": f"{attacker.url}/x.png"}]}
            )

            status = await shop.post(claim)
            await until(lambda: books.looks)
            now = await handle.refresh()

    assert status == 200
    assert now.status.value == "processing"
    assert attacker.asked == []


async def test_tasks_of_others_are_never_asked_for() -> None:
    """C05: callbacks about tasks that nobody waits for cause no request at all."""
    async with service() as books, open_shop(books.server) as shop:
        await shop.make()
        asked = len(books.server.asked)

        statuses = {await shop.post(said(f"stranger-{number}")) for number in range(200)}
        await asyncio.sleep(0.05)

    assert statuses == {200}
    assert len(books.server.asked) == asked
    assert counts(shop) == CallbackCounts(unneeded=200)


async def test_without_a_secret_only_the_private_path_is_heeded() -> None:
    """The mounted path itself, and any other below it, is not found; the private one is in every create."""
    async with service() as books, open_shop(books.server) as shop:
        await shop.make()
        await shop.make(callback_url="https://own.example/hook")
        root = f"http://127.0.0.1:{shop.port}{MOUNT}"
        body = said(books.task_id)

        answers = [
            await shop.post(body, to=to) for to in (root, f"{root}/", f"{root}/guess", f"{shop.address}x")
        ]
        below = await shop.post(body, to=f"{root}/deeper{shop.address.removeprefix(root)}")

    assert answers == [404] * 4
    assert below == 200
    assert [asked.json["callback_url"] for asked in books.server.of("POST")] == [
        shop.address, "https://own.example/hook"
    ]  # fmt: skip


async def test_with_a_secret_any_path_below_the_mount_is_heeded() -> None:
    """A signature says enough: also the address typed into the vendor's console works."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        freeze(shop)

        status = await shop.post(VECTOR, HEADERS, to=f"http://127.0.0.1:{shop.port}{MOUNT}")

    assert status == 200


async def test_a_flood_about_one_task_is_no_flood_of_requests() -> None:
    """Six hundred false claims about a running task cause a handful of requests."""
    async with service() as books, open_shop(books.server, min_poll_interval=0.5) as shop:
        await shop.make()
        body = said(books.task_id)
        began = asyncio.get_running_loop().time()

        for _ in range(6):
            await asyncio.gather(*(shop.post(body) for _ in range(100)))
        seconds = asyncio.get_running_loop().time() - began

    assert books.looks <= 4 + seconds / 0.4


# C07: large, slow and many.


@pytest.mark.parametrize("kind", ["length", "chunked", "gzip", "huge length", "no length"])
async def test_a_body_that_is_too_large_is_not_read(kind: str) -> None:
    """C07: over 64 KiB, told or not told, packed or plain: 413 at once."""
    big, head = b"x" * 5_000_000, "POST {} HTTP/1.1\r\nHost: x\r\n"
    packed = gzip.compress(big)
    async with service() as books, open_shop(books.server) as shop:
        first = head.format(shop.path).encode()
        raw = {
            "length": first + b"Content-Length: 5000000\r\n\r\n",
            "huge length": first + b"Content-Length: 99999999999999\r\n\r\n",
            "chunked": first + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + big[:0x8000] + b"\r\n" + b"8001\r\n" + big[:0x8001],
            "gzip": first + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed,
            "no length": first + b"Transfer-Encoding: chunked\r\n\r\n" + b"20000\r\n" + big[:0x11000],
        }  # fmt: skip

        status = await shop.say(raw[kind])

    assert status == 413
    assert counts(shop) == CallbackCounts(refused=1)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
async def test_a_packed_body_is_not_even_begun(coding: str) -> None:
    """C07: what a packed body holds may be of any size, so none is read, however small it arrives."""
    async with service() as books, open_shop(books.server) as shop:
        intake = shop.kling.callbacks.intake("POST", shop.path, [(b"content-encoding", coding.encode())])

        assert intake.over
        assert intake.finish() == 413


async def test_a_slow_body_is_dropped() -> None:
    """C07: a body of which a byte comes now and then is given up after its time, and the connection with it."""
    async with leaves_nothing(), service() as books, open_shop(books.server, patience=0.2) as shop:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        writer.write(f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode())
        trickle = asyncio.create_task(_trickle(writer))

        # Less than the ten seconds for which aiohttp goes on reading what nobody wants.
        async with asyncio.timeout(8):
            try:
                answered = await reader.read()
            except ConnectionError:
                # What it still sends meets a closed socket, which may overtake the answer.
                answered = b"HTTP/1.1 408"
        trickle.cancel()
        await asyncio.wait([trickle])
        writer.close()

    assert answered.startswith(b"HTTP/1.1 408")
    assert counts(shop) == CallbackCounts(refused=1)


async def _trickle(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("end", [b"", b"zz\r\n", b"-1\r\n\r\n"])
async def test_a_body_that_breaks_off_is_nothing(end: bytes) -> None:
    """A sender that goes away, or writes no chunks where it promised them, is counted and leaves nothing behind."""
    async with leaves_nothing(), service() as books, open_shop(books.server) as shop:
        _, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        writer.write(
            f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode()
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(end)
        writer.close()

        await until(lambda: counts(shop).refused)
        after = await shop.post(said("1"))

    assert after == 200
    assert shop.kling.callbacks._receiver._held == 0


async def test_all_of_many_at_once_are_answered() -> None:
    """C07: 1,000 callbacks at the same time are all answered, and what bodies may hold together is bounded."""
    async with service() as books, open_shop(books.server) as shop:
        bodies = [
            said(f"task-{number}", padding="x" * (60_000 if number % 10 == 0 else 10))
            for number in range(1000)
        ]

        answers = await asyncio.gather(*(shop.post(body) for body in bodies))

    assert set(answers) <= {200, 503}
    assert answers.count(200) >= 900
    assert shop.kling.callbacks._receiver._held == 0


async def test_bodies_that_do_not_fit_together_are_refused() -> None:
    """Four megabytes of unfinished bodies are all that is ever held; the next is told to come again."""
    async with service() as books, open_shop(books.server) as shop:
        head = f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n".encode()
        writers = []
        for _ in range(64):
            _, writer = await asyncio.open_connection("127.0.0.1", shop.port)
            writer.write(head + b"x" * 64_999)
            writers.append(writer)
        await until(lambda: shop.kling.callbacks._receiver._held >= 64 * 64_000)

        refused = await shop.post(said("1", padding="x" * 60_000))
        for writer in writers:
            writer.close()
        await until(lambda: shop.kling.callbacks._receiver._held == 0)
        taken = await shop.post(said("1", padding="x" * 60_000))

    assert (refused, taken) == (503, 200)


# C08: lost ones.


async def test_without_any_callback_the_batch_ends_all_the_same() -> None:
    """C08: where every callback is lost, polling finds every end."""
    async with Emulator(faults="lost-callback", speed=100, task_seconds=20.0, paint="stamp") as emulator:
        async with open_shop(emulator, min_poll_interval=0.05) as shop:
            outcomes: list[Outcome] = []
            await collect(shop.kling.batch([job(key=f"k-{number}") for number in range(12)]), outcomes)

    assert emulator.callbacks == []
    assert sum(isinstance(outcome, Succeeded) for outcome in outcomes) == 12


async def test_with_callbacks_a_batch_needs_one_look_a_task() -> None:
    """Every end is told of, so hardly anything else is asked; a batch's creates name the address too."""
    settings: dict[str, Any] = {"speed": 50, "task_seconds": 50.0, "paint": "stamp", "webhook_secret": SECRET}
    async with Emulator(**settings) as emulator:
        async with open_shop(emulator, webhook_secret=SECRET, min_poll_interval=20.0) as shop:
            outcomes: list[Outcome] = []
            await collect(shop.kling.batch([job(key=f"k-{number}") for number in range(18)]), outcomes)
            routes = [record.route for record in emulator.requests]

    assert sum(isinstance(outcome, Succeeded) for outcome in outcomes) == 18
    assert routes.count("get") + routes.count("list") <= 18 + 4
    assert counts(shop).heeded >= 14


async def test_a_callback_may_come_before_the_create_is_answered() -> None:
    """A hint about a task that nobody knows yet is remembered until its create has been answered."""
    posts: list[int] = []

    async with service() as books, open_shop(books.server) as shop:
        books.ended = True
        posts.append(await shop.post(said(books.task_id)))
        handle = await shop.kling.images.multi_image.create(job())
        done = await handle.wait(30)

    assert posts == [200]
    assert done.status.value == "succeed"
    assert counts(shop) == CallbackCounts(unneeded=1)


async def test_a_task_that_is_known_by_its_external_id_only_is_found_by_it() -> None:
    """The external id of a callback is as good as the task's own."""
    async with service() as books, open_shop(books.server) as shop:
        handle = await shop.kling.images.multi_image.create(job(external_task_id="mine-1"))
        books.ended = True

        await shop.post({"external_id": books.task_id, "status": "succeeded"})
        done = await handle.wait(30)

    assert done.task_id == books.task_id


# C09: the other dialect.


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_new_dialect_is_understood(wrapped: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """C09: bare or wrapped, `id` and `status` are as good as `task_id` and `task_status`."""
    async with service() as books, open_shop(books.server) as shop:
        handle = await shop.kling.images.multi_image.create(job())
        books.ended = True
        inner = {"id": books.task_id, "status": "succeeded", "outputs": [], "external_id": "x"}

        status = await shop.post({"code": 0, "data": inner} if wrapped else inner)
        done = await handle.wait(30)

    assert (status, done.task_id) == (200, books.task_id)


async def test_that_a_task_still_runs_is_no_news() -> None:
    """`submitted` and `processing` are taken and cost no request; the vendor's test callback says `submitted`."""
    async with service() as books, open_shop(books.server) as shop:
        await shop.make()

        statuses = [await shop.post(said(books.task_id, word)) for word in ("submitted", "processing")]

    assert statuses == [200, 200]
    assert books.looks == 0
    assert counts(shop) == CallbackCounts(unneeded=2)


# What else may come.


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE"])
async def test_only_posts_are_callbacks(method: str) -> None:
    """Anything else is told what is allowed."""
    async with service() as books, open_shop(books.server) as shop:
        async with shop.session.request(method, shop.address) as reply:
            assert (reply.status, reply.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", json.dumps({"no": "task"}).encode()])
async def test_a_body_without_a_task_is_a_bad_request(body: bytes) -> None:
    """Also one that is genuine."""
    async with service() as books, open_shop(books.server, webhook_secret=SECRET) as shop:
        assert await shop.post(body, signed(body)) == 400


async def test_a_closed_client_heeds_nothing() -> None:
    """A callback that arrives while the application goes down is answered with 503."""
    async with service() as books, open_shop(books.server) as shop:
        await shop.kling.aclose()

        assert await shop.post(said("1")) == 503


async def test_there_must_be_something_to_know_callbacks_by() -> None:
    """A client with neither a secret nor an address of its own is refused by both apps."""
    async with service() as books, client(books.server) as kling:
        for make in (callbacks, callback_app):
            with pytest.raises(ConfigError, match="callback_url= or webhook_secret="):
                make(kling)
        assert kling.callbacks.address is None


def test_neither_secret_nor_address_shows() -> None:
    """The repr of client and receiver tells neither the secret nor the private path."""
    kling = Kling(api_key="some-api-key", callback_url="https://shop.example/hook", webhook_secret=SECRET)
    address = kling.callbacks.address or ""

    shown = repr(kling) + repr(kling.callbacks) + repr(kling._engine.poller)

    assert address.rpartition("/")[2] not in shown
    assert "dGVzdHNl" not in shown


async def test_a_view_shares_the_receiver() -> None:
    """`with_options()` has the same address and counts."""
    async with service() as books, open_shop(books.server) as shop:
        view = shop.kling.with_options(max_retries=0)

        assert view.callbacks is shop.kling.callbacks
        made = await view.images.multi_image.create(job())

    (asked,) = books.server.of("POST")
    assert made.task_id == books.task_id
    assert asked.json["callback_url"] == shop.address
    assert asked.path == PATH
