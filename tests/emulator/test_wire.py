"""The service's behaviour over real sockets: replies, books, slots, units, lists, links."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from emulator_kit import PATH, Caller, Opener, base64_text, body, picture, subjects

from kling_async.emulator import EmulatedAccount
from kling_async.emulator.pictures import BAD_PIXELS, BAD_RATIO, UNSUPPORTED

pytestmark = pytest.mark.anyio

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_a_create_is_answered_by_the_letter(emulate: Opener) -> None:
    """The reply to a create has the seed's keys and no others."""
    kling = await emulate()

    answer = await kling.create(external_task_id="a-1")

    assert answer.status == 200
    assert set(answer.json) == {"code", "message", "request_id", "data"}
    assert (answer.code, answer.message) == (0, "SUCCEED")
    assert UUID.fullmatch(answer.json["request_id"])
    assert set(answer.data) == {"task_id", "task_info", "task_status", "created_at", "updated_at"}
    assert re.fullmatch(r"\d{18}", answer.data["task_id"])
    assert answer.data["task_info"] == {"external_task_id": "a-1"}
    assert answer.data["task_status"] == "submitted"
    assert answer.data["created_at"] == answer.data["updated_at"] > 1_700_000_000_000


async def test_a_task_lives_through_its_statuses(emulate: Opener) -> None:
    """A task is submitted, processing, then succeed with n pictures, found by either id."""
    kling = await emulate(task_seconds=24.0)
    created = (await kling.create(external_task_id="a/1 é", n=2)).data

    at_once = (await kling.get(created["task_id"])).data
    await kling.emulator.advance(2)
    soon = (await kling.get(created["task_id"])).data
    await kling.emulator.advance(22)
    ended = (await kling.get("a%2F1%20%C3%A9")).data

    assert (at_once["task_status"], at_once["task_result"], at_once["task_status_msg"]) == (
        "submitted",
        {},
        "",
    )
    assert soon["task_status"] == "processing"
    assert "final_unit_deduction" not in soon
    assert ended["task_status"] == "succeed"
    assert ended["final_unit_deduction"] == "32"
    assert ended["updated_at"] - ended["created_at"] == 24_000
    assert [image["index"] for image in ended["task_result"]["images"]] == [0, 1]
    assert all(set(image) == {"index", "url"} for image in ended["task_result"]["images"])
    assert ended["watermark_info"] == {"enabled": False}


async def test_results_are_different_pictures_from_signed_links(emulate: Opener) -> None:
    """Each picture is another PNG of the asked ratio, needs no credentials, and only its own link opens it."""
    kling = await emulate()
    shown = await kling.finished(n=3, aspect_ratio="1:1", watermark_info={"enabled": True})
    images = shown["task_result"]["images"]

    answers = [await kling.ask("GET", image["url"], headers={}) for image in images]
    marked = await kling.ask("GET", images[0]["watermark_url"], headers={})
    forged = await kling.ask("GET", images[0]["url"].replace("/0.png", "/1.png"))
    unsigned = await kling.ask("GET", images[0]["url"].partition("?")[0])

    assert {answer.status for answer in (*answers, marked)} == {200}
    assert len({answer.body for answer in answers}) == 3
    assert answers[0].headers["Content-Type"] == "image/png"
    assert int(answers[0].headers["Content-Length"]) == len(answers[0].body)
    assert "Accept-Ranges" not in answers[0].headers
    assert b"kling-emulator" in answers[0].body
    assert (forged.status, unsigned.status) == (403, 403)


