"""The calls of the API as values."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import ConfigError
from kling_async.protocol.bodies import Body
from kling_async.protocol.requests import costs_request, create_request, find_request, list_request

PATH = "/v1/images/multi-image2image"


def test_create() -> None:
    """A create posts its body to the endpoint."""
    body = Body.from_json({"n": 1})

    request = create_request(PATH, body)

    assert (request.method, request.path, request.query, request.body) == ("POST", PATH, (), body)


@pytest.mark.parametrize(
    ("asked", "segment"),
    [
        ("866361099762425934", "866361099762425934"),
        ("ka-1_A", "ka-1_A"),
        ("a/b?c#d%e", "a%2Fb%3Fc%23d%25e"),
        ("红 1", "%E7%BA%A2%201"),
        ("...", "..."),
    ],
)
def test_a_task_is_asked_for_as_one_segment(asked: str, segment: str) -> None:
    """Both kinds of id are quoted so that they stay one segment of the path (facts 7.2)."""
    request = find_request(PATH, asked)

    assert (request.method, request.path, request.body) == ("GET", f"{PATH}/{segment}", None)


@pytest.mark.parametrize("asked", ["", "  ", ".", "..", " .. ", "\ud800", "a\udfffb"])
def test_what_cannot_be_a_segment(asked: str) -> None:
    """Ids that would ask for something else, or for nothing, are refused before anything is sent."""
    with pytest.raises(ConfigError, match="expected a task id or an external id"):
        find_request(PATH, asked)


@given(st.text())
def test_any_text_is_one_segment_or_refused(asked: str) -> None:
    """Whatever is asked for cannot leave its segment, and comes back from it as it was."""
    try:
        request = find_request(PATH, asked)
    except ConfigError:
        return
    segment = request.path.removeprefix(f"{PATH}/")

    assert unquote(segment) == asked
    assert not set(segment) & set("/?# ")


@pytest.mark.parametrize(("page", "page_size"), [(1, 1), (1, 30), (1000, 500)])
def test_pages(page: int, page_size: int) -> None:
    """The list takes pages 1 to 1000 of 1 to 500 tasks."""
    request = list_request(PATH, page, page_size)

    assert (request.method, request.path) == ("GET", PATH)
    assert request.query == (("pageNum", str(page)), ("pageSize", str(page_size)))


@pytest.mark.parametrize(("page", "page_size"), [(0, 30), (1001, 30), (1, 0), (1, 501), (-1, 30)])
def test_pages_beyond_the_bounds(page: int, page_size: int) -> None:
    """What the service would refuse is refused here."""
    with pytest.raises(ConfigError, match="expected page 1 to 1000 and page_size 1 to 500"):
        list_request(PATH, page, page_size)


def test_costs() -> None:
    """The account's packs are asked for without `/v1`, between two times in milliseconds."""
    request = costs_request(1, 2)

    assert (request.method, request.path) == ("GET", "/account/costs")
    assert request.query == (("start_time", "1"), ("end_time", "2"))


def test_every_request_has_a_route() -> None:
    """What kind of call a request is, is told by itself."""
    requests = (
        create_request(PATH, Body.from_json({})),
        find_request(PATH, "1"),
        list_request(PATH, 1, 30),
        costs_request(0, 1),
    )

    assert [request.route for request in requests] == ["create", "get", "list", "costs"]
