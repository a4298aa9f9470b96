"""The fault server as an oracle: its routes, rules and books, seen through bare sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fault_server import FaultServer, Life, Listing, Settings
from fault_server.bodies import LONG, Squeezer
from fault_server.checks import quiet
from fault_server.raw import RawClient, job, token
from fault_server.service import CREATE

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: FaultServer) -> AsyncIterator[RawClient]:
    async with RawClient(server.url, server.service.gate.api_key) as client:
        yield client


async def test_a_create_is_accepted_written_down_and_found_by_both_ids(
    server: FaultServer, client: RawClient
) -> None:
    """A create makes one task, which both of its ids find and the list shows."""
    made = (await client.create(job("job-1", n=3))).json()["data"]

    views = [(await client.get(name)).json()["data"] for name in (made["task_id"], "job-1")]
    listed = (await client.list()).json()["data"]

    assert {view["task_id"] for view in [*views, *listed]} == {made["task_id"]}
    assert server.books.accepted == {"job-1": 1}
    assert server.books.billed == 48
    assert (server.books.posts, server.books.gets, server.books.lists) == (1, 2, 1)
    assert server.books.oddities == []


async def test_the_books_hold_no_secret_and_no_body(server: FaultServer, client: RawClient) -> None:
    """Whatever the books tell, a key, a token, a picture or more than the beginning of a prompt is not among it."""
    signed = token(server.service.gate)
    client.authorization = signed

    await client.create(job("job-1", prompt=f"{'a wish ' * 20} that is private"))

    told = json.dumps(server.books.snapshot())
    assert server.books.log[0].sha256
    assert not any(
        word in told for word in (signed, server.service.gate.secret_key, "private", "example.com")
    )


async def test_a_doubled_external_id_is_refused_free_of_charge(
    server: FaultServer, client: RawClient
) -> None:
    """With uniqueness on, the second create with the same id makes no task."""
    await client.create(job("job-1"))

    again = await client.create(job("job-1"))

    assert (again.status, again.json()["code"]) == (400, 1201)
    assert again.json()["message"] == "External_task_id job-1 already exists"
    assert "data" not in again.json()
    assert server.books.paid_twice == {}


async def test_without_uniqueness_the_second_create_is_billed(server: FaultServer, client: RawClient) -> None:
    """With uniqueness off, the books show who paid twice."""
    server.change(unique=False)

    await client.create(job("job-1"))
    await client.create(job("job-1"))

    assert server.books.paid_twice == {"job-1": 2}
    assert server.books.billed == 32


@pytest.mark.parametrize(("dialect", "status", "code"), [("1201", 400, 1201), ("1203", 404, 1203)])
async def test_both_dialects_of_not_found(
    server: FaultServer, client: RawClient, dialect: str, status: int, code: int
) -> None:
    """An unknown id is answered as seen live, or as the mocks of others do."""
    server.change(not_found=dialect)

    reply = await client.get("nobody")

    assert (reply.status, reply.json()["code"]) == (status, code)


async def test_a_fresh_task_can_be_hidden_from_its_external_id(
    server: FaultServer, client: RawClient
) -> None:
    """Look-ups by external id lag by looks; the task id finds the task at once."""
    server.change(lag_looks=2)
    made = (await client.create(job("job-1"))).json()["data"]

    by_task = (await client.get(made["task_id"])).json()["code"]
    by_name = [(await client.get("job-1")).json()["code"] for _ in range(3)]

    assert by_task == 0
    assert by_name == [1201, 1201, 0]


async def test_a_look_up_lag_in_seconds_ends_with_the_clock(server: FaultServer, client: RawClient) -> None:
    """The lag in seconds follows the server's clock, which can leap."""
    server.change(lag=10.0)
    await client.create(job("job-1"))

    before = (await client.get("job-1")).json()["code"]
    server.service.clock.advance(11)
    after = (await client.get("job-1")).json()["code"]

    assert (before, after) == (1201, 0)


async def test_slots_are_weighted_and_foreign_load_counts(server: FaultServer, client: RawClient) -> None:
    """Creates over the limit get 1303; a task that was seen to end frees its n slots."""
    server.change(slots=9, foreign=2)

    first = (await client.create(job("a", n=5))).json()
    second = await client.create(job("b", n=3))
    for _ in range(2):
        await client.get(first["data"]["task_id"])
    third = await client.create(job("b", n=3))

    assert (second.status, second.json()["code"], third.json()["code"]) == (429, 1303, 0)
    assert (server.books.peak, server.books.codes[1303], server.books.overruns) == (5, 1, 0)