async def test_links_expire_and_a_read_renews_them(emulate: Opener) -> None:
    """A link dies after its life; asking the task again brings a fresh one, until the media are cleared after 30 days."""
    kling = await emulate(expire_after=60, task_seconds=1.0)
    task_id = (await kling.create()).data["task_id"]
    await kling.emulator.advance(1)

    async def link() -> str:
        return str((await kling.get(task_id)).data["task_result"]["images"][0]["url"])

    old = await link()
    await kling.emulator.advance(61)
    dead, fresh = await kling.ask("GET", old), await kling.ask("GET", await link())
    await kling.emulator.advance(30 * 86_400)
    cleared, listed = await kling.ask("GET", await link()), await kling.list()

    assert (dead.status, fresh.status, cleared.status) == (403, 200, 403)
    assert len(listed.data) == 1


async def test_no_other_names_are_pictures(emulate: Opener) -> None:
    """A rightly signed link to a picture that the task does not have is 404."""
    kling = await emulate()
    shown = await kling.finished()
    signer = kling.emulator._api.signer if kling.emulator._api else None
    assert signer is not None

    for name in ("1.png", "0-watermark.png", "x.png", "0.jpg"):
        url = signer._link(f"/results/{shown['task_id']}/{name}", 9_999_999_999)
        assert (await kling.ask("GET", url)).status == 404
    assert (await kling.ask("GET", signer._link("/results/123/0.png", 9_999_999_999))).status == 404
    assert "LinkSigner" in repr(signer)


async def test_unknown_and_foreign_tasks_are_not_found(emulate: Opener) -> None:
    """An unknown id, and another account's task, answer 400/1201 as seen live."""
    kling = await emulate(
        accounts=(EmulatedAccount(), EmulatedAccount(name="b", access_key="bb", api_key="key-b"))
    )
    created = await kling.create()
    other = {"Authorization": "Bearer key-b"}

    unknown = await kling.get("123")
    foreign = await kling.ask("GET", f"{PATH}/{created.data['task_id']}", headers=other)

    assert (unknown.status, unknown.code, unknown.message) == (
        400,
        1201,
        "Task not found by id/external id: 123",
    )
    assert set(unknown.json) == {"code", "message", "request_id"}
    assert (foreign.status, foreign.code) == (400, 1201)
    assert (await kling.ask("GET", PATH, headers=other)).data == []


async def test_the_documented_dialect_answers_404(emulate: Opener) -> None:
    """The other mocks' and the table's way: an unknown task is 404/1203."""
    kling = await emulate(dialect="documented")

    answer = await kling.get("123")

    assert (answer.status, answer.code) == (404, 1203)


async def test_an_external_id_is_taken_once(emulate: Opener) -> None:
    """A second create under the same external id is refused, also after the first has failed; an empty one is none."""
    kling = await emulate()

    first = await kling.create(external_task_id="a-1", prompt="[[risk]]")
    await kling.emulator.advance(100)
    second = await kling.create(external_task_id="a-1")
    nameless = [(await kling.create(external_task_id="")).status for _ in range(2)]

    assert (first.status, second.status, nameless) == (200, 400, [200, 200])
    assert (second.code, second.message) == (1201, "External_task_id a-1 already exists")
    assert kling.emulator.accepted("a-1") == 1
    assert kling.emulator.accepted("b") == 0


