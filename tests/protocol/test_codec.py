"""Replies as values: real ones, broken ones, and any at all."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.codec import Reply, bind, glimpse, read_envelope, read_task, read_tasks
from kling_async.protocol.pages import read_glances
from kling_async.protocol.polling import Glance
from kling_async.protocol.scalars import code_of, number, text
from kling_async.protocol.tasks import Task, TaskStatus

Sample = Callable[..., Reply]


def reply(body: object, status: int = 200, **headers: str) -> Reply:
    """Make a reply of *body*: bytes as they are, anything else as JSON."""
    return Reply(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


def task_in(answer: Reply) -> Task:
    envelope = read_envelope(answer)
    return read_task(envelope.data, request_id=envelope.request_id)


# Real replies.


def test_the_seeds_create_reply(sample: Sample) -> None:
    """The create reply of the vendor's page, as it stands there, is a task."""
    task = task_in(sample("seed_create"))

    assert (task.task_id, task.external_task_id, task.request_id) == ("string", "string", "string")
    assert (task.status, task.status.value) == (TaskStatus.UNKNOWN, "string")
    assert task.created_at == task.updated_at == datetime(2024, 8, 4, 11, 5, 57, 708_000, tzinfo=UTC)
    assert (task.images, task.units, task.status_message) == ((), None, "")


def test_the_seeds_single_reply(sample: Sample) -> None:
    """The single query's reply of the vendor's page has its picture; "string" is no number of units."""
    task = task_in(sample("seed_single"))

    assert [(image.index, image.url, image.watermark_url) for image in task.images] == [
        (0, "string", "string")
    ]
    assert (task.units, task.status_message) == (None, "string")
    assert task.raw["watermark_info"] == {"enabled": True}


def test_the_seeds_list_reply(sample: Sample) -> None:
    """The list's reply of the vendor's page is a bare array of the same tasks."""
    envelope = read_envelope(sample("seed_list"))

    (task,) = read_tasks(envelope.data, request_id=envelope.request_id)
    glances, ended = read_glances(envelope.data)

    assert task == task_in(sample("seed_single"))
    assert glances == [Glance("string", ended=False, status="string")]
    assert ended == {}


def test_a_failed_task_says_succeed(sample: Sample) -> None:
    """`message` is SUCCEED for a failed task; the reason is its own, and objects are {} (facts 9.2)."""
    task = task_in(sample("failed_task"))

    assert task.status is TaskStatus.FAILED
    assert task.status_message == "Image pixel is invalid"
    assert (task.images, task.external_task_id) == ((), "")
    with pytest.raises(errors.TaskFailed, match="Image pixel is invalid"):
        task.unwrap()


def test_a_sweep_learns_how_long_an_ended_task_took(sample: Sample) -> None:
    """A page of the list gives ended tasks with their seconds and the entries to read them from."""
    failed = json.loads(sample("failed_task").body)["data"]
    gateway = json.loads(sample("gateway").body)["data"]

    glances, ended = read_glances([failed, gateway])

    assert glances == [
        Glance("815335657866002502", ended=True, seconds=1.65),
        Glance("866361099762425934", ended=True, seconds=1.65),
    ]
    assert list(ended.values()) == [failed, gateway]


def test_no_free_slot_has_no_data(sample: Sample) -> None:
    """The body of 1303 has no `data` key at all, and `Retry-After` is passed on if there is one."""
    with pytest.raises(errors.NoFreeSlot) as caught:
        read_envelope(sample("no_free_slot", 429, retry_after="3"))

    assert caught.value.message == "parallel task over resource pack limit"
    assert (caught.value.code, caught.value.http_status, caught.value.retry_after) == (1303, 429, 3.0)
    assert caught.value.request_id == "2c5ba3a9-6a4a-4c1c-9d34-3d5a0b6b8f55"


