"""The fault server's ways of going wrong, each seen through bare sockets."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fault_server import Fault, FaultServer, Remote, Toxic, ToxicProxy
from fault_server import catalogue as go
from fault_server.raw import RawClient, RawReply, job

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: FaultServer) -> AsyncIterator[RawClient]:
    async with RawClient(server.url, server.service.gate.api_key, patience=0.4) as client:
        yield client


async def try_create(client: RawClient) -> RawReply:
    return await client.create(job("job-1"))


@pytest.mark.parametrize("action", ["rst", "fin", "hang"])
@pytest.mark.parametrize(("phase", "accepted"), [("head", 0), ("read", 0), ("accepted", 1), ("status", 1)])
async def test_cuts_in_each_phase(
    server: FaultServer, client: RawClient, phase: Any, action: str, accepted: int
) -> None:
    """A cut looks as ordered, and only from phase `accepted` on there is a task."""
    server.break_with(go.cut(action, phase))

    reply = await try_create(client)

    assert reply.end == {"rst": "rst", "fin": "fin", "hang": "silence"}[action]
    assert bool(reply.raw) == (phase == "status")
    assert server.books.accepted.get("job-1", 0) == accepted
    assert server.books.log[0].faults == [f"{phase}:{action}"]


@pytest.mark.parametrize("action", ["rst", "fin", "hang"])
async def test_cuts_on_connect(server: FaultServer, action: Any) -> None:
    """A connection can be cut before anything was read; no request is in the books then."""
    server.break_with(go.cut(action, "connect", "*"))

    async with RawClient(server.url, None, patience=0.3) as client:
        reply = await client.receive()

    assert reply.end == {"rst": "rst", "fin": "fin", "hang": "silence"}[action]
    assert server.books.requests.total() == 0


@pytest.mark.parametrize("phase", ["idle", "head"])
async def test_a_kept_connection_can_be_stale(server: FaultServer, client: RawClient, phase: Any) -> None:
    """A connection that has carried a request can be closed before, or just when, the next one comes."""
    server.break_with(go.stale() if phase == "head" else go.cut("fin", "idle", "*"))

    first = await client.get("nobody")
    second = await client.get("nobody")

    assert (first.end, second.raw, second.end) == ("length", b"", "fin")


async def test_skip_times_match_and_order(server: FaultServer, client: RawClient) -> None:
    """Faults hit whom they match, after those they skip, one after the other."""
    server.break_with(
        go.refuse(1303, match="b-", times=2),
        go.refuse(1302, skip=1, times=1),
        go.refuse(5000, match="c-", times=None, accepted=True),
    )

    names = ("a-1", "b-1", "b-2", "b-3", "c-1", "c-1")
    codes = [(await client.create(job(name))).json()["code"] for name in names]

    assert codes == [0, 1303, 1303, 1302, 5000, 5000]
    assert server.books.accepted == {"a-1": 1, "c-1": 1}


async def test_probability_is_seeded(server: FaultServer, client: RawClient) -> None:
    """A fault with a probability strikes about that often."""
    server.break_with(go.html(502, "get", probability=0.3, times=None))

    statuses = [(await client.get("nobody")).status for _ in range(100)]

    assert 15 < statuses.count(502) < 45


@pytest.mark.parametrize("accepted", [True, False])
async def test_pages_of_gateways(server: FaultServer, client: RawClient, *, accepted: bool) -> None:
    """An HTML error page tells nothing about whether the create had its effect."""
    server.break_with(go.html(504, accepted=accepted))

    reply = await try_create(client)

    assert reply.status == 504
    assert "Content-Type: text/html" in reply.head
    assert server.books.accepted == ({"job-1": 1} if accepted else {})


async def test_refusals_with_any_status_and_headers(server: FaultServer, client: RawClient) -> None:
    """A service code may come with its own HTTP status or another, and with Retry-After."""
    server.break_with(go.refuse(1303, headers=(("Retry-After", "soon"),)), go.refuse(1102, status=200))

    first, second = [await try_create(client) for _ in range(2)]

    assert (first.status, first.json()["code"]) == (429, 1303)
    assert "Retry-After: soon" in first.head
    assert (second.status, second.json()["code"]) == (200, 1102)


async def test_edits_of_true_answers(server: FaultServer, client: RawClient) -> None:
    """Fields of a true answer can be removed, nulled, mistyped; JSON can come as text/plain."""
    server.change(unique=False)
    server.break_with(
        go.edit({"data": "!drop"}),
        go.edit({"code": "0", "data.task_id": 866, "extra.deep": float("nan")}),
        go.plain_text(),
    )

    replies = [await try_create(client) for _ in range(3)]

    assert "data" not in replies[0].json()
    assert (replies[1].json()["code"], replies[1].json()["data"]["task_id"]) == ("0", 866)
    assert b"NaN" in replies[1].body
    assert "text/plain" in replies[2].head
    assert len(server.books.charges) == 3


async def test_a_bomb_is_small_on_the_wire(server: FaultServer, client: RawClient) -> None:
    """Three megabytes come as three kilobytes of sound gzip."""
    server.break_with(go.bomb(3_000_000), go.bad_gzip())
    client.patience = 5

    reply = await try_create(client)
    bad = await try_create(client)

    assert len(reply.body) < 5_000
    assert len(zlib.decompress(reply.body, 31)) > 3_000_000
    assert not bad.body.startswith(b"\x1f\x8b")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_to_a_canary(server: FaultServer, client: RawClient, status: int) -> None:
    """A redirect names another server, whose books would show who followed."""
    async with FaultServer() as canary:
        server.break_with(go.redirect(status, canary.url + "/trap"))

        reply = await try_create(client)

        assert reply.status == status
        assert f"Location: {canary.url}/trap" in reply.head
        assert canary.books.requests.total() == 0


async def test_odd_heads(server: FaultServer, client: RawClient) -> None:
    """Headers can be too big or contradict each other; a status line can be no HTTP."""
    server.break_with(go.big_header(), go.double_length(), go.garbage())

    big = await client.create(job("a"))
    double = await client.create(job("b"))
    async with RawClient(server.url, server.service.gate.api_key) as other:
        garbage = await other.create(job("c"))

    assert len(big.head) > 20_000
    assert double.head.count("Content-Length") == 2
    assert (garbage.status, garbage.end) == (0, "fin")


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_truncated_bodies(server: FaultServer, client: RawClient, framing: Any) -> None:
    """Half of a body comes in each framing, then the end."""
    server.break_with(go.truncate(framing))

    reply = await try_create(client)

    assert (reply.status, reply.end) == (200, "fin")
    assert 0 < len(reply.body) < 200
    assert server.books.accepted == {"job-1": 1}


@pytest.mark.parametrize("then", ["rst", "hang"])
async def test_a_truncation_can_end_in_a_reset_or_in_silence(
    server: FaultServer, client: RawClient, then: str
) -> None:
    """What follows half of a body is to be chosen."""
    server.break_with(go.truncate(then=then))

    reply = await try_create(client)

    assert reply.end == {"rst": "rst", "hang": "silence"}[then]


async def test_lies_about_the_length(server: FaultServer, client: RawClient) -> None:
    """A Content-Length can be too long, and then the answer never ends."""
    server.break_with(go.lie(10))

    assert (await try_create(client)).end == "silence"


@pytest.mark.parametrize(
    "fault", [go.drip(0.05, size=20), go.throttle(2000), go.delay(0.1)], ids=lambda f: f.action
)
async def test_dawdling(server: FaultServer, client: RawClient, fault: Fault) -> None:
    """A slow answer is whole, but takes its time."""
    client.patience = 5
    server.break_with(fault)
    begin = time.monotonic()

    reply = await try_create(client)

    assert reply.json()["code"] == 0
    assert 0.05 < time.monotonic() - begin < 3


async def test_deaf_for_a_while(server: FaultServer) -> None:
    """A server that does not listen refuses; later it is back at the same port with its tasks."""
    url, key = server.url, server.service.gate.api_key
    async with RawClient(url, key) as client:
        await try_create(client)
        await server.deafen()
        end = (await client.receive()).end
    with pytest.raises(ConnectionRefusedError):
        async with RawClient(url, key):
            pass
    await server.listen()
    async with RawClient(url, key) as client:
        reply = await client.get("job-1")

    assert end == "rst"
    assert reply.json()["code"] == 0
    assert server.url == url


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    """An action that its phase cannot have is an error at once."""
    with pytest.raises(ValueError, match="phase 'connect'"):
        Fault(phase="connect", action="drip")
    with pytest.raises(ValueError, match="expected one of connect"):
        Fault(phase="lunch", action="rst")  # type: ignore[arg-type]  # what a careless remote control may send


@pytest.mark.parametrize(
    ("toxic", "end", "slow"),
    [
        (Toxic(kind="latency", seconds=0.1, jitter=0.02), "length", True),
        (Toxic(kind="bandwidth", size=4000, stream="upstream"), "length", True),
        (Toxic(kind="slicer", size=40, seconds=0.02), "length", True),
        (Toxic(kind="slow_close", seconds=0.1), "length", False),
        (Toxic(kind="limit_data", size=40), "fin", False),
        (Toxic(kind="timeout"), "silence", True),
        (Toxic(kind="timeout", seconds=0.1), "fin", True),
        (Toxic(kind="reset_peer", seconds=0.0), "rst", False),
        (Toxic(kind="down"), "rst", False),
    ],
    ids=lambda value: value.kind if isinstance(value, Toxic) else None,
)
async def test_the_eight_toxics(server: FaultServer, toxic: Toxic, end: str, *, slow: bool) -> None:
    """Each toxic does to a connection what Toxiproxy's would."""
    begin = time.monotonic()
    async with (
        ToxicProxy((server.host, server.port), [toxic]) as proxy,
        RawClient(proxy.url, server.service.gate.api_key, patience=1) as client,
    ):
        reply = await try_create(client)

    assert reply.end == end
    assert (time.monotonic() - begin > 0.05) == slow


async def test_a_server_in_another_process() -> None:
    """A server process is scripted and read through its control port, and ends with its owner."""
    remote = await asyncio.to_thread(Remote.spawn, slots=3, life={"polls": 0})
    with remote:
        remote.break_with(go.html(502, accepted=True))
        remote.change(unique=False)
        async with RawClient(remote.url, remote.api_key) as client:
            first = await try_create(client)
            second = await try_create(client)
        books = await asyncio.to_thread(remote.books)

    assert (first.status, second.status) == (502, 200)
    assert books["paid_twice"] == {"job-1": 2}
    assert [entry["faults"] for entry in books["log"]] == [["accepted:reply"], []]
    assert "sk-fault" not in repr(remote)