async def test_uniqueness_can_be_turned_off(emulate: Opener) -> None:
    """With unique_external_ids=False the same id makes a second task, and the books count both."""
    kling = await emulate(unique_external_ids=False)

    answers = [await kling.create(external_task_id="a-1") for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert kling.emulator.accepted("a-1") == 2
    assert (await kling.get("a-1")).data["task_id"] == answers[1].data["task_id"]


async def test_slots_are_weighted_by_n(emulate: Opener) -> None:
    """Nine slots hold tasks of nine images in all, for each model; one more is 429/1303 without data until one ends."""
    kling = await emulate(slots=9, task_seconds=24.0)

    full = [(await kling.create(n=n)).status for n in (4, 4)]
    over = await kling.create(n=2)
    fits, none = await kling.create(n=1), await kling.create(n=1)
    elsewhere = await kling.create(n=9, model_name="kling-v2")
    await kling.emulator.advance(24)
    again = await kling.create(n=9)

    assert full == [200, 200]
    assert over.status == 429
    assert {**over.json, "request_id": ""} == {
        "code": 1303,
        "message": "parallel task over resource pack limit",
        "request_id": "",
    }
    assert (fits.status, none.status, elsewhere.status, again.status) == (200, 429, 200, 200)
    assert kling.emulator.peak_slots == 9
    assert kling.emulator.slot_seconds == pytest.approx(18 * 24)


async def test_failing_tasks_give_their_slots_back(emulate: Opener) -> None:
    """A failed task holds its slots to its end, costs nothing, and frees them."""
    kling = await emulate(slots=2)

    shown = await kling.finished(n=2, prompt="[[risk]] a fight")

    assert shown["task_status"] == "failed"
    assert shown["task_status_msg"] == "Failure to pass the risk control system"
    assert (shown["final_unit_deduction"], shown["task_result"]) == ("0", {})
    assert (await kling.create(n=2)).status == 200


async def test_foreign_tasks_hold_slots(emulate: Opener) -> None:
    """Slots of other programs are missing, as many as a number or a function of time says."""
    fixed = await emulate(slots=3, foreign_load=2)
    busy_until = [float("inf")]
    passing = await emulate(slots=3, foreign_load=lambda now: 3 if now < busy_until[0] else 0)
    busy_until[0] = passing.emulator._clock.now() + 10

    first, second = await fixed.create(), await fixed.create()
    early = await passing.create()
    await passing.emulator.advance(11)
    late = await passing.create(n=3)

    assert [each.status for each in (first, second, early, late)] == [200, 429, 429, 200]


async def test_units_are_taken_at_the_end_and_run_out(emulate: Opener) -> None:
    """Sixteen a picture, taken at success and set aside before; without enough 429/1102."""
    kling = await emulate(units=40)
    period = "/account/costs?start_time=0&end_time=1"

    await kling.create(n=2)
    reserved, before = await kling.create(), await kling.ask("GET", period)
    await kling.emulator.advance(100)
    empty, after = await kling.create(), await kling.ask("GET", period)

    assert (reserved.status, reserved.code, reserved.message) == (429, 1102, "Account balance not enough")
    assert empty.code == 1102
    assert [
        each.data["resource_pack_subscribe_infos"][0]["remaining_quantity"] for each in (before, after)
    ] == [40.0, 8.0]


async def test_costs_have_an_envelope_in_the_envelope(emulate: Opener) -> None:
    """Packs are listed with the slots in their name; the period is required, the name filters exactly."""
    kling = await emulate(units=1000)
    name = "Emulated-Image-1000Units-9Con-1Months"

    answer = await kling.ask("GET", f"/account/costs?start_time=1&end_time=2&resource_pack_name={name}")
    other = await kling.ask("GET", "/account/costs?start_time=1&end_time=2&resource_pack_name=x")
    bad = [
        await kling.ask("GET", "/account/costs" + query)
        for query in ("", "?start_time=1", "?start_time=a&end_time=2", "?start_time=3&end_time=2")
    ]

    assert (answer.code, answer.data["code"], answer.data["msg"]) == (0, 0, "success")
    pack = answer.data["resource_pack_subscribe_infos"][0]
    assert (pack["resource_pack_name"], pack["status"], pack["resource_pack_type"]) == (
        name,
        "online",
        "decreasing_total",
    )
    assert other.data["resource_pack_subscribe_infos"] == []
    assert {each.code for each in bad} == {1201}


async def test_an_account_in_trouble_is_refused(emulate: Opener) -> None:
    """The standing of an account is the answer to each of its creates, not to its reads."""
    kling = await emulate(accounts=(EmulatedAccount(standing=1101),))

    create, read = await kling.create(), await kling.list()

    assert (create.status, create.code, read.status) == (429, 1101, 200)


@pytest.mark.parametrize(
    ("path", "method"), [(PATH, "POST"), (PATH, "GET"), (f"{PATH}/1", "GET"), ("/account/costs", "GET")]
)
async def test_every_route_wants_credentials(emulate: Opener, path: str, method: str) -> None:
    """No route answers without an Authorization header."""
    kling = await emulate()

    answer = await kling.ask(method, path, headers={})

    assert (answer.status, answer.code) == (401, 1001)


async def test_tokens_are_judged_by_the_services_own_clock(emulate: Opener) -> None:
    """A clock ten minutes ahead shows in Date and refuses tokens that are good here; one behind likewise."""
    kling = await emulate()
    here = int(kling.emulator._clock.wall())
    claims = {"iss": kling.emulator.access_key, "exp": here + 300, "nbf": here - 5}
    headers = {"Authorization": "Bearer " + jwt.encode(claims, kling.emulator.secret_key, "HS256")}

    codes, ahead = [], 0.0
    for skew in (0, 600, -600):
        kling.emulator.clock_skew = skew
        answer = await kling.ask("GET", PATH, headers=headers)
        codes.append(answer.code)
        if skew == 600:
            ahead = parsedate_to_datetime(answer.headers["Date"]).timestamp() - here

    assert codes == [0, 1004, 1003]
    assert 598 <= ahead <= 605
    assert kling.emulator.clock_skew == -600


async def test_lists_page_newest_first(emulate: Opener) -> None:
    """A bare array, newest first, thirty a page by default, the last one short, beyond it nothing."""
    kling = await emulate(slots=99)
    made = [(await kling.create()).data["task_id"] for _ in range(35)]

    def ids(answer: Any) -> list[str]:
        return [row["task_id"] for row in answer.data]

    assert ids(await kling.list()) == made[:4:-1]
    assert ids(await kling.list("?pageNum=2")) == made[4::-1]
    assert ids(await kling.list("?pageNum=3&pageSize=30")) == []
    assert ids(await kling.list("?pageNum=2&pageSize=10")) == made[24:14:-1]
    assert len(ids(await kling.list("?pageSize=500"))) == 35


async def test_lists_come_in_other_orders(emulate: Opener) -> None:
    """Oldest first, or shuffled: the same tasks, each once over all pages."""
    oldest, shuffled = (
        await emulate(list_order="oldest", slots=99),
        await emulate(list_order="shuffled", slots=99),
    )
    in_order = [(await oldest.create()).data["task_id"] for _ in range(12)]
    mixed = [(await shuffled.create()).data["task_id"] for _ in range(12)]

    first = [row["task_id"] for row in (await oldest.list()).data]
    second = [
        row["task_id"] for page in (1, 2) for row in (await shuffled.list(f"?pageSize=6&pageNum={page}")).data
    ]

    assert first == in_order
    assert sorted(second) == mixed
    assert second not in (mixed, mixed[::-1])


@pytest.mark.parametrize(
    "query",
    [
        "pageNum=0",
        "pageNum=1001",
        "pageSize=0",
        "pageSize=501",
        "pageNum=x",
        "pageSize=",
        "pageNum=1.0",
        "pageNum=²",
    ],
)
async def test_pages_out_of_range_are_refused(emulate: Opener, query: str) -> None:
    """Page numbers and sizes outside the seed's ranges are 1201."""
    kling = await emulate()

    assert (await kling.list("?" + query)).code == 1201


async def test_other_methods_and_paths_are_not_found(emulate: Opener) -> None:
    """A known path with another method is 404/1202, an unknown path 404/1203."""
    kling = await emulate()

    answers = [
        await kling.ask(*each)
        for each in (("DELETE", PATH), ("PUT", f"{PATH}/1"), ("GET", "/v1/videos"), ("POST", "/"))
    ]

    assert [(each.status, each.code) for each in answers] == [
        (404, 1202),
        (404, 1202),
        (404, 1203),
        (404, 1203),
    ]


async def test_a_create_must_be_json(emulate: Opener) -> None:
    """Another content type, no JSON, no object, or a body over the limit: each is refused in the service's form."""
    kling = await emulate(max_body=50_000)
    auth = {"Authorization": f"Bearer {kling.emulator.api_key}"}
    typed = {**auth, "Content-Type": "application/json"}

    plain = await kling.ask("POST", PATH, data=json.dumps(body()), headers=auth)
    broken = await kling.ask("POST", PATH, data=b"{", headers=typed)
    listed = await kling.ask("POST", PATH, json=[1])
    long = await kling.ask("POST", PATH, data=b" " * 60_000, headers=typed)

    assert [(each.status, each.code) for each in (plain, broken, listed, long)] == [
        (400, 1200), (400, 1200), (400, 1200), (413, 1200)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (picture(), ""),
        (picture(640, 320, "JPEG", progressive=True), ""),
        (picture(299, 320), BAD_PIXELS),
        (picture(300, 780), BAD_RATIO),
        (picture(kind="GIF"), UNSUPPORTED),
        (picture()[:400], UNSUPPORTED),
    ],
)
async def test_unfit_pictures_fail_as_tasks(emulate: Opener, data: bytes, reason: str) -> None:
    """Pictures are decoded for real; what is unfit passes the create and fails within two seconds, as observed."""
    kling = await emulate(paint="composite", megapixels=0.02)

    created = await kling.create(
        subject_image_list=subjects(base64_text(data)), style_image=base64_text(data)
    )
    await kling.emulator.advance(1.65 if reason else 100)
    shown = (await kling.get(created.data["task_id"])).data

    assert created.status == 200
    assert (shown["task_status"], shown["task_status_msg"]) == ("failed" if reason else "succeed", reason)


