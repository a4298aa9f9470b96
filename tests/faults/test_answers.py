"""Fault matrix H01 to H17: what the service and the gateways before it answer, judged by the server's books."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fault_kit import PACE, Log, client_of, job
from fault_server import Fault, FaultServer
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within

from kling_async import errors
from kling_async.protocol.events import Recovered, Refused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "not accepted"])
@pytest.mark.parametrize(
    "make",
    [
        lambda accepted: go.html(500, accepted=accepted),
        lambda accepted: go.html(502, accepted=accepted),
        lambda accepted: go.html(503, accepted=accepted),
        lambda accepted: go.html(504, accepted=accepted),
        lambda accepted: go.empty(502, accepted=accepted),
        lambda accepted: go.empty(408, accepted=accepted),
        lambda accepted: go.empty(409, accepted=accepted),
        lambda accepted: go.empty(425, accepted=accepted),
        lambda accepted: go.refuse(5000, accepted=accepted),
        lambda accepted: go.refuse(5001, accepted=accepted),
        lambda accepted: go.refuse(5002, accepted=accepted),
        lambda accepted: go.refuse(5000, status=200, accepted=accepted),
        lambda accepted: go.refuse(5099, accepted=accepted),
    ],
    ids=["500", "502", "503", "504", "empty 502", "408", "409", "425", "5000", "5001", "5002", "5000 in 200", "5099"],
)  # fmt: skip
async def test_h01_h15_errors_of_gateways_and_servers_are_resolved(
    server_in_two_modes: FaultServer, make: Any, *, accepted: bool
) -> None:
    """An error page or a server error says nothing about the create; in the end it is paid once."""
    server, log = server_in_two_modes, Log()
    server.break_with(make(accepted))

    async with client_of(server, log) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1 if accepted else 2, gets=1 if accepted else 4)
    assert len(log.of(Recovered)) == int(accepted)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_h02_error_pages_on_reads_change_nothing(server: FaultServer, status: int) -> None:
    """A wait goes on through the error pages of a gateway."""
    server.break_with(go.html(status, "get", times=2), go.html(status, "list", times=2))

    async with client_of(server) as kling:
        task = await kling.images.multi_image.run(job("job-1", n=2), wait_timeout=10)

    assert len(task.images) == 2
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1)


REFUSALS = {
    1100: errors.AccountError,
    1101: errors.InArrears,
    1102: errors.OutOfUnits,
    1103: errors.NotPermitted,
    1104: errors.AccountError,
    1200: errors.BadRequest,
    1201: errors.BadRequest,
    1202: errors.NoSuchResource,
    1203: errors.NoSuchResource,
    1300: errors.PolicyRefusal,
    1301: errors.ContentRefusal,
    1304: errors.AddressNotAllowed,
    1399: errors.PolicyRefusal,
}


@pytest.mark.parametrize("status", [0, 200], ids=["own status", "200"])
@pytest.mark.parametrize(("code", "kind"), REFUSALS.items(), ids=map(str, REFUSALS))
async def test_h03_refusals_are_final_and_say_which(
    server: FaultServer, code: int, kind: type[errors.ApiError], status: int
) -> None:
    """A refused job is not sent again, and the error has the service's code and request id, whatever the status."""
    server.break_with(go.refuse(code, status=status, times=None))

    async with client_of(server) as kling:
        with pytest.raises(kind) as caught:
            _ = await kling.images.multi_image.create(job("job-1"))

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.request_id) == (code, "fault-1")
    assert_paid_once(server.books, [])
    assert_within(server.books, posts=1, gets=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "!drop"},
        {"data": None},
        {"data": {}},
        {"data": []},
        {"data.task_id": None},
        {"data.task_id": ""},
        {"data.task_id": "!drop"},
        {"data.task_id": float("nan")},
        {"code": None},
        {"code": "!drop"},
        {"code": float("nan")},
        {"code": 10**400},
        {"code": 1999},
    ],
    ids=str,
)
async def test_h04_h16_h17_answers_without_a_task_are_looked_up(
    server_in_two_modes: FaultServer, changes: dict[str, Any]
) -> None:
    """A success without a task id, or of an unknown code, is no failure: the task is found by its external id."""
    server = server_in_two_modes
    server.break_with(go.edit(changes))

    async with client_of(server, min_poll_interval=3600) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=1, gets=1)


