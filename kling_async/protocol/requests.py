"""The calls of the API as values: what to send, without who sends it."""

from __future__ import annotations

import re
from urllib.parse import quote

from attrs import frozen

from kling_async.errors import ConfigError
from kling_async.protocol.bodies import Body

__all__ = [
    "LARGEST_PAGE",
    "LAST_PAGE",
    "Request",
    "costs_request",
    "create_request",
    "find_request",
    "list_request",
]

# What all ids look like that were seen, and needs no quoting.
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
# Seed: pageSize 1 to 500, pageNum 1 to 1000.
LARGEST_PAGE = 500
LAST_PAGE = 1000


@frozen(kw_only=True)
class Request:
    """One call: *path* begins after the host, *query* is in order, *body* is JSON."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Body | None = None

    @property
    def route(self) -> str:
        """What kind of call it is, for whoever counts them: `create`, `get`, `list` or `costs`."""
        if self.method == "POST":
            return "create"
        if not self.query:
            return "get"
        return "list" if self.path.startswith("/v1/") else "costs"


def create_request(path: str, body: Body) -> Request:
    """Create a task."""
    return Request(method="POST", path=path, body=body)


def find_request(path: str, task_or_external_id: str) -> Request:
    """
    Query one task; the service matches the one path segment against both kinds of id.

    Raises `ConfigError` for what cannot be a path segment: nothing, blanks, dots, half a surrogate pair.
    """
    asked = task_or_external_id
    if _PLAIN.fullmatch(asked):
        return Request(method="GET", path=f"{path}/{asked}")
    if asked.strip() in {"", ".", ".."} or asked != asked.encode(errors="replace").decode():
        raise ConfigError(f"expected a task id or an external id, found {asked!r}")
    return Request(method="GET", path=f"{path}/{quote(asked, safe='')}")


def list_request(path: str, page: int, page_size: int) -> Request:
    """Query one page of the list; raises `ConfigError` beyond the service's bounds."""
    if not 1 <= page <= LAST_PAGE or not 1 <= page_size <= LARGEST_PAGE:
        raise ConfigError(
            f"expected page 1 to {LAST_PAGE} and page_size 1 to {LARGEST_PAGE}, found {page} and {page_size}"
        )
    return Request(method="GET", path=path, query=(("pageNum", str(page)), ("pageSize", str(page_size))))


def costs_request(start_ms: int, end_ms: int) -> Request:
    """Query the account's resource packs (no `/v1` in this path); both times are Unix milliseconds."""
    query = (("start_time", str(start_ms)), ("end_time", str(end_ms)))
    return Request(method="GET", path="/account/costs", query=query)