@pytest.mark.parametrize("text", ["data:image/png;base64,aGVsbG8=", "aGVs\nbG8=", "file:///etc/passwd"])
async def test_text_that_is_no_base64_is_refused_at_create(emulate: Opener, text: str) -> None:
    """The message that was seen live, and no task."""
    kling = await emulate()

    answer = await kling.create(subject_image_list=subjects(text))

    assert (answer.status, answer.code, answer.message) == (400, 1201, "File is not in a valid base64 format")
    assert kling.emulator.tasks == []


async def test_ten_megabytes_are_the_limit_and_do_not_stop_the_loop(emulate: Opener) -> None:
    """A picture of just 10 MB passes, a byte more is refused at create, and meanwhile others are answered."""
    kling = await emulate()
    fits = picture() + bytes(10 * 1024 * 1024 - len(picture()))
    bodies = [json.dumps(body(scene_image=base64_text(data))).encode() for data in (fits, fits + b"\0")]
    headers = {"Authorization": f"Bearer {kling.emulator.api_key}", "Content-Type": "application/json"}

    creating = asyncio.gather(
        *[kling.ask("POST", PATH, data=_stream(each), headers=headers) for each in bodies]
    )
    others = 0
    while not creating.done():
        others += (await kling.list()).status == 200
    accepted, refused = await creating

    assert (accepted.status, refused.status, refused.code) == (200, 400, 1201)
    assert "10MB" in refused.message
    assert others > 5


