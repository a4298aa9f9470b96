"""What the service answers when it does not do what was asked, through a socket: which error it becomes."""

from __future__ import annotations

import gzip
import json
import pickle
import tracemalloc
from collections.abc import Awaitable
from typing import Any

import aiohttp
import pytest
from socket_kit import PATH, Asked, Plain, answer, client, creates, job, leaves_nothing, reply, task

from kling_async import Kling, TaskStatus, errors
from kling_async.emulator import Emulator, Fault
from kling_async.protocol.codes import CODES

pytestmark = pytest.mark.anyio

KINDS = {
    1000: errors.AuthError,
    1001: errors.AuthError,
    1002: errors.AuthError,
    1003: errors.TokenNotYetValid,
    1004: errors.TokenExpired,
    1100: errors.AccountError,
    1101: errors.InArrears,
    1102: errors.OutOfUnits,
    1103: errors.NotPermitted,
    1200: errors.BadRequest,
    1201: errors.BadRequest,
    1202: errors.NoSuchResource,
    1203: errors.NoSuchResource,
    1300: errors.PolicyRefusal,
    1301: errors.ContentRefusal,
    1302: errors.RateLimited,
    1303: errors.NoFreeSlot,
    1304: errors.AddressNotAllowed,
    5000: errors.ServerError,
    5001: errors.ServerError,
    5002: errors.ServerError,
}


def test_no_code_is_left_out() -> None:
    """Every code of the vendor's table is tried below."""
    assert set(KINDS) == set(CODES)


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize(("code", "kind"), KINDS.items(), ids=map(str, KINDS))
async def test_the_code_decides_before_the_status(
    code: int, kind: type[errors.ApiError], status: int
) -> None:
    """Whatever HTTP status a code comes with, the error is of the code's class and has what support will ask for."""
    refusal = answer(None, code=code, status=status)

    async with Plain(lambda _: refusal) as server, client(server, max_retries=0) as kling:
        with pytest.raises(errors.ApiError) as caught:
            await kling.images.multi_image.with_raw_response.retrieve("t-1")

    error = caught.value
    assert type(error) is kind
    assert (error.code, error.http_status, error.request_id) == (code, status, "plain-1")
    assert error.remedy in str(error)
    assert f"code {code}" in str(error)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (kind, str(error))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.AuthError),
        (403, errors.NotPermitted),
        (404, errors.NoSuchResource),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (502, errors.ServerError),
    ],
)
async def test_without_a_code_the_status_decides(status: int, kind: type[errors.ApiError]) -> None:
    """A page of a gateway is judged by its HTTP status alone."""
    page = reply(status, b"<html>no</html>", kind="text/html")

    async with Plain(lambda _: page) as server, client(server, max_retries=0) as kling:
        with pytest.raises(kind) as caught:
            await kling.images.multi_image.retrieve("t-1")

    assert (caught.value.code, caught.value.http_status) == (0, status)


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "image/png", ""])
async def test_json_is_read_whatever_it_is_called(kind: str) -> None:
    """The body is parsed by us; its Content-Type says nothing."""
    body = answer(task("t-1", "succeed")).partition(b"\r\n\r\n")[2]

    async with Plain(lambda _: reply(200, body, kind=kind)) as server, client(server) as kling:
        found = await kling.images.multi_image.retrieve("t-1")

    assert found.status == TaskStatus.SUCCEED


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>welcome to the hotel</html>", b"[1]", b'{"code": 0', b"null", b'{"ok": true}'],
    ids=str,
)
async def test_a_success_that_says_nothing_is_malformed(body: bytes) -> None:
    """Status 200 without the service's envelope is no answer."""
    async with Plain(lambda _: reply(200, body)) as server, client(server, max_retries=0) as kling:
        with pytest.raises(errors.MalformedReply):
            await kling.images.multi_image.retrieve("t-1")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_error_page_on_a_read_is_tried_again(status: int) -> None:
    """Two HTML pages of a gateway are followed by the answer."""
    pages = [reply(status, b"<html>", kind="text/html")] * 2

    def say(_: Asked) -> bytes:
        return pages.pop() if pages else answer(task("t-1"))

    async with Plain(say) as server, client(server, max_retries=2) as kling:
        found = await kling.images.multi_image.retrieve("t-1")

    assert found.task_id == "t-1"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda mi: mi.retrieve("t-1"),
        lambda mi: mi.list(),
        lambda mi: mi.with_raw_response.list(),
        lambda mi: mi.handle("t-1").refresh(),
        lambda mi: mi.handle("t-1").wait(),
    ],
    ids=["retrieve", "list", "raw list", "refresh", "wait"],
)
async def test_no_retries_is_one_request(call: Any) -> None:
    """`max_retries=0` sends a read once, and its error is the caller's."""
    page = reply(502, b"<html>", kind="text/html")

    async with Plain(lambda _: page) as server, client(server, max_retries=0) as kling:
        with pytest.raises(errors.ServerError):
            await call(kling.images.multi_image)

    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [1302, 1303, 5001, 1201])
async def test_no_retries_is_one_create(code: int) -> None:
    """`max_retries=0` sends a create once, also where waiting would heal."""
    faults = [Fault(action="refuse", code=code, route="create")]

    async with Emulator(paint="stamp", faults=faults) as emulator, client(emulator, max_retries=0) as kling:
        with pytest.raises(errors.ApiError):
            _ = await kling.images.multi_image.create(job())

    assert creates(emulator) == 1
    assert emulator.tasks == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirects_are_never_followed(status: int, method: str) -> None:
    """Another host named by a redirect hears nothing at all, above all no Authorization."""
    async with Plain(lambda _: answer(task("t-1"))) as other:

        def say(asked: Asked) -> bytes:
            if asked.method != method:
                return answer(None, code=1203, status=404)
            return reply(status, b"", Location=f"{other.url}{PATH}/t-1?token=secret-in-the-query")

        async with Plain(say) as server, client(server, max_retries=0) as kling:
            mi = kling.images.multi_image
            call: Awaitable[object] = mi.retrieve("t-1") if method == "GET" else mi.create(job())
            with pytest.raises(errors.KlingError) as caught:
                await call

    assert other.asked == []
    assert len(server.of("POST")) == (method == "POST")
    assert "secret-in-the-query" not in str(caught.value)