async def test_an_unenforced_limit_counts_the_overruns(server: FaultServer, client: RawClient) -> None:
    """With the limit not enforced the books tell that it was passed, and by how much."""
    server.change(slots=2, enforce=False)

    for name in "abc":
        await client.create(job(name))

    assert (server.books.peak, server.books.overruns) == (3, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 10}, "n must be"),
        ({"n": True}, "n must be"),
        ({"n": "2"}, "n must be"),
        ({"prompt": "x" * 2501}, "prompt must be"),
        ({"aspect_ratio": "5:4"}, "aspect_ratio"),
        ({"model_name": "kling-v9"}, "model is not supported"),
        ({"subject_image_list": []}, "subject_image_list"),
        ({"subject_image_list": [{"subject_image": "data:image/png;base64,AAAA"}]}, "base64"),
        ({"scene_image": "AA A"}, "base64"),
        ({"external_task_id": 7}, "external_task_id"),
    ],
)
async def test_the_rules_of_the_page_are_kept(
    client: RawClient, fields: dict[str, Any], message: str
) -> None:
    """A body that breaks a rule is refused with 1201 and says which."""
    reply = (await client.create(job() | fields)).json()

    assert reply["code"] == 1201
    assert message in reply["message"]


@pytest.mark.parametrize(
    ("start", "end", "claims", "code"),
    [
        (-5, 1800, {}, 1201),
        (60, 1800, {}, 1003),
        (-99, -1, {}, 1004),
        (-5, 1800, {"iss": "another"}, 1000),
    ],
)
async def test_tokens_are_checked_by_signature_and_clock(
    server: FaultServer, client: RawClient, start: float, end: float, claims: dict[str, Any], code: int
) -> None:
    """The code says what is wrong with a token; a good one gets as far as the missing task."""
    client.authorization = token(server.service.gate, start=start, end=end, **claims)

    assert (await client.get("nobody")).json()["code"] == code


@pytest.mark.parametrize(
    ("authorization", "code"), [(None, 1001), ("", 1002), ("a.b.c", 1002), ("AK/SK", 1002)]
)
async def test_missing_and_garbled_credentials(
    client: RawClient, authorization: str | None, code: int
) -> None:
    """No header is 1001, nonsense is 1002."""
    client.authorization = authorization

    assert (await client.get("nobody")).json()["code"] == code


async def test_the_clock_moves_tokens_and_date_alike(server: FaultServer, client: RawClient) -> None:
    """A server ten minutes behind says so in `Date` and finds our tokens not yet valid."""
    server.service.clock.skew = -600
    client.authorization = token(server.service.gate)

    early = await client.get("nobody")
    client.authorization = token(server.service.gate, now=server.service.clock.wall())
    fitting = await client.get("nobody")

    assert (early.json()["code"], fitting.json()["code"]) == (1003, 1201)
    assert f"Date: {server.service.clock.date()}" in early.head


async def test_a_life_by_looks_by_time_and_by_script(server: FaultServer, client: RawClient) -> None:
    """Statuses come by looks, by time, or as written, backwards and vanishing included."""
    by_time, odd = Life(seconds=10), Life(script=("succeed", "processing", "queued", "vanish"))
    server.change(life=Life(polls=2, end="succeeded"), lives=(("timed", by_time), ("odd", odd)))
    for name in ("plain", "timed", "odd"):
        await client.create(job(name))

    async def look(name: str) -> str:
        reply = (await client.get(name)).json()
        return str(reply["data"]["task_status"]) if reply["code"] == 0 else "gone"

    plain = [await look("plain") for _ in range(3)]
    oddly = [await look("odd") for _ in range(5)]
    timed = [await look("timed")]
    for seconds in (5, 6):
        server.service.clock.advance(seconds)
        timed.append(await look("timed"))

    assert plain == ["submitted", "processing", "succeeded"]
    assert oddly == ["succeed", "processing", "queued", "gone", "gone"]
    assert timed == ["submitted", "processing", "succeed"]
    assert server.service.tasks.weight == 0