@pytest.mark.parametrize(
    ("case", "status", "kind"),
    [
        ("out_of_units", 429, errors.OutOfUnits),
        ("task_not_found", 400, errors.TaskNotFound),
        ("task_not_found", 404, errors.NoSuchResource),
        ("duplicate_external_id", 400, errors.DuplicateExternalId),
        ("not_base64", 400, errors.BadRequest),
        ("garbage_key", 401, errors.AuthError),
    ],
)
def test_refusals(sample: Sample, case: str, status: int, kind: type[errors.ApiError]) -> None:
    """Each refusal that was seen is the error that says what it is, with the words and the id it came with."""
    body = json.loads(sample(case, status).body)

    with pytest.raises(errors.ApiError) as caught:
        read_envelope(sample(case, status))

    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.request_id) == (body["message"], body["request_id"])


def test_a_gateways_reply(sample: Sample) -> None:
    """Numbers as texts, texts as numbers, "success" for 0 and null for objects all survive (facts 9.4)."""
    task = task_in(sample("gateway"))

    assert (task.task_id, task.request_id, task.status) == (
        "866361099762425934",
        "12345",
        TaskStatus.SUCCEED,
    )
    assert [(image.index, image.url.partition("?")[0][-5:]) for image in task.images] == [
        (1, "a.png"),
        (0, "b.png"),
    ]
    assert task.images[0].watermark_url is None
    assert task.units == Decimal("0.25")
    assert task.created_at == datetime(2025, 12, 26, 8, 28, 30, 125_000, tzinfo=UTC)
    assert "final_balance_deduction" in task.raw


def test_an_old_create_reply(sample: Sample) -> None:
    """Create replies of 2025 had no `task_info`."""
    task = task_in(sample("old_create"))

    assert (task.task_id, task.external_task_id, task.status) == (
        "815335657866002502",
        "",
        TaskStatus.SUBMITTED,
    )


# Envelopes.


@pytest.mark.parametrize("code", [0, "0", " 0 ", "success", "SUCCEED", "ok", 0.0, "0.0"])
def test_spellings_of_success(code: object) -> None:
    """Gateways turn the code into a text or a word; all of these mean 0."""
    assert read_envelope(reply({"code": code, "data": 7})).data == 7


@pytest.mark.parametrize("code", [None, True, False, "", "maybe", [], {}, 0.5, "1e99"])
def test_a_success_without_a_code_is_no_success(code: object) -> None:
    """HTTP 200 alone does not say that a task exists: a bool, half a code or none is no code."""
    with pytest.raises(errors.MalformedReply, match="found one without"):
        read_envelope(reply({"code": code, "request_id": "r"}))


@pytest.mark.parametrize("code", [1303, "1303", 1303.0])
@pytest.mark.parametrize("status", [200, 429, 500])
def test_a_refusal_may_come_with_any_status(code: object, status: int) -> None:
    """A code other than 0 is a refusal also with HTTP 200."""
    with pytest.raises(errors.NoFreeSlot) as caught:
        read_envelope(reply({"code": code, "message": None}, status))

    assert caught.value.code == 1303
    assert "resource pack" in caught.value.message


def test_an_unknown_code_is_kept() -> None:
    """Code 1999 with HTTP 200 is an error that carries it."""
    with pytest.raises(errors.ApiError) as caught:
        read_envelope(reply({"code": 1999, "msg": "new rule"}))

    assert str(caught.value) == "new rule (code 1999)"


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b"oops", b"null", b"[]", b'"text"', b"{}", b'{"code": 0}']
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, errors.AuthError), (429, errors.RateLimited), (502, errors.ServerError)],
)
def test_error_pages_go_by_their_status(body: bytes, status: int, kind: type[errors.ApiError]) -> None:
    """An error without a code, whatever stands in its body, is what its HTTP status says."""
    with pytest.raises(errors.ApiError) as caught:
        read_envelope(reply(body, status, retry_after="7"))

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.retry_after) == (0, 7.0)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "nothing"),
        (b" \n ", "nothing"),
        (b"<!DOCTYPE html><p>Log in", "an HTML page"),
        (b"  <HTML>", "an HTML page"),
        (b'{"code": 0, "da', "something else"),
        (b"\xff\xfe\xfd", "something else"),
        (b"[" * 100_000, "something else"),
        (b"1" * 5000, "something else"),
        (b"[]", "an array"),
        (b'"ok"', "a string"),
        (b"true", "a boolean"),
        (b"null", "null"),
        (b"0", "a number"),
    ],
)
def test_a_success_that_is_no_object(body: bytes, found: str) -> None:
    """HTTP 200 with anything but a JSON object says what was found and what to check."""
    with pytest.raises(
        errors.MalformedReply, match=f"found {found} .HTTP 200.; check the base URL"
    ) as caught:
        read_envelope(reply(body, x_request_id="r-9"))

    assert (caught.value.http_status, caught.value.request_id) == (200, "r-9")


