"""List pages for the poll plan: the quick reader and the patient one tell the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol import quick
from kling_async.protocol.codec import Reply, read_envelope
from kling_async.protocol.pages import read_glances, read_page


def reply(data: Any, **fields: Any) -> Reply:
    """Return a reply with *data*, `code` 0 unless *fields* say otherwise."""
    document = {"code": 0, "message": "SUCCEED", "request_id": "r-1", "data": data} | fields
    return Reply(status=200, headers={}, body=json.dumps(document).encode())


def looks(page: Any) -> list[tuple[str, bool, float | str | None]]:
    """Return what is told; seconds only of what has ended, and the status of what has not."""
    return [(look.task_id, look.ended, look.seconds if look.ended else look.status) for look in page.glances]


STATUS = st.sampled_from(
    ["submitted", "processing", "succeed", "failed", "succeeded", "Processing", "odd", ""]
)
MOMENT = st.none() | st.integers(0, 2_000_000_000_000) | st.integers(0, 10**14).map(str)
ENTRY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"task_id": st.text("0123456789", min_size=1, max_size=19), "task_status": STATUS},
    optional={"created_at": MOMENT, "updated_at": MOMENT, "task_result": st.just({}), "stranger": st.none()},
)


@given(st.lists(ENTRY, max_size=6))
def test_both_readers_tell_the_same(entries: list[dict[str, Any]]) -> None:
    """Whatever the quick reader takes it reads as the patient one does: looks, and entries of what ended."""
    body = reply(entries)
    assert quick.read(body.body) is not None, "usual pages are read quickly"

    page = read_page(body)
    glances, ended = read_glances(read_envelope(body).data)

    patient = [(look.task_id, look.ended, look.seconds if look.ended else look.status) for look in glances]
    assert looks(page) == patient
    assert page.request_id == "r-1"
    wanted = {look.task_id for look in glances if look.ended}
    assert page.entries(wanted) == {task_id: ended[task_id] for task_id in wanted}


def test_only_what_is_wanted_is_read_whole() -> None:
    """Of 500 tasks on a page only those asked for are read, and never one that still runs."""
    entries = [{"task_id": str(number), "task_status": "succeed"} for number in range(3)]
    page = read_page(reply([*entries, {"task_id": "3", "task_status": "processing"}]))

    assert page.entries(["1", "3", "elsewhere"]) == {"1": entries[1]}
    assert page.entries([]) == {}


@pytest.mark.parametrize(
    "data",
    [
        [{"task_id": 815335657866002502, "task_status": "succeed"}],
        [{"task_id": "1", "task_status": None}],
        [{"task_id": "1", "task_status": "failed", "created_at": 1.5}],
        [None, "text", {"task_status": "succeed"}, {"task_id": "1", "task_status": "succeed"}],
        None,
    ],
)
def test_what_is_unusual_is_read_patiently(data: Any) -> None:
    """Ids as numbers, null for a state, entries that are none: the quick reader leaves the page to the patient one."""
    body = reply(data)
    assert quick.read(body.body) is None

    page = read_page(body)

    glances, ended = read_glances(data)
    assert (list(page.glances), page.entries(ended)) == (glances, ended)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (reply([], code=1000, message="Auth failed"), errors.AuthError),
        (reply([], code="1302"), errors.RateLimited),
        (reply({"task_id": "1"}), errors.MalformedReply),
        (Reply(status=502, headers={}, body=b"<html>bad gateway"), errors.ServerError),
        (Reply(status=200, headers={}, body=b"[" * 100_000), errors.MalformedReply),
    ],
)
def test_refusals_and_rubbish_are_told_as_elsewhere(body: Reply, error: type[errors.KlingError]) -> None:
    """What is no page of tasks raises what the same reply raises to any other query."""
    with pytest.raises(error):
        read_page(body)


def test_the_id_of_a_request_may_stand_in_a_header() -> None:
    """A page whose body does not name its request is named by the header, whichever reader takes it."""
    headers = {"x-request-id": "r-9"}

    quickly = read_page(Reply(status=200, headers=headers, body=b'{"code": 0, "data": []}'))
    patiently = read_page(Reply(status=200, headers=headers, body=b'{"code": "0", "data": []}'))

    assert (quickly.request_id, patiently.request_id) == ("r-9", "r-9")