@pytest.mark.parametrize(
    "fault",
    [
        go.edit({"code": "0"}),
        go.edit({"code": "SUCCEED"}),
        go.edit({"code": 0.0}),
        go.edit({"message": None, "request_id": None}),
        go.edit({"data.task_status": None, "data.task_info": {}, "data.created_at": 10**300}),
        go.edit({"data.task_info": None, "data.created_at": "soon", "data.updated_at": float("nan")}),
        go.edit({"data.new": {"deep": [1, {}]}, "more": None}),
        go.plain_text(),
        go.edit({}, framing="chunked"),
        go.edit({}, framing="none"),
    ],
    ids=["code '0'", "code SUCCEED", "code 0.0", "nulls", "odd task", "odder task", "more fields", "text/plain",
         "chunked", "until the end"],
)  # fmt: skip
async def test_h04_h16_h17_odd_answers_are_understood(server: FaultServer, fault: Fault) -> None:
    """Numbers as text, nulls, absurd dates, unknown fields and other framings are still the answer."""
    server.break_with(fault)

    async with client_of(server, min_poll_interval=3600) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1, gets=0)


async def test_h04_a_task_id_that_is_a_number_becomes_text(server: FaultServer) -> None:
    """Task ids are text for us, whatever the service's gateway makes of them."""
    server.break_with(go.edit({"data.task_id": 866361099762000001}))

    async with client_of(server, min_poll_interval=3600) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == "866361099762000001"
    assert_within(server.books, posts=1, gets=0)


async def test_h17_doubled_keys_and_an_endless_message(server: FaultServer) -> None:
    """A refusal of ten megabytes is cut in the error; doubled keys do not break the reading."""
    doubled = '{"code":1301,"code":1301,"message":"a","message":"no","request_id":"r-1"}'
    server.break_with(go.raw(doubled, 400), go.refuse(1301, text="x" * 1_000_000))

    async with client_of(server) as kling:
        with pytest.raises(errors.ContentRefusal) as first:
            _ = await kling.images.multi_image.create(job("job-1"))
        with pytest.raises(errors.ContentRefusal) as second:
            _ = await kling.images.multi_image.create(job("job-2"))

    assert (first.value.message, first.value.request_id) == ("no", "r-1")
    assert len(str(second.value)) < 2_000
    assert_within(server.books, posts=2, gets=0)


async def test_h17_a_message_of_ten_megabytes_is_not_read(server: FaultServer) -> None:
    """A reply beyond the cap is given up, and an accepted create behind it is still found."""
    server.break_with(go.edit({"message": "x" * 10_000_000}))

    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-1"))

    assert handle.task_id == server.books.charges[0].task_id
    assert_within(server.books, posts=1, gets=1)


async def test_h17_what_nobody_documented_is_kept_in_raw(server: FaultServer) -> None:
    """Unknown fields of a task are in its `raw`; nulls where lists belong are empty."""
    server.break_with(go.edit({"data.novelty": 7, "data.task_result": {"images": None}}, "get"))

    async with client_of(server) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))
        task = await kling.images.multi_image.retrieve("job-1")

    assert task.raw["novelty"] == 7
    assert task.images == ()


@pytest.mark.parametrize(("wish", "least"), [("4.5", 4.5), ("-5", 1.0), ("soon", 1.0), (None, 1.0)])
async def test_h05_a_refused_create_waits_as_wished_or_at_least_a_second(
    server: FaultServer, wish: str | None, least: float
) -> None:
    """1303 waits for `Retry-After` where that makes sense, else a second or more, and counts as no attempt."""
    headers = () if wish is None else (("Retry-After", wish),)
    server.break_with(go.refuse(1303, headers=headers))
    log = Log()

    async with client_of(server, log, max_retries=1) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))

    first, second = server.books.times("create")
    assert (second - first) * PACE >= least
    assert [event.code for event in log.of(Refused)] == [1303]
    assert_paid_once(server.books, ["job-1"])


async def test_h05_all_creates_of_the_account_wait(server: FaultServer) -> None:
    """After a refusal the others do not try in turn: one probes, and then the rest follow."""
    server.break_with(go.refuse(1303, times=1))

    async with client_of(server) as kling:
        creates = (kling.images.multi_image.create(job(f"job-{number}")) for number in range(4))
        await asyncio.gather(*creates)

    assert_paid_once(server.books, 4)
    assert server.books.codes[1303] == 1
    assert_within(server.books, posts=5, slots=9)


async def test_h08_h11_too_fast_without_any_body(server: FaultServer) -> None:
    """An empty 429 is back-pressure: it waits, it is sent again, and it was no attempt."""
    server.break_with(go.empty(429), go.refuse(1302))

    async with client_of(server, max_retries=1) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))

    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=3, gets=0)


@pytest.mark.parametrize("code", [1101, 1102, 1304])
async def test_h10_an_account_that_cannot_pay_is_left_alone(server: FaultServer, code: int) -> None:
    """After a refusal of the account no further create goes out, while reads still do."""
    async with client_of(server) as kling:
        handle = await kling.images.multi_image.create(job("job-0"))
        server.break_with(go.refuse(code, times=None))
        for number in range(1, 4):
            with pytest.raises(errors.AccountError):
                _ = await kling.images.multi_image.create(job(f"job-{number}"))
        task = await handle.wait(timeout=30)

    assert task.images
    assert_paid_once(server.books, ["job-0"])
    assert_within(server.books, posts=2)