def test_redirects_are_refused() -> None:
    """A redirect names where it leads, without a query, and what to check."""
    with pytest.raises(errors.MalformedReply, match="to 'https://login/x'; API calls never follow") as caught:
        read_envelope(reply({"code": 0}, 307, location="https://login/x?token=secret"))

    assert caught.value.http_status == 307
    assert "secret" not in str(caught.value)


def test_a_proxy_that_wants_credentials() -> None:
    """HTTP 407 is a matter of configuration and not of the service."""
    with pytest.raises(errors.ConfigError, match="proxy"):
        read_envelope(reply(b"", 407))


def test_the_request_id_may_stand_in_a_header() -> None:
    """Without one in the body the header's is taken."""
    assert read_envelope(reply({"code": 0}, x_request_id="r-2")).request_id == "r-2"


def test_the_time_of_the_service() -> None:
    """The `Date` header is the service's clock; nonsense is none."""
    assert reply({}, date="Tue, 15 Nov 1994 08:12:31 GMT").service_time == 784_887_151.0
    assert reply({}, date="yesterday").service_time is None
    assert reply({}).service_time is None


# Tasks.


@pytest.mark.parametrize("data", [None, {}, [], 7, "x", {"task_id": None}, {"task_id": ""}, {"task_id": []}])
def test_a_task_without_an_id_is_none(data: object) -> None:
    """A reply that promises a task must name it."""
    with pytest.raises(errors.MalformedReply) as caught:
        read_task(data, request_id="r-3")

    assert caught.value.request_id == "r-3"


def test_a_number_as_task_id_is_text() -> None:
    """Ids are texts, whatever they came as."""
    assert read_task({"task_id": 833446756}).task_id == "833446756"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (None, []),
        ({}, []),
        ("x", []),
        ([None, 1, "x", []], []),
        ([{"url": ""}, {"url": None}, {}], []),
        ([{"index": 3, "url": "a"}, {"index": 1, "url": "b"}], [(3, "a"), (1, "b")]),
        ([{"url": "a"}, {"url": "b"}], [(0, "a"), (1, "b")]),
        ([{"index": 0, "url": "a"}, {"index": 0, "url": "b"}], [(0, "a"), (1, "b")]),
        ([{"index": -1, "url": "a"}, {"index": "x", "url": "b"}], [(0, "a"), (1, "b")]),
        ([{"index": 1}, {"index": 1, "url": "b"}], [(1, "b")]),
    ],
)
def test_pictures_of_any_shape(images: object, expected: list[tuple[int, str]]) -> None:
    """Pictures need a URL; indexes that lack or repeat are replaced, so that no two claim one file."""
    task = read_task({"task_id": "t", "task_result": {"images": images}})

    assert [(image.index, image.url) for image in task.images] == expected


@pytest.mark.parametrize("moment", [None, "", "soon", 1e30, -1e29, 10**25, True, [], math.inf])
def test_times_that_are_none(moment: object) -> None:
    """A time that no calendar has is left out and stays in `raw`."""
    task = read_task({"task_id": "t", "created_at": moment})

    assert task.created_at is None
    assert "created_at" in task.raw


def test_lists_pass_over_what_is_no_task() -> None:
    """A page may hold rubbish between its tasks; null is an empty page, an object is none."""
    data = [None, {}, {"task_id": ""}, "x", {"task_id": "t"}]

    assert [task.task_id for task in read_tasks(data)] == ["t"]
    assert read_tasks(None) == []
    assert read_glances(None) == ([], {})


