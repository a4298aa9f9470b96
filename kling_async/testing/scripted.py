"""
A service that answers as a test says, without a socket: for the replies that no emulator would give.

    script = ScriptedTransport(create=[Broken(sent=True, accepted=True)], get=Answer.refused(1203))
    async with Kling(api_key="any", session=script) as kling: ...

What is not scripted goes well: creates are accepted, tasks succeed at once, results are pictures.
"""

from __future__ import annotations

import base64
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from copy import copy
from itertools import repeat
from typing import Any, Literal, TypeAlias, TypedDict, Unpack
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import define, evolve, field, frozen

from kling_async.protocol.codec import Reply
from kling_async.transport.stand_in import Asked, StandIn

__all__ = ["Answer", "Broken", "Line", "Lines", "ScriptedRequest", "ScriptedTransport"]

Route: TypeAlias = Literal["create", "get", "list", "costs", "result"]

# One grey pixel.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
_RESULTS = "https://results.invalid"


@frozen(kw_only=True)
class ScriptedRequest:
    """One request as it was sent, *json* its body as data; its headers hold the credentials and are not shown."""

    route: Route
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def json(self) -> Any:
        """The body as data, None without one."""
        return json.loads(self.body) if self.body else None


@frozen
class Answer:
    """A reply: HTTP's *status*, a *body*, *headers*. The class methods make those that the service gives."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(factory=dict)

    @classmethod
    def json(cls, value: object, status: int = 200, **headers: str) -> Answer:
        """Answer with *value* as JSON; underscores in names of *headers* stand for hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json"} | named)

    @classmethod
    def data(cls, data: object) -> Answer:
        """Answer as for a call that went well, with *data* in the envelope."""
        return cls.json({"code": 0, "message": "SUCCEED", "request_id": "scripted", "data": data})

    @classmethod
    def refused(cls, code: int, message: str = "", status: int = 400, **headers: str) -> Answer:
        """Refuse with the service's *code*."""
        return cls.json({"code": code, "message": message, "request_id": "scripted"}, status, **headers)

    @classmethod
    def task(
        cls,
        task_id: str,
        status: str = "succeed",
        *,
        external_task_id: str = "",
        images: int = 1,
        message: str = "",
    ) -> Answer:
        """Show one task, with *images* pictures if it succeeded."""
        return cls.data(_task(task_id, status, external_task_id, images, message))

    @classmethod
    def picture(cls, body: bytes = _PICTURE) -> Answer:
        """Answer with a picture, by default a PNG of one pixel."""
        return cls(200, body, {"content-type": "image/png", "content-length": str(len(body))})


@frozen
class Broken:
    """
    No reply: the connection breaks with *error*, after the request was *sent* or before.

    With *accepted* the service made the task all the same, and finds it when it is asked.
    """

    error: Exception = field(factory=lambda: ConnectionResetError("scripted"))
    sent: bool = True
    accepted: bool = False


Line: TypeAlias = Answer | Broken
Asking: TypeAlias = Callable[[ScriptedRequest], Line | Awaitable[Line | None] | None]
Lines: TypeAlias = Line | Iterable[Line] | Asking


class Script(TypedDict, total=False):
    """What to answer, by route."""

    create: Lines
    get: Lines
    list: Lines
    costs: Lines
    result: Lines


@define(eq=False)
class _Made:
    task_id: str
    external_task_id: str
    images: int