async def test_a_gzip_bomb_is_given_up_at_the_cap() -> None:
    """A hundred megabytes packed into a hundred kilobytes are no reply and take no memory."""
    bomb = reply(200, gzip.compress(b" " * (100 << 20), 6), Content_Encoding="gzip")

    async with leaves_nothing(), Plain(lambda _: bomb) as server, client(server, max_retries=0) as kling:
        tracemalloc.start()
        with pytest.raises(errors.MalformedReply, match="at most 1,048,576 bytes"):
            await kling.images.multi_image.retrieve("t-1")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 20 << 20


async def test_a_page_of_five_hundred_tasks_fits() -> None:
    """The longest list that the service can send is read: 500 tasks of nine pictures with long links."""
    images = [{"index": number, "url": f"https://cdn.example/{'x' * 700}{number}"} for number in range(9)]
    tasks = [task(f"t-{number}", "succeed", task_result={"images": images}) for number in range(500)]

    async with Plain(lambda _: answer(tasks)) as server, client(server) as kling:
        listed = await kling.images.multi_image.list(page_size=500)

    assert len(listed) == 500
    assert len(listed[-1].images) == 9


@pytest.mark.parametrize(
    "change",
    [
        {"created_at": None, "updated_at": "soon"},
        {"task_info": None, "task_result": None},
        {"task_result": {"images": None}},
        {"task_status": None},
        {"task_status_msg": None, "final_unit_deduction": float("nan")},
        {"created_at": 10**30, "final_unit_deduction": "16.5"},
        {"something_new": {"deep": [1, 2, 3]}},
    ],
    ids=str,
)
async def test_odd_fields_are_survived(change: dict[str, Any]) -> None:
    """Nulls, absurd numbers and new fields neither raise nor hide the task; `raw` has them as they came."""
    odd = {**task("t-1"), **change}

    async with Plain(lambda _: answer(odd)) as server, client(server) as kling:
        found = await kling.images.multi_image.retrieve("t-1")

    assert found.task_id == "t-1"
    assert json.dumps(found.raw) == json.dumps(odd)


@pytest.mark.parametrize("code", ["0", "success", 0.0])
async def test_codes_of_gateways_are_understood(code: object) -> None:
    """`"0"` and `"success"` are 0."""
    async with Plain(lambda _: answer(task("t-1"), code=code)) as server, client(server) as kling:
        found = await kling.images.multi_image.retrieve("t-1")

    assert found.task_id == "t-1"


async def test_an_account_that_stopped_keeps_nobodys_frames() -> None:
    """An account that is out of units refuses at once and for ever, each time with an error of its own."""
    faults = [Fault(action="refuse", code=1102)]

    async with Emulator(paint="stamp", faults=faults) as emulator, client(emulator) as kling:
        caught = []
        for number in range(20):
            with pytest.raises(errors.OutOfUnits) as one:
                _ = await kling.images.multi_image.create(job(external_task_id=f"order-{number}"))
            caught.append(one.value)

    assert creates(emulator) == 1
    assert len(set(map(id, caught))) == 20
    assert not any(hasattr(error, "__notes__") for error in caught), "no task was made that a note could name"
    assert len({_depth(error) for error in caught[1:]}) == 1


def _depth(error: BaseException) -> int:
    depth, trace = 0, error.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    return depth


async def test_a_borrowed_session_that_raises_changes_no_error() -> None:
    """A session set to raise for refusals still brings the service's own code."""
    async with (
        Plain(lambda _: answer(None, code=1301, status=400)) as server,
        aiohttp.ClientSession(raise_for_status=True) as session,
        client(server, session=session) as kling,
    ):
        with pytest.raises(errors.ContentRefusal):
            _ = await kling.images.multi_image.create(job())

    assert len(server.asked) == 1


async def test_a_netrc_file_is_not_looked_at(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for every host in `.netrc` neither replace our token nor stop the request."""
    (tmp_path / "netrc").write_text("default login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async with Plain(lambda _: answer(task("t-1"))) as server, client(server, trust_env=True) as kling:
        await kling.images.multi_image.retrieve("t-1")

    assert server.asked[0].headers["authorization"] == "Bearer plain-api-key"


@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_a_proxy_is_used(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy named by an argument or by the environment gets the whole address."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    async with Plain(lambda _: answer(task("t-1"))) as proxy:
        options: dict[str, Any] = {"proxy": proxy.url} if how == "argument" else {"trust_env": True}
        if how == "environment":
            monkeypatch.setenv("http_proxy", proxy.url)
        async with client(proxy, base_url="http://service.invalid", **options) as kling:
            await kling.images.multi_image.retrieve("t-1")

    assert [asked.target for asked in proxy.asked] == [f"http://service.invalid{PATH}/t-1"]


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_address_is_not_the_service(empty: str) -> None:
    """Whoever gives an address that turns out to be empty is told so, and never reaches the service that charges."""
    with pytest.raises(errors.ConfigError, match="base_url: expected an address, found an empty text"):
        Kling(api_key="k" * 40, base_url=empty)