async def test_h12_an_expired_token_is_renewed_once_for_everybody(server: FaultServer) -> None:
    """A hundred calls whose token has expired cause one new token and one repetition each."""
    async with client_of(server) as kling:
        _ = await kling.images.multi_image.create(job("job-1"))
        server.service.clock.skew = 3600
        await asyncio.gather(*(kling.images.multi_image.retrieve("job-1") for _ in range(100)))

    assert server.service.gate.tokens == 2
    # The poller asks about the task as well, now and then.
    assert server.books.codes[1004] <= 105
    assert_within(server.books, posts=1, gets=210)


@pytest.mark.parametrize("skew", [-600, 600, -7200, 7200])
async def test_h13_a_wrong_clock_is_learned_from_the_date(server: FaultServer, skew: float) -> None:
    """With the clocks apart the first refusal teaches the difference, and from then on tokens are good."""
    server.service.clock.skew = skew

    async with client_of(server) as kling:
        for number in range(3):
            _ = await kling.images.multi_image.create(job(f"job-{number}"))

    assert_paid_once(server.books, 3)
    assert_within(server.books, posts=4)
    assert server.service.gate.tokens <= 2


async def test_h13_without_a_date_the_error_names_the_clock(server: FaultServer) -> None:
    """Where the service does not tell its time the error says that the clocks differ."""
    server.service.clock.skew = -600
    server.service.clock.sent = False

    async with client_of(server) as kling:
        with pytest.raises(errors.TokenNotYetValid, match="clock"):
            _ = await kling.images.multi_image.create(job("job-1"))

    assert_within(server.books, posts=2, gets=0)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1004])
async def test_h14_refused_credentials_make_no_loop(server: FaultServer, code: int) -> None:
    """Refused for ever, a client tries twice at most and then leaves the account alone."""
    server.break_with(go.refuse(code, times=None))

    async with client_of(server) as kling:
        for number in range(3):
            with pytest.raises(errors.AuthError):
                _ = await kling.images.multi_image.create(job(f"job-{number}"))

    assert_within(server.books, posts=2, gets=0)


async def test_h14_an_api_key_is_not_signed_anew(server: FaultServer) -> None:
    """A plain key that is refused is refused."""
    keys: dict[str, Any] = {"api_key": "key-of-somebody-else", "access_key": None, "secret_key": None}

    async with client_of(server, **keys) as kling:
        with pytest.raises(errors.AuthError):
            _ = await kling.images.multi_image.create(job("job-1"))

    assert_within(server.books, posts=1, gets=0)


async def test_5001_pauses_and_probes(server: FaultServer) -> None:
    """Maintenance holds all creates back; when it ends each job is paid once."""
    server.break_with(go.refuse(5001, times=2))

    async with client_of(server) as kling:
        creates = (kling.images.multi_image.create(job(f"job-{number}")) for number in range(3))
        await asyncio.gather(*creates)

    assert_paid_once(server.books, 3)
    assert_within(server.books, posts=3 + 2)


async def test_an_external_id_of_the_callers_that_exists_is_told(server: FaultServer) -> None:
    """A task that has the caller's id already may be another job: the error says so, and a handle leads to it."""
    async with client_of(server) as kling:
        first = await kling.images.multi_image.create(job("job-1"))
        with pytest.raises(errors.DuplicateExternalId):
            _ = await kling.images.multi_image.create(job("job-1"))
        task = await kling.images.multi_image.handle("job-1").wait(timeout=30)

    assert task.task_id == first.task_id
    assert_paid_once(server.books, ["job-1"])
    assert_within(server.books, posts=2)


async def test_without_retries_a_refusal_for_want_of_slots_is_told_at_once(server: FaultServer) -> None:
    """A caller that wants no repetition gets 1303 itself, free of charge."""
    server.break_with(go.refuse(1303))

    async with client_of(server, max_retries=0) as kling:
        with pytest.raises(errors.NoFreeSlot):
            _ = await kling.images.multi_image.create(job("job-1"))

    assert_within(server.books, posts=1)


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_one_refused_read_does_not_lose_the_tasks(server: FaultServer, status: int) -> None:
    """A page of a gateway that refuses one read says nothing about the tasks; the wait goes on."""
    server.break_with(go.html(status, "get"), go.html(status, "list"))

    async with client_of(server) as kling:
        task = await kling.images.multi_image.run(job("job-1"), wait_timeout=30)

    assert task.images