async def _stream(data: bytes) -> Any:
    for at in range(0, len(data), 1 << 18):
        yield data[at : at + (1 << 18)]


async def test_urls_are_fetched_from_this_machine_only(emulate: Opener) -> None:
    """A local picture is fetched and judged, a missing one fails the task; an address elsewhere is never asked."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        replies = {
            "/good.png": picture(),
            "/small.png": picture(200, 200),
            "/huge.png": bytes(11 * 1024 * 1024),
        }
        return (
            web.Response(body=replies[request.path]) if request.path in replies else web.Response(status=302)
        )

    runner = web.AppRunner(_app(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    local = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kling = await emulate()

    names = ("good", "small", "missing", "huge")
    reasons = [(await kling.finished(scene_image=f"{local}/{name}.png"))["task_status_msg"] for name in names]
    reasons.append((await kling.finished(scene_image="http://127.0.0.1:1/none.png"))["task_status_msg"])
    elsewhere = [
        await kling.finished(scene_image=each) for each in ("https://kling.example/a.png", "http://[bad/")
    ]
    await runner.cleanup()

    assert reasons == ["", BAD_PIXELS, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED]
    assert asked == ["/good.png", "/small.png", "/missing.png", "/huge.png"]
    assert {each["task_status"] for each in elsewhere} == {"succeed"}


def _app(answer: Any) -> web.Application:
    app = web.Application()
    app.router.add_get("/{name}", answer)
    return app


@pytest.mark.parametrize(
    ("prompt", "status", "message", "images"),
    [
        ("[[empty]]", "succeed", "", 0),
        ("[[fail: the hat]]", "failed", "the hat", None),
        ("[[stuck]]", "processing", "", None),
    ],
)
async def test_markers_steer_a_task(
    emulate: Opener, prompt: str, status: str, message: str, images: int | None
) -> None:
    """A marker in the prompt makes the task empty, failed, or endless."""
    kling = await emulate()

    shown = await kling.finished(prompt=prompt)

    assert (shown["task_status"], shown["task_status_msg"]) == (status, message)
    assert (None if images is None else len(shown["task_result"]["images"])) == images


async def test_a_refused_prompt_makes_no_task(emulate: Opener) -> None:
    """The content marker is 400/1301, free of charge."""
    kling = await emulate()

    answer = await kling.create(prompt="[[refuse]]")

    assert (answer.status, answer.code, kling.emulator.tasks) == (400, 1301, [])


async def test_durations_are_seeded(emulate: Opener) -> None:
    """Durations scatter around 24 s, the same for the same seed, and can be a function."""

    async def durations(**options: Any) -> list[int]:
        kling = await emulate(slots=999, **options)
        for _ in range(99):
            await kling.create()
        await kling.emulator.advance(9999)
        return [task.updated_at - task.created_at for task in kling.emulator.tasks]

    usual = await durations(seed=7)

    assert usual == await durations(seed=7) != await durations(seed=8)
    assert 20_000 < sorted(usual)[49] < 28_000
    assert set(await durations(task_seconds=lambda dice: 5.0 if dice.random() < 0.5 else -1.0)) == {5000, 0}


async def test_instant_tasks_have_ended_when_they_are_read(emulate: Opener) -> None:
    """In instant mode the first read after a create shows the result."""
    kling = await emulate(speed="instant")

    created = await kling.create()
    shown = await kling.get(created.data["task_id"])

    assert (created.data["task_status"], shown.data["task_status"]) == ("submitted", "succeed")


async def test_speeded_tasks_end_by_themselves(emulate: Opener) -> None:
    """At 500 times the speed a task of five emulated seconds ends within real ones, without a leap."""
    kling = await emulate(speed=500, task_seconds=5.0)
    created = (await kling.create()).data

    async with asyncio.timeout(30):
        while (shown := (await kling.get(created["task_id"])).data)["task_status"] != "succeed":
            pass

    assert shown["updated_at"] - shown["created_at"] == pytest.approx(10, abs=2)


async def test_the_log_tells_all_and_no_secret(emulate: Opener) -> None:
    """Each request leaves a line with what it was and became, without bodies, tokens or keys."""
    kling = await emulate(slots=1)
    await kling.create(external_task_id="a-1", prompt="my prompt")
    await kling.create(external_task_id="a-2")
    await kling.get("a-1")
    await kling.ask("GET", "/nowhere?token=abc", headers={})

    requests = kling.emulator.requests
    told = [(each.method, each.route, each.status, each.code, each.external_task_id) for each in requests]

    assert told == [
        ("POST", "create", 200, 0, "a-1"),
        ("POST", "create", 429, 1303, "a-2"),
        ("GET", "get", 200, 0, "a-1"),
        ("GET", "other", 404, 1203, ""),
    ]
    assert requests[0].task_id == kling.emulator.tasks[0].task_id
    for secret in ("my prompt", kling.emulator.api_key, kling.emulator.secret_key, "abc"):
        assert secret not in repr(requests)
        assert secret not in repr(kling.emulator)


async def test_the_books_tell_each_task(emulate: Opener) -> None:
    """The books have one row for each accepted task with its weight, account, units and times."""
    kling = await emulate()
    await kling.finished(n=2, external_task_id="a-1")

    (task,) = kling.emulator.tasks

    assert (task.external_task_id, task.account, task.n, task.units, task.status) == (
        "a-1",
        "default",
        2,
        32,
        "succeed",
    )
    assert task.created_at < task.updated_at


async def test_reset_forgets(emulate: Opener) -> None:
    """After a reset there are no tasks, no requests, full units and free slots, at the same address."""
    kling = await emulate(slots=1, units=16, faults="1303:x1")
    assert [(await kling.create(external_task_id="a")).code for _ in range(2)] == [1303, 0]

    await kling.emulator.reset()

    assert (kling.emulator.tasks, kling.emulator.requests, kling.emulator.peak_slots) == ([], [], 0)
    assert [(await kling.create(external_task_id="a")).code for _ in range(2)] == [1303, 0]


async def test_the_seeds_own_body_is_accepted(emulate: Opener) -> None:
    """The vendor's example, letter for letter, makes a task of two upright pictures."""
    kling = await emulate(paint="composite", megapixels=0.03)
    sample = json.loads(Path(__file__).with_name("seed_example.json").read_text(encoding="utf-8"))

    created = await kling.ask("POST", PATH, json=sample)
    await kling.emulator.advance(100)
    images = (await kling.get(created.data["task_id"])).data["task_result"]["images"]
    painted = [await kling.ask("GET", image["url"]) for image in images]

    assert [answer.status for answer in painted] == [200, 200]
    assert painted[0].body != painted[1].body