@pytest.mark.parametrize("data", [{}, "x", 0, True])
def test_a_page_that_is_no_list(data: object) -> None:
    """Anything but a list or null is no page."""
    with pytest.raises(errors.MalformedReply):
        read_tasks(data)
    with pytest.raises(errors.MalformedReply):
        read_glances(data)


@pytest.mark.parametrize("status", ["succeed", "succeeded", "failed", "Succeed", " FAILED "])
def test_a_sweep_and_a_single_query_agree_on_the_end(status: str) -> None:
    """Every spelling that ends a task in a single query ends it in a page of the list too."""
    data = {"task_id": "t", "task_status": status}

    glances, ended = read_glances([data])

    assert read_task(data).ended
    assert glances == [Glance("t", ended=True)]
    assert ended == {"t": data}


@pytest.mark.parametrize(
    ("created", "updated"), [(2, 1), (1, 1), (None, 1), (0, 10**400), ("x", 1), (True, 5), (0, math.nan)]
)
def test_a_sweep_without_durations(created: object, updated: object) -> None:
    """Times that make no sense give no duration, and huge ones no overflow."""
    glances, _ = read_glances(
        [{"task_id": "t", "task_status": "failed", "created_at": created, "updated_at": updated}]
    )

    assert glances == [Glance("t", ended=True, seconds=None)]


def test_pictures_are_bound_to_who_fetches_them(sample: Sample) -> None:
    """`bind()` gives every picture its keeper and changes nothing else."""

    class Keeper:
        """Fetches nothing."""

        async def save(self, *_: Any) -> Any:
            """Not called."""

        async def read(self, *_: Any) -> Any:
            """Not called."""

    task = task_in(sample("seed_single"))
    keeper = Keeper()

    bound = bind(task, keeper)

    assert bound == task
    assert [image._keeper for image in bound.images] == [keeper]


# Scalars.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        ("", ""),
        ("红", "红"),
        ("a\ud800b", "a?b"),
        (7, "7"),
        (True, ""),
        (1.5, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_text(value: object, expected: str) -> None:
    """Texts stay, whole numbers become texts, half surrogates become question marks, all else is none."""
    assert text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, "5"),
        ("0.25", "0.25"),
        (" 5 ", "5"),
        (0.1, "0.1"),
        (Decimal(3), "3"),
        ("1e29", "1e29"),
        ("1e30", None),
        ("1e-30", None),
        ("1e999999999999999999999", None),
        (10**4000, None),
        (math.nan, None),
        ("Infinity", None),
        ("five", None),
        ("", None),
        ("\ud800", None),
        (True, None),
        (None, None),
        ({}, None),
    ],
)
def test_number(value: object, expected: str | None) -> None:
    """Numbers and texts of numbers are exact decimals if they are finite and not absurd."""
    assert number(value) == (None if expected is None else Decimal(expected))


# Anything at all.

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**20, 10**4000)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(categories=["Cs", "L", "N"]), max_size=5)
    | st.sampled_from(
        ["0", "success", "-1", "1e999", "NaN", "succeed", "failed", "queued", " ", 1722769557708, 1e308]
    )
)
shapes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
images = st.fixed_dictionaries({}, optional={"index": shapes, "url": shapes, "watermark_url": shapes})
results = shapes | st.fixed_dictionaries(
    {}, optional={"images": shapes | st.lists(images | shapes, max_size=4)}
)
tasks = shapes | st.fixed_dictionaries(
    {"task_id": scalars},
    optional={
        "task_status": shapes,
        "task_status_msg": shapes,
        "task_info": shapes | st.fixed_dictionaries({}, optional={"external_task_id": shapes}),
        "final_unit_deduction": shapes,
        "created_at": shapes,
        "updated_at": shapes,
        "task_result": results,
    },
)
documents = shapes | st.fixed_dictionaries(
    {},
    optional={
        "code": shapes | st.just(0),
        "message": shapes,
        "request_id": shapes,
        "data": tasks | st.lists(tasks, max_size=3),
    },
)