async def test_failed_empty_and_odd_results(server: FaultServer, client: RawClient) -> None:
    """A task can fail with a reason, end without pictures, with too few, or with doubled indexes."""
    lives = {
        "bad": Life(polls=0, end="failed", reason="Image pixel is invalid"),
        "empty": Life(polls=0, images=0),
        "few": Life(polls=0, images=1),
        "double": Life(polls=0, indexes=(0, 0)),
    }
    server.change(lives=tuple(lives.items()))
    seen = {}
    for name in lives:
        await client.create(job(name, n=2))
        seen[name] = (await client.get(name)).json()["data"]

    indexes = {name: [each["index"] for each in seen[name]["task_result"].get("images", [])] for name in seen}
    assert (seen["bad"]["task_status"], seen["bad"]["task_status_msg"]) == (
        "failed",
        "Image pixel is invalid",
    )
    assert indexes == {"bad": [], "empty": [], "few": [0], "double": [0, 0]}


async def test_list_pages_can_shift_miss_and_repeat(server: FaultServer, client: RawClient) -> None:
    """The list's oddities show tasks twice, not at all, or on another page than expected."""
    for number in range(9):
        await client.create(job(f"job-{number}"))

    async def names(page: int, size: int) -> list[str]:
        data = (await client.list(page, size)).json()["data"]
        return [task["task_info"]["external_task_id"] for task in data]

    plain = await names(2, 3)
    server.change(listing=Listing(shift=1))
    shifted = await names(2, 3)
    server.change(listing=Listing(repeat=1.0, order="oldest"))
    repeated = await names(1, 2)
    server.change(listing=Listing(miss=1.0))
    missing = await names(1, 9)

    assert (plain, shifted) == (["job-5", "job-4", "job-3"], ["job-4", "job-3", "job-2"])
    assert (repeated, missing) == (["job-0", "job-0", "job-1", "job-1"], [])


async def test_pictures_and_packs_are_served(server: FaultServer, client: RawClient) -> None:
    """Result links lead to different PNGs and need no credentials; the packs name the slots."""
    server.change(life=Life(polls=0), slots=50)
    await client.create(job("job-1", n=2))
    images = (await client.get("job-1")).json()["data"]["task_result"]["images"]
    packs = (await client.ask("GET", "/account/costs?start_time=1&end_time=2")).json()["data"]
    client.authorization = None

    pictures = [(await client.ask("GET", image["url"].removeprefix(server.url))).body for image in images]

    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
    assert pictures[0] != pictures[1]
    assert (
        packs["resource_pack_subscribe_infos"][0]["resource_pack_name"]
        == "Trial-Image-1000Units-50Con-1Months"
    )
    assert server.books.oddities == []


async def test_credentials_at_the_result_host_are_noted(server: FaultServer, client: RawClient) -> None:
    """A client that shows its key to the result host leaves a note in the books."""
    await client.ask("GET", "/results/1/0.png")

    assert "credentials" in server.books.oddities[0]


async def test_pipelined_nonsense_does_not_stop_the_server(server: FaultServer, client: RawClient) -> None:
    """A request that is no HTTP is noted, and the next connection is served."""
    assert client.writer is not None
    client.writer.write(b"what is this\r\n\r\n")
    await client.receive()

    async with RawClient(server.url, server.service.gate.api_key) as other:
        reply = await other.get("nobody")

    assert reply.status == 400
    assert len(server.books.oddities) == 1


async def test_a_body_that_never_ends_is_not_accepted(server: FaultServer) -> None:
    """A client that goes away in the middle of its body has made no task."""
    async with RawClient(server.url, server.service.gate.api_key) as client:
        assert client.writer is not None
        client.writer.write(f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{{".encode())
        await client.writer.drain()
    await quiet(server)

    assert not server.books.log[0].complete
    assert server.books.accepted == {}


def test_long_strings_are_squeezed_whatever_the_pieces() -> None:
    """The squeezed body is the same for any cut of the stream, and knows clean base64 from dirty."""
    body = job("job-1", prompt='quo"te \\ back', scene_image="QUJD" * LONG, style_image="QUJ\n" * LONG)
    text = json.dumps(body).encode()
    values = []
    for size in (1009, 65_536, len(text)):
        squeezer = Squeezer()
        for at in range(0, len(text), size):
            squeezer.feed(text[at : at + size])
        values.append((squeezer.value(), squeezer.sha256, squeezer.length))

    assert values[0] == values[1] == values[2]
    assert values[0][0]["prompt"] == body["prompt"]
    assert ":clean:" in values[0][0]["scene_image"]
    assert ":dirty:" in values[0][0]["style_image"]
    assert values[0][2] == len(text)


def test_settings_from_another_process_are_checked() -> None:
    """A misspelt setting is an error and not a silent default."""
    with pytest.raises(ValueError, match="unkown"):
        Settings.from_json({"unkown": 1}, Settings())
