"""Every fault on real sockets: what the client meets, and what the books say."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from emulator_kit import PATH, Caller, Opener, body

from kling_async.emulator import Fault, Faults
from kling_async.emulator.faults import ACTIONS
from kling_async.emulator.mischief import _TRICKS

pytestmark = pytest.mark.anyio

CUT = aiohttp.ClientPayloadError
RESET = aiohttp.ClientOSError
GONE = aiohttp.ServerDisconnectedError


async def outcome(kling: Caller, method: str = "POST", path: str = PATH) -> str:
    """Return what a plain client sees: a status with the code, or the name of its error."""
    options = {"json": body(external_task_id="a-1")} if method == "POST" else {}
    try:
        answer = await kling.ask(method, path, timeout=aiohttp.ClientTimeout(total=5), **options)
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    try:
        return f"{answer.status} {answer.json.get('code')}{'' if 'data' in answer.json else ' bare'}"
    except ValueError:
        return f"{answer.status} {answer.body[:5].decode(errors='replace')!r}"


@pytest.mark.parametrize(
    ("spec", "seen", "accepted"),
    [
        ("1303", "429 1303 bare", 0),
        ("5002", "504 5002 bare", 0),
        ("5002-but-created", "504 5002 bare", 1),
        ("reset-before-reading", "ClientOSError", 0),
        ("drop-before-accept", "ClientOSError", 0),
        ("drop-after-accept", "ClientOSError", 1),
        ("close", "ServerDisconnectedError", 0),
        ("fin-after-accept", "ServerDisconnectedError", 1),
        ("hang=0.05", "ServerDisconnectedError", 0),
        ("hang-after-accept=0.05", "ServerDisconnectedError", 1),
        ("html-502", "502 '<html'", 0),
        ("html-502-but-created", "502 '<html'", 1),
        ("truncate", "ClientPayloadError", 1),
        ("bad-json", "200 '{\"cod'", 1),
        ("empty-body", "200 ''", 1),
        ("no-data", "200 0 bare", 1),
        ("slow-body=0.05", "200 0", 1),
        ("slow-body=0", "200 0", 1),
        ("delay=0.05", "200 0", 1),
    ],
)
async def test_a_create_meets_a_fault_and_the_next_one_none(
    emulate: Opener, spec: str, seen: str, accepted: int
) -> None:
    """The client sees the fault, the books say whether a task was made, and the same create again is as it should be."""
    kling = await emulate(faults=f"{spec}:x1")

    first = await outcome(kling)
    made = kling.emulator.accepted("a-1")
    second = await outcome(kling)

    assert (first, made) == (seen, accepted)
    assert second == ("400 1201 bare" if accepted else "200 0")
    assert kling.emulator.fault_hits == [1]
    assert kling.emulator.requests[0].fault == Faults.parse(spec).rows[0].action
    assert kling.emulator.requests[0].status == (
        0 if "Error" in seen and spec != "truncate" else int(seen[:3]) if seen[0].isdigit() else 200
    )


@pytest.mark.parametrize("route", ["get", "list", "costs"])
async def test_reads_meet_faults_too(emulate: Opener, route: str) -> None:
    """The faults of a create can be put on the other routes of the API."""
    kling = await emulate()
    await outcome(kling)
    path = {"get": f"{PATH}/a-1", "list": PATH, "costs": "/account/costs?start_time=0&end_time=1"}[route]

    seen = []
    for spec in ("5000", "html-502", "bad-json", "close"):
        # aiohttp repeats a GET on a closed connection by itself, so that fault must last.
        kling.emulator.faults = Faults.parse(f"{spec}@{route}")
        seen.append(await outcome(kling, "GET", path))

    assert seen == ["500 5000 bare", "502 '<html'", "200 '{\"cod'", "ServerDisconnectedError"]


async def test_a_hanging_request_ends_with_its_client_or_the_emulator(emulate: Opener) -> None:
    """Without a limit a request hangs until its client leaves; what hangs does not keep the emulator from closing."""
    kling = await emulate(faults="hang@*")

    with pytest.raises(TimeoutError):
        await kling.ask("GET", PATH, timeout=aiohttp.ClientTimeout(total=0.05))
    hanging = asyncio.ensure_future(outcome(kling, "GET"))
    # Another connection's answer comes after the hanging request has arrived.
    assert (await kling.ask("GET", "/_emulator/requests")).status == 200
    async with asyncio.timeout(30):
        await kling.emulator.__aexit__(None, None, None)
        assert await hanging in {"ServerDisconnectedError", "ClientConnectorError"}


async def test_a_refusal_carries_what_its_fault_says(emulate: Opener) -> None:
    """Message and Retry-After of a refusal can be chosen; without, the message is the table's."""
    fault = Fault(action="refuse", code=1302, message="slow down", retry_after="3", times=1)
    kling = await emulate(faults=[fault, Fault(action="refuse", code=1100)])

    chosen, usual = await kling.create(), await kling.create()

    assert (chosen.message, chosen.headers["Retry-After"]) == ("slow down", "3")
    assert usual.message == "Abnormal account status"
    assert "Retry-After" not in usual.headers