async def test_base64_and_bytes_agree(emulate: Opener) -> None:
    """The same picture in two orders is read once and kept as one small copy."""
    kling = await emulate(paint="composite", megapixels=0.02)
    text = base64.b64encode(picture(900, 900)).decode()

    for _ in range(2):
        await kling.finished(subject_image_list=subjects(text, text))

    assert kling.emulator._api is not None
    assert repr(kling.emulator._api.reader) == "<Reader with 1 pictures>"


async def test_memory_is_bounded(emulate: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last few pictures that came in and went out are kept; older ones are read or painted again alike."""
    monkeypatch.setattr("kling_async.emulator.pictures._REMEMBERED", 2)
    monkeypatch.setattr("kling_async.emulator.results._KEPT_PICTURES", 2)
    kling = await emulate()
    assert kling.emulator._api is not None

    shown = await kling.finished(
        n=3, subject_image_list=subjects(*[base64_text(picture(300 + n)) for n in range(4)])
    )
    urls = [image["url"] for image in shown["task_result"]["images"]]
    first = [(await kling.ask("GET", url)).body for url in urls]
    again = [(await kling.ask("GET", url)).body for url in urls]

    assert first == again
    assert repr(kling.emulator._api.reader) == "<Reader with 2 pictures>"
    assert repr(kling.emulator._api.gallery) == "<Gallery, stamp, 2 pictures kept>"


async def test_many_callers_at_once_never_pass_the_slots(emulate: Opener) -> None:
    """However many creates arrive together, no more are accepted than there are slots."""
    kling: Caller = await emulate(slots=5)

    answers = await asyncio.gather(*[kling.create(n=2) for _ in range(40)])

    assert sorted(answer.status for answer in answers) == [200] * 2 + [429] * 38
    assert kling.emulator.peak_slots == 4