def check(task: Task) -> None:
    """Look at every field of a task, and pass it on as programs do."""
    assert task.task_id
    assert isinstance(task.status, TaskStatus)
    json.dumps([task.task_id, task.external_task_id, task.status.value, task.status_message])
    for said in (task.task_id, task.external_task_id, task.status_message, task.request_id):
        said.encode()
    assert task.units is None or task.units.is_finite()
    assert len({image.index for image in task.images}) == len(task.images)
    assert all(image.url and image.index >= 0 for image in task.images)
    assert pickle.loads(pickle.dumps(task)) == task


@given(documents, st.sampled_from([200, 201, 302, 400, 401, 404, 429, 500, 503]))
def test_any_json_is_read_or_refused_plainly(document: object, status: int) -> None:
    """Whatever JSON comes back, the codec returns sound values or raises a `KlingError`; nothing else."""
    try:
        envelope = read_envelope(reply(document, status))
    except errors.KlingError as error:
        str(error).encode()
        return

    for read in (read_task, read_tasks, read_glances):
        try:
            found: Any = read(envelope.data, request_id=envelope.request_id)
        except errors.MalformedReply:
            continue
        found = [found] if isinstance(found, Task) else found
        for task in found:
            if isinstance(task, Task):
                check(task)


@given(tasks)
def test_any_data_is_a_task_or_malformed(data: object) -> None:
    """Any shape of `data` is a sound task or `MalformedReply`."""
    try:
        task = read_task(data)
    except errors.MalformedReply:
        return
    check(task)


@given(st.binary(max_size=60), st.sampled_from([200, 404, 502]))
def test_any_bytes_are_refused_plainly(body: bytes, status: int) -> None:
    """No body of a reply makes the codec raise anything but a `KlingError`."""
    with pytest.raises(errors.KlingError):
        read_envelope(reply(body, status))


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":0,"code":1303}',
        b'{"code":1e999}',
        b'{"code":NaN}',
        b'{"code":-Infinity}',
        b'{"code":' + b"9" * 4000 + b"}",
        b'{"code":0,"data":{"task_id":"\\ud800","created_at":1e999,"updated_at":-1e999}}',
        b'{"code":0,"data":{"task_id":"a","task_id":null}}',
        b"\xef\xbb\xbf" + b'{"code":0,"data":null}',
    ],
)
def test_odd_but_readable_bodies(body: bytes) -> None:
    """Doubled keys, overflowing numbers and half surrogates end as values or plain errors."""
    try:
        task = task_in(reply(body))
    except errors.KlingError:
        return
    check(task)


@given(shapes)
def test_a_code_is_a_whole_number_or_none(value: object) -> None:
    """Nothing but a number, the text of one or a word for success is a code."""
    code = code_of(value)

    assert code is None or type(code) is int


def test_a_page_passes_over_what_is_no_task() -> None:
    """Entries without an id, or that are no objects, give no glance and disturb no other."""
    glances, ended = read_glances(
        [None, {}, {"task_status": "succeed"}, {"task_id": 7, "task_status": "queued"}]
    )

    assert glances == [Glance("7", ended=False, status="queued")]
    assert ended == {}


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b'{"code":0,"message":"SUCCEED","request_id":"r-1","data":{}}', (0, "r-1")),
        (b'{"code": "1303", "request_id": "r-2"}', (1303, "r-2")),
        (b'{"message": "x", "request_id": null, "code": 5000}', (5000, "")),
        (b'{"code": "success"}', (0, "")),
        (b"<html>502</html>", (0, "")),
        (b"", (0, "")),
        (b'{"data": "' + b"x" * 600 + b'", "code": 1303}', (0, "")),
    ],
)
def test_a_glimpse_is_enough_to_count_a_reply(body: bytes, seen: tuple[int, str]) -> None:
    """Code and request id are found in the first bytes of a reply; whatever else comes is nothing, and no error."""
    assert glimpse(body) == seen
