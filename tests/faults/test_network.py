"""Fault matrix N01 to N05, N15 to N17, N20: what the network does to creates and reads, judged by the server's books."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fault_kit import QUICK, FlakyResolver, Log, client_of, job
from fault_server import Fault, FaultServer, Toxic, ToxicProxy
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within
from fault_server.tls import untrusted

from kling_async import Failed
from kling_async.errors import (
    ConfigError,
    MalformedReply,
    RequestTimeout,
    SubmissionUnknown,
    TaskNotFound,
    TransportError,
)
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Recovered, Retried

pytestmark = pytest.mark.anyio

# What leaves it open whether a create made a task: name, fault, whether it did.
AMBIGUOUS: list[tuple[str, Fault, bool]] = [
    ("N06 reset on connect", go.cut("rst", "connect", "*"), False),
    ("N06 reset after the head", go.cut("rst", "head"), False),
    ("N06 reset after the body", go.cut("rst", "read"), False),
    ("N06 FIN after the body", go.cut("fin", "read"), False),
    ("N07 reset after accepting", go.cut("rst", "accepted"), True),
    ("N08 FIN after accepting", go.cut("fin", "accepted"), True),
    ("N08 FIN in the head", go.cut("fin", "status"), True),
    ("N08 reset in the head", go.cut("rst", "status"), True),
    ("N10 silence, not accepted", go.cut("hang", "read"), False),
    ("N10 silence, accepted", go.cut("hang", "accepted"), True),
    ("N10 deaf to the body", go.cut("hang", "head"), False),
    ("N11 silence in the head", go.cut("hang", "status"), True),
    ("N11 silence in the body", go.truncate(then="hang"), True),
    ("N12 a byte a while", go.drip(0.05), True),
    ("N12 a byte a while in the head", go.cut("drip", "status", seconds=0.05), True),
    ("N13 cut, by length", go.truncate("length"), True),
    ("N13 cut, by chunks", go.truncate("chunked"), True),
    ("N13 cut, by the end", go.truncate("none"), True),
    ("N13 cut by a reset", go.truncate(then="rst"), True),
    ("N13 longer than said", go.lie(-10), True),
    ("N13 shorter than said", go.lie(10), True),
    ("N15 302", go.redirect(302, accepted=True), True),
    ("N15 307", go.redirect(307, accepted=True), True),
    ("N17 a captive portal", go.captive_portal(), False),
    ("N18 bad gzip", go.bad_gzip(), True),
    ("N19 a header of 20 kB", go.big_header(), True),
    ("N19 two lengths", go.double_length(), True),
    ("N19 garbage", go.garbage(), True),
]


async def test_n01_dns_fails_twice_then_works(server: FaultServer) -> None:
    """A name that cannot be resolved yet has cost nothing: two pauses, then one create."""
    log, resolver = Log(), FlakyResolver(2)

    address = f"http://kling.test:{server.port}"
    async with client_of(server, log, base_url=address, connector={"resolver": resolver}) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, gets=0)
    pauses = [event.pause for event in log.of(Retried)]
    assert [0.25 <= pauses[0] <= 0.5, 0.5 <= pauses[1] <= 1.0, len(pauses)] == [True, True, 2]
    assert [event.error.sent for event in log.of(Retried)] == [False, False]


async def test_n02_dns_fails_for_ever(server: FaultServer) -> None:
    """When the name never resolves the error says that nothing was sent, and no request was."""
    resolver = FlakyResolver(1000)

    address = f"http://kling.test:{server.port}"
    async with client_of(server, base_url=address, connector={"resolver": resolver}, max_retries=1) as kling:
        with pytest.raises(TransportError) as caught:
            _ = await kling.images.multi_image.create(job("job-1"))

    assert not caught.value.sent
    assert "kling.test" in str(caught.value)
    assert resolver.asked == 2
    assert server.books.requests.total() == 0


async def test_n03_refused_connections_are_tried_again(server: FaultServer) -> None:
    """A service that is down for a moment gets one create when it is back."""
    log = Log()

    async with client_of(server, log) as kling:
        await server.deafen()
        async with asyncio.TaskGroup() as group:
            creating = group.create_task(_create(kling))
            async with asyncio.timeout(30):
                while not log.of(Retried):  # noqa: ASYNC110 - the event is what is waited for
                    await asyncio.sleep(0.01)
            await server.listen()
        handle = creating.result()

    assert handle.external_task_id == "job-1"
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, gets=0)


async def _create(kling: Any) -> Any:
    return await kling.images.multi_image.create(job("job-1"))


async def test_n04_an_untrusted_certificate_is_refused_at_once() -> None:
    """A certificate nobody trusts is a matter of configuration: no retry, no request, the host is named."""
    log = Log()

    async with FaultServer(tls=untrusted()) as server, client_of(server, log) as kling:
        with pytest.raises(ConfigError, match="certificate") as caught:
            _ = await kling.images.multi_image.create(job("job-1"))

    assert "127.0.0.1" in str(caught.value)
    assert log.of(Retried) == []
    assert server.books.requests.total() == 0


async def test_n05_a_stuck_handshake_was_not_sent() -> None:
    """A TLS handshake that never ends is known not to have sent anything, and is tried again."""
    log = Log()
    stuck = Toxic(kind="timeout", stream="downstream")
    async with (
        FaultServer(tls=untrusted()) as server,
        ToxicProxy((server.host, server.port), [stuck]) as proxy,
        client_of(
            server,
            log,
            base_url=f"https://127.0.0.1:{proxy.port}",
            connector={"ssl": False},
            timeout=QUICK,
        ) as kling,
    ):
        creating = asyncio.ensure_future(_create(kling))
        async with asyncio.timeout(30):
            while not log.of(Retried):  # noqa: ASYNC110 - the event is what is waited for
                await asyncio.sleep(0.01)
        proxy.toxics.clear()
        await creating

    first = log.of(Retried)[0].error
    assert isinstance(first, RequestTimeout)
    assert not first.sent
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, gets=0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_n15_creates_never_follow_redirects(server: FaultServer, status: int, where: str) -> None:
    """A redirected create ends as a matter of configuration, and nobody at the target hears of it."""
    async with FaultServer() as canary:
        target = "self" if where == "here" else f"{canary.url}/v1/images/multi-image2image"
        server.break_with(go.redirect(status, target, times=None))

        async with client_of(server) as kling:
            with pytest.raises(ConfigError, match="redirect"):
                _ = await kling.images.multi_image.create(job("job-1"))

        assert canary.books.connections == 0
    assert_paid_once(server.books, [])
    assert_within(server.books, posts=1, gets=3)
    assert server.books.lists == 0


@pytest.mark.parametrize("status", [302, 307])
async def test_n15_an_address_that_redirects_everything_ends_the_batch(
    server: FaultServer, status: int
) -> None:
    """Where look-ups are redirected as well nobody knows of the creates sent; no more are, and none is sent again."""
    server.break_with(go.redirect(status, "self", "*", times=None))
    work = [job(key=f"row-{number}", prompt=f"{number}.") for number in range(50)]
    outcomes: list[Any] = []

    async with client_of(server, slots=3) as kling:
        with pytest.raises(ConfigError, match="redirect"):
            async for outcome in kling.batch(work):
                outcomes.append(outcome)  # noqa: PERF401 - what came before the error is kept

    assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)} == {SubmissionUnknown}
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert len(outcomes) <= 3
    assert_within(server.books, posts=3)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_n16_reads_never_follow_redirects(server: FaultServer, status: int) -> None:
    """A redirected read shows its Authorization to nobody else."""
    async with FaultServer() as canary:
        server.break_with(go.redirect(status, canary.url + "/trap", "*", times=None))

        async with client_of(server, max_retries=0) as kling:
            with pytest.raises(MalformedReply, match="redirect"):
                await kling.images.multi_image.retrieve("job-1")
            with pytest.raises(MalformedReply, match="redirect"):
                await kling.images.multi_image.list()
            with pytest.raises(MalformedReply, match="redirect"):
                await kling.account.packs()

        assert canary.books.connections == 0


async def test_n17_a_proxy_that_wants_credentials(server: FaultServer) -> None:
    """407 is a matter of configuration: one create, no loop."""
    server.break_with(go.html(407, times=None))

    async with client_of(server) as kling:
        with pytest.raises(ConfigError, match="proxy"):
            _ = await kling.images.multi_image.create(job("job-1"))

    assert_within(server.books, posts=1, gets=0)


async def test_n17_a_portal_for_ever_is_not_accepted(server: FaultServer) -> None:
    """A login page with status 200 is no task, whatever is tried, and the end is a clear error."""
    server.break_with(go.captive_portal(times=None))

    async with client_of(server, max_retries=1) as kling:
        with pytest.raises(MalformedReply, match="HTML page"):
            _ = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, [])
    assert_within(server.books, posts=2, gets=6)


async def test_n20_a_slow_line_is_no_broken_one(server: FaultServer) -> None:
    """Latency with jitter and a narrow band delay a whole job, and nothing is given up or sent twice."""
    toxics = [
        Toxic(kind="latency", seconds=0.1, jitter=0.05),
        Toxic(kind="latency", seconds=0.1, stream="upstream"),
        Toxic(kind="bandwidth", size=10_000),
        Toxic(kind="slicer", size=50, seconds=0.001),
    ]
    log = Log()

    async with (
        ToxicProxy((server.host, server.port), toxics) as proxy,
        client_of(server, log, base_url=proxy.url, timeout=None) as kling,
    ):
        task = await kling.images.multi_image.run(job("job-1"), wait_timeout=10)

    assert len(task.images) == 1
    assert log.of(Retried, Recovered) == []
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1)


@pytest.mark.parametrize(
    "toxic",
    [
        Toxic(kind="limit_data", size=60),
        Toxic(kind="limit_data", size=60, stream="upstream"),
        Toxic(kind="reset_peer", seconds=0.0),
        Toxic(kind="timeout", seconds=0.1),
        Toxic(kind="down"),
    ],
    ids=lambda toxic: f"{toxic.kind}-{toxic.stream}",
)
async def test_n20_broken_lines_that_heal(server_in_two_modes: FaultServer, toxic: Toxic) -> None:
    """Whatever the toxic did to the first connections, in the end one task is paid for."""
    server, log = server_in_two_modes, Log()

    async with (
        ToxicProxy((server.host, server.port), [toxic]) as proxy,
        client_of(server, log, base_url=proxy.url) as kling,
    ):
        creating = asyncio.ensure_future(_create(kling))
        async with asyncio.timeout(30):
            while proxy.connections < 2:  # noqa: ASYNC110 - counted by the proxy
                await asyncio.sleep(0.005)
        proxy.toxics.clear()
        await creating

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=3)


async def test_the_time_limit_of_a_dripping_answer_is_kept(server: FaultServer) -> None:
    """A server that keeps a connection busy does not stretch the limit of the whole request."""
    server.break_with(go.drip(0.02, "get", times=None))
    limits = Timeouts(connect=0.5, request=0.4)

    async with client_of(server, timeout=limits, max_retries=0) as kling:
        begin = time.monotonic()
        with pytest.raises(TransportError):
            await kling.images.multi_image.retrieve("job-1")
        taken = time.monotonic() - begin

    assert 0.35 < taken < 5


async def test_a_read_is_repeated_and_bounded(server: FaultServer) -> None:
    """Reads that break are repeated as often as asked for; aiohttp itself may repeat a GET once."""
    server.break_with(go.cut("rst", "read", "get", times=None))

    async with client_of(server, max_retries=1) as kling:
        with pytest.raises(TransportError):
            await kling.images.multi_image.retrieve("job-1")

    assert 2 <= server.books.gets <= 4


async def test_an_unknown_task_is_not_asked_for_twice(server: FaultServer) -> None:
    """Not found is an answer."""
    async with client_of(server) as kling:
        with pytest.raises(TaskNotFound):
            await kling.images.multi_image.retrieve("job-1")

    assert server.books.gets == 1