async def test_a_fault_can_pick_its_task(emulate: Opener) -> None:
    """A pattern of external ids chooses whom a fault strikes."""
    kling = await emulate(faults=[Fault(action="refuse", code=1301, match_external_id="demo-*5")])

    codes = [(await kling.create(external_task_id=f"demo-{number}")).code for number in (4, 5, 15)]

    assert codes == [0, 1301, 1301]


async def test_after_faults_spare_refused_creates(emulate: Opener) -> None:
    """`5002-but-created` waits for a create that is really accepted."""
    kling = await emulate(slots=1, faults="5002-but-created:x1")
    await kling.create(n=2)

    answer = await kling.create(external_task_id="a-1")

    assert (answer.code, kling.emulator.accepted("a-1")) == (5002, 1)


async def test_tasks_can_be_made_to_fail_stick_and_lag(emulate: Opener) -> None:
    """Faults on a task: it fails with their text, never ends, takes longer, or cannot be found at first."""
    faults = [
        Fault(action="fail-task", message="no luck", match_external_id="f"),
        Fault(action="fail-task", match_external_id="g"),
        Fault(action="stuck-task", match_external_id="s"),
        Fault(action="slow-task", seconds=500, match_external_id="l"),
        Fault(action="lookup-lag", seconds=10, match_external_id="h"),
        Fault(action="lookup-lag", match_external_id="i"),
    ]
    kling = await emulate(faults=faults, task_seconds=5.0)
    for name in "fgslhi":
        await kling.create(external_task_id=name)

    hidden = [(await kling.get(name)).code for name in "hi"]
    rows = len((await kling.list()).data)
    await kling.emulator.advance(100)
    shown = {name: (await kling.get(name)).data for name in "fgslhi"}

    assert (hidden, rows) == ([1201, 1201], 4)
    assert shown["f"]["task_status_msg"] == "no luck"
    assert [shown[name]["task_status"] for name in "fgslhi"] == [
        "failed",
        "failed",
        "processing",
        "processing",
        "succeed",
        "succeed",
    ]
    await kling.emulator.advance(500)
    assert (await kling.get("l")).data["task_status"] == "succeed"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("missing-rows", [0, 2, 3, 5]),
        ("duplicated-rows", [0, 0, 1, 2, 3, 3]),
        ("shifted-rows", [1, 2, 3, 4, 5, 6]),
    ],
)
async def test_lists_can_lie(emulate: Opener, action: str, expected: list[int]) -> None:
    """A page misses rows, repeats them, or begins one row late."""
    kling = await emulate(faults=f"{action}:x1", slots=99)
    made = [(await kling.create()).data["task_id"] for _ in range(8)][::-1]

    lying = [made.index(row["task_id"]) for row in (await kling.list("?pageSize=6")).data]
    honest = [made.index(row["task_id"]) for row in (await kling.list("?pageSize=6")).data]

    assert (lying, honest) == (expected, [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("action", "status", "images"),
    [
        ("backwards", "processing", None),
        ("unknown-status", "queued", None),
        ("empty-images", "succeed", 0),
        ("fewer-images", "succeed", 1),
    ],
)
@pytest.mark.parametrize("route", ["get", "list"])
async def test_ended_tasks_can_show_another_state(
    emulate: Opener, route: str, action: str, status: str, images: int | None
) -> None:
    """An ended task goes back, is in a state nobody knows, or lacks pictures; once, then it is itself."""
    kling = await emulate(faults=f"{action}@{route}:x1")
    await kling.create(external_task_id="a", n=2)
    live = (await kling.get("a")).data["task_status"]
    await kling.emulator.advance(100)

    strange, honest = [
        (await kling.list()).data[0] if route == "list" else (await kling.get("a")).data for _ in range(2)
    ]

    found = strange["task_result"].get("images")
    assert live == "submitted"
    assert (strange["task_status"], None if found is None else len(found)) == (status, images)
    assert (honest["task_status"], len(honest["task_result"]["images"])) == ("succeed", 2)


async def test_a_failed_task_has_no_pictures_to_lose(emulate: Opener) -> None:
    """Picture faults leave a failed task as it is."""
    kling = await emulate(faults="empty-images")

    shown = await kling.finished(prompt="[[risk]]")

    assert (shown["task_status"], shown["task_result"]) == ("failed", {})


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("expired-link", "403"),
        ("short-picture", "ClientPayloadError"),
        ("cut-picture", "200 half"),
        ("html-picture", "200 html"),
        ("truncate@result", "ClientPayloadError"),
        ("html-502@result", "502"),
        ("reset@result", "ClientOSError"),
        ("reset-before-reading@result", "ClientOSError"),
        ("slow-body@result=0.02", "200"),
        ("delay@result=0.02", "200"),
    ],
)
async def test_downloads_meet_faults(emulate: Opener, spec: str, seen: str) -> None:
    """The result host fails in its own ways, and then serves the whole picture."""
    kling = await emulate()
    url = (await kling.finished())["task_result"]["images"][0]["url"]
    whole = (await kling.ask("GET", url)).body
    # A reset connection is opened again by aiohttp for a GET, so two strikes make sure that one is seen.
    kling.emulator.faults = (
        Faults.parse(f"{spec}:x2") if seen == "ClientOSError" else Faults.parse(f"{spec}:x1")
    )

    try:
        answer = await kling.ask("GET", url)
        short, page = answer.body == whole[: len(whole) // 2], answer.headers["Content-Type"] == "text/html"
        met = (
            f"{answer.status} half"
            if short
            else f"{answer.status} html"
            if page and answer.status == 200
            else str(answer.status)
        )
    except aiohttp.ClientError as error:
        met = type(error).__name__

    assert met == seen
    kling.emulator.faults = Faults()
    assert (await kling.ask("GET", url)).body == whole


async def test_dead_links_meet_no_fault(emulate: Opener) -> None:
    """A 403 stays a 403: faults that spoil an answer wait for a picture."""
    kling = await emulate(faults="truncate@result:x1")
    url = (await kling.finished())["task_result"]["images"][0]["url"]

    assert (await kling.ask("GET", url + "0")).status == 403
    assert kling.emulator.fault_hits == [0]


def test_every_socket_fault_has_a_trick() -> None:
    """No action of the table is without what it does: on the socket, in the task, in the rows or in the callbacks."""
    on_the_socket = {
        name for name, action in ACTIONS.items() if action.phase in {"early", "before", "after", "picture"}
    }

    assert on_the_socket - set(_TRICKS) == {"refuse", "refuse-after-accept", "expired-link"}
    assert set(_TRICKS) <= on_the_socket


async def test_faults_can_be_seen_and_set_from_outside(emulate: Opener) -> None:
    """GET and POST of /_emulator/faults show the faults with their hits and put others in force."""
    kling = await emulate(faults="1303:x1")
    await kling.create()

    before = (await kling.ask("GET", "/_emulator/faults")).json
    chaos = await kling.ask("POST", "/_emulator/faults", json={"chaos": "5000@get:x1"})
    rows = await kling.ask("POST", "/_emulator/faults", json={"faults": [{"action": "refuse", "code": 1301}]})
    bad = [
        await kling.ask("POST", "/_emulator/faults", data=each)
        for each in (b'{"chaos": "x"}', b'{"faults": [{}]}', b"{}", b"[]", b"{")
    ]

    assert before == {"faults": [{"action": "refuse", "code": 1303, "times": 1, "hits": 1}]}
    assert chaos.json == {"faults": [{"action": "refuse", "route": "get", "code": 5000, "times": 1}]}
    assert (rows.status, (await kling.create()).code) == (200, 1301)
    assert [each.status for each in bad] == [400] * 5
    assert all("expected" in each.json["error"] for each in bad)


async def test_the_pages_show_the_books(emulate: Opener) -> None:
    """The home page and the JSON pages tell tasks, requests, callbacks; levers reset and move time; no secret shows."""
    kling = await emulate(faults="delay@get=0:x1")
    assert b"Last tasks" not in (await kling.ask("GET", "/")).body
    await kling.create(external_task_id="<b>a-1</b>")
    advanced = await kling.ask("POST", "/_emulator/advance", json={"seconds": 100})
    refused = [
        await kling.ask("POST", "/_emulator/advance", data=json.dumps({"seconds": each}))
        for each in (-1, "1", True, None)
    ]
    home, tasks = await kling.ask("GET", "/"), (await kling.ask("GET", "/_emulator/tasks")).json
    requests, callbacks = (
        await kling.ask("GET", "/_emulator/requests"),
        await kling.ask("GET", "/_emulator/callbacks"),
    )
    reset = await kling.ask("POST", "/_emulator/reset")

    text = home.body.decode()
    assert advanced.json == {"advanced": 100}
    assert [each.status for each in refused] == [400] * 4
    assert "EMULATED" in text
    assert "&lt;b&gt;a-1" in text
    assert "<b>a-1" not in text
    assert kling.emulator.secret_key not in text
    assert (tasks["tasks"][0]["status"], tasks["peak_slots"]) == ("succeed", 1)
    assert (requests.json["requests"][0]["code"], callbacks.json) == (0, {"callbacks": []})
    assert (reset.json, kling.emulator.tasks) == ({"reset": True}, [])