class ScriptedTransport(StandIn):
    """
    Give it as *session* to `Kling`; it answers each request by its route: create, get, list, costs, result.

    A route has one `Answer` or `Broken` for every request, or a list of them for the first ones in turn, or a function of
    the request, sync or async, that returns one, or None for what goes without saying. *requests* has all that was sent,
    and so not what met `Broken(sent=False)`, which only a list or a single line can say. In one second of the test *pace*
    seconds of the client pass: its pauses are as much shorter.
    """

    def __init__(self, *, pace: float = 50.0, **script: Unpack[Script]) -> None:
        given: Mapping[str, Lines] = dict(script)  # type: ignore[arg-type]  # all its values are lines
        unknown = set(given) - set(Script.__annotations__)
        if unknown:
            raise TypeError(f"expected routes among {', '.join(Script.__annotations__)}, found {unknown}")
        self.pace = pace
        self.requests: list[ScriptedRequest] = []
        self._script = {route: _lines(lines) for route, lines in given.items()}
        self._made: list[_Made] = []

    def __repr__(self) -> str:
        return f"<ScriptedTransport of {len(self.requests)} requests, {len(self._made)} tasks>"

    def of(self, route: Route) -> list[ScriptedRequest]:
        """Return the requests of *route*, oldest first."""
        return [request for request in self.requests if request.route == route]

    @property
    def tasks_created(self) -> int:
        """How many tasks were made by what goes without saying, or `Broken(accepted=True)`."""
        return len(self._made)

    async def answer(self, asked: Asked) -> Reply:
        """Answer by the script."""
        request = _request(asked)
        script = self._script.get(request.route, iter(()))
        line = None if callable(script) else next(script, None)
        if isinstance(line, Broken) and not line.sent:
            raise copy(line.error)
        request = evolve(request, body=await asked.read())
        self.requests.append(request)
        if callable(script):
            said = script(request)
            line = await said if inspect.isawaitable(said) else said
        if isinstance(line, Broken):
            if line.accepted:
                self._usual(request)
            raise copy(line.error)
        reply = line or self._usual(request)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Reply(status=reply.status, headers=headers, body=reply.body)

    def _usual(self, request: ScriptedRequest) -> Answer:
        """Answer as a service that is well and idle."""
        match request.route:
            case "create":
                return self._create(request.json)
            case "get":
                name = unquote(request.path.rpartition("/")[2])
                found = [made for made in self._made if name in {made.task_id, made.external_task_id}]
                return Answer.data(_shown(found[-1])) if found else _not_found(name)
            case "list":
                page, size = int(request.query.get("pageNum", "1")), int(request.query.get("pageSize", "30"))
                newest = self._made[::-1][(page - 1) * size : page * size]
                return Answer.data([_shown(made) for made in newest])
            case "costs":
                return Answer.data({"code": 0, "msg": "success", "resource_pack_subscribe_infos": []})
            case "result":
                return Answer.picture()

    def _create(self, body: Mapping[str, Any]) -> Answer:
        number = len(self._made) + 1
        made = _Made(f"scripted-{number}", str(body.get("external_task_id") or ""), int(body.get("n") or 1))
        self._made.append(made)
        return Answer.data(_task(made.task_id, "submitted", made.external_task_id, 0, ""))


def _lines(given: Lines) -> Iterator[Line] | Asking:
    if isinstance(given, Answer | Broken):
        return repeat(given)
    return given if callable(given) else iter(given)


def _request(asked: Asked) -> ScriptedRequest:
    parts = urlsplit(asked.url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return ScriptedRequest(
        route=_route(asked.method, parts.path, query),
        method=asked.method,
        path=parts.path,
        query=query,
        headers=asked.headers,
    )


def _route(method: str, path: str, query: Mapping[str, str]) -> Route:
    if path.endswith("/account/costs"):
        return "costs"
    if "/v1/" not in path:
        return "result"
    if method == "POST":
        return "create"
    return "list" if query else "get"


def _shown(made: _Made) -> dict[str, Any]:
    return _task(made.task_id, "succeed", made.external_task_id, made.images, "")


def _task(task_id: str, status: str, external_task_id: str, images: int, message: str) -> dict[str, Any]:
    stamp = round(time.time() * 1000)
    pictures = [{"index": index, "url": f"{_RESULTS}/{task_id}/{index}.png"} for index in range(images)]
    return {
        "task_id": task_id,
        "task_info": {"external_task_id": external_task_id} if external_task_id else {},
        "task_status": status,
        "task_status_msg": message,
        "task_result": {"images": pictures} if status == "succeed" else {},
        "created_at": stamp,
        "updated_at": stamp,
    }


def _not_found(name: str) -> Answer:
    return Answer.refused(1201, f"Task not found by id/external id: {name}")
