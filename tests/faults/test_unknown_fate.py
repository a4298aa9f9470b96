"""Fault matrix N06 to N14, N18, N19: creates whose answer is lost are paid once, judged by the server's books."""

from __future__ import annotations

import resource

import pytest
from fault_kit import PATIENT, QUICK, Log, client_of, job
from fault_server import Fault, FaultServer
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within
from fault_server.replies import prepare

from kling_async.errors import (
    MalformedReply,
    SubmissionUnknown,
)
from kling_async.protocol.events import Recovered

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


# Those that only end with the time limit.
SILENT = ("N10", "N11", "N12", "N13 shorter")


@pytest.mark.parametrize(("name", "fault", "accepted"), AMBIGUOUS, ids=[row[0] for row in AMBIGUOUS])
async def test_a_create_of_unknown_fate_is_paid_once(
    server_in_two_modes: FaultServer, name: str, fault: Fault, *, accepted: bool
) -> None:
    """A create whose answer is lost is looked up, adopted or sent once more, and never billed twice."""
    server = server_in_two_modes
    server.break_with(fault)
    log = Log()
    limits = QUICK if name.startswith(SILENT) else PATIENT

    async with client_of(server, log, timeout=limits) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1 if accepted else 2, look_ups=1 if accepted else 4)
    assert handle.external_task_id == "job-1"
    assert handle.task_id == server.books.charges[0].task_id
    assert len(log.of(Recovered)) == int(accepted)


async def test_n09_a_look_up_that_lags_causes_no_second_create(server_in_two_modes: FaultServer) -> None:
    """Not found is not found yet: within the settle window the task appears and is adopted."""
    server = server_in_two_modes
    server.change(lag_looks=2)
    server.break_with(go.cut("rst", "accepted"))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, look_ups=3)


async def test_n09_a_longer_lag_is_caught_by_the_service_or_not_at_all(server: FaultServer) -> None:
    """Beyond the settle window the create goes out again with the same id, which a unique service refuses."""
    server.change(lag_looks=4)
    server.break_with(go.cut("rst", "accepted"))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=2)


@pytest.mark.parametrize("dialect", ["1201", "1203"])
async def test_both_spellings_of_not_found_lead_to_a_second_create(server: FaultServer, dialect: str) -> None:
    """A look-up that finds nothing is understood as the service says it and as the mocks of others do."""
    server.change(not_found=dialect)
    server.break_with(go.cut("rst", "read"))

    async with client_of(server) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=2, look_ups=3)


async def test_look_ups_that_bring_no_answer_are_no_not_found(server_in_two_modes: FaultServer) -> None:
    """A look-up that breaks tells nothing; the next that answers decides."""
    server = server_in_two_modes
    server.break_with(go.cut("rst", "accepted"), go.html(502, "get"))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, look_ups=2)


async def test_without_any_answer_the_create_stays_unknown(server: FaultServer) -> None:
    """When look-ups are refused for good, nothing is guessed: the error carries the external id."""
    server.break_with(go.cut("rst", "accepted"), go.refuse(1103, "get", times=None))

    async with client_of(server) as kling:
        with pytest.raises(SubmissionUnknown) as caught:
            _ = await kling.images.multi_image.create(job("job-1"))

    assert caught.value.external_task_id == "job-1"
    assert_within(server.books, posts=1)


async def test_n14_stale_connections_between_creates(server_in_two_modes: FaultServer) -> None:
    """A kept-alive connection that dies under the next create costs a look-up, not a second task."""
    server = server_in_two_modes
    server.break_with(go.stale("create", times=2))
    names = [f"job-{number}" for number in range(4)]

    async with client_of(server) as kling:
        for name in names:
            _ = await kling.images.multi_image.create(job(name))

    assert_paid_once(server.books, names)
    assert_within(server.books, posts=6)


async def test_n14_an_idle_connection_closed_by_the_server(server: FaultServer) -> None:
    """Connections that the server closes between requests are replaced without anybody noticing."""
    server.break_with(go.cut("fin", "idle", "*", times=None))
    names = [f"job-{number}" for number in range(4)]

    async with client_of(server) as kling:
        for name in names:
            _ = await kling.images.multi_image.create(job(name))

    assert_paid_once(server.books, names)


@pytest.mark.parametrize("accepted", [True, False])
async def test_n18_a_gzip_bomb_is_not_unpacked(server_in_two_modes: FaultServer, *, accepted: bool) -> None:
    """300 MB packed into 300 kB are given up at the cap, and the create is resolved."""
    server = server_in_two_modes
    prepare(300_000_000)
    server.break_with(go.bomb(300_000_000, accepted=accepted))

    async with client_of(server) as kling:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _ = await kling.images.multi_image.create(job("job-1"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert grown < 20_000, f"{grown} kB"
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1 if accepted else 2)


async def test_n18_a_bomb_in_a_read(server: FaultServer) -> None:
    """A read that is bombed ends as a malformed reply."""
    prepare(300_000_000)
    server.break_with(go.bomb(300_000_000, "*", times=None))

    async with client_of(server, max_retries=0) as kling:
        with pytest.raises(MalformedReply, match="at most"):
            await kling.images.multi_image.retrieve("job-1")


async def test_n19_a_client_made_400_is_no_refusal(server: FaultServer) -> None:
    """An answer that cannot be read for ever is never taken for a refusal of the job."""
    server.break_with(go.big_header(times=None))

    async with client_of(server, max_retries=0) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1, look_ups=1)
