"""
The routes of multi-image2image as the vendor's page and the observed behaviour say, decided without any socket.

What is a matter of observation rather than of the page can be switched in *Settings*.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import define, evolve, field, fields, frozen

from .bodies import complaint
from .books import Books, Charge, Entry
from .clock import Clock
from .pictures import png
from .tasks import UNITS, Life, Listing, Task, Tasks
from .tokens import Gate
from .wire import Head, Reply

__all__ = ["Service", "Settings", "route_of"]

CREATE = "/v1/images/multi-image2image"
# The vendor's table: which HTTP status comes with which code.
HTTP = {1000: 401, 1001: 401, 1002: 401, 1003: 401, 1004: 401, 1100: 429, 1101: 429, 1102: 429, 1103: 403}
HTTP |= {1200: 400, 1201: 400, 1202: 404, 1203: 404, 1300: 400, 1301: 400, 1302: 429, 1303: 429, 1304: 429}
HTTP |= {5000: 500, 5001: 503, 5002: 504}


@frozen(kw_only=True)
class Settings:
    """
    How the account behaves; replaced as a whole, at any time.

    *slots* None: no limit. *foreign* is what other programs hold of them. *enforce* False accepts beyond the limit
    and counts it as an overrun. *lag* (seconds) and *lag_looks* hide a new task from reads by external id.
    *lives* are chosen by a text that occurs in external id or prompt, before *life*. With *fresh_links* each look at a
    task shows links of their own; *padding* makes pictures larger; with *same_pictures* they depend on the prompt alone;
    *picture* is served instead of all of them. *results* is the address that links name instead of this one.
    """

    slots: int | None = 9
    foreign: int = 0
    enforce: bool = True
    unique: bool = True
    not_found: Literal["1201", "1203"] = "1201"
    lag: float = 0.0
    lag_looks: int = 0
    life: Life = field(factory=Life)
    lives: tuple[tuple[str, Life], ...] = field(default=(), converter=tuple)
    listing: Listing = field(factory=Listing)
    pack: str = "Trial-Image-1000Units-{slots}Con-1Months"
    padding: int = 0
    fresh_links: bool = False
    same_pictures: bool = False
    picture: bytes | None = None
    results: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any], base: Settings) -> Settings:
        """Change *base* by plain JSON values."""
        changes = dict(value)
        if "life" in changes:
            changes["life"] = Life(**changes["life"])
        if "lives" in changes:
            changes["lives"] = tuple((match, Life(**life)) for match, life in changes["lives"])
        if "listing" in changes:
            changes["listing"] = Listing(**changes["listing"])
        unknown = changes.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}")
        return evolve(base, **changes)


def route_of(method: str, path: str) -> str:
    """Name the route; `unknown` for what the service does not have."""
    if path == CREATE:
        return {"POST": "create", "GET": "list"}.get(method, "unknown")
    if path.startswith(f"{CREATE}/") and method == "GET" and path.count("/") == CREATE.count("/") + 1:
        return "get"
    if path == "/account/costs" and method == "GET":
        return "costs"
    return "result" if path.startswith("/results/") and method in {"GET", "HEAD"} else "unknown"


@define(eq=False)
class Service:
    """One account of the service, its tasks, its clock and the books on it."""

    settings: Settings = field(factory=Settings)
    clock: Clock = field(factory=Clock)
    gate: Gate = field(factory=Gate)
    books: Books = field(factory=Books)
    tasks: Tasks = field(factory=Tasks)
    host: str = ""
    _requests: itertools.count[int] = field(factory=lambda: itertools.count(1))

    def answer(self, head: Head, body: Any, entry: Entry) -> Reply:
        """Decide a request and write the decision into the books; *body* is parsed JSON, None where there is none."""
        if entry.route == "result":
            return self._result(head.target)
        refusal = self.gate.refusal(head.get("authorization"), self.clock.wall())
        if refusal is not None:
            reply = self.refusal(*refusal)
        elif entry.route == "create":
            reply = self._create(body, entry)
        elif entry.route == "get":
            reply = self._get(unquote(urlsplit(head.target).path.rpartition("/")[2]))
        elif entry.route == "list":
            reply = self._list(dict(parse_qsl(urlsplit(head.target).query)))
        elif entry.route == "costs":
            reply = self._costs(dict(parse_qsl(urlsplit(head.target).query)))
        else:
            reply = self.refusal(1202, "The requested method is invalid")
        entry.code = reply.code
        return reply

    def success(self, data: bytes) -> Reply:
        """Wrap *data*, which is JSON, in the service's envelope."""
        request = b'","request_id":"fault-%d","data":' % next(self._requests)
        return Reply(body=b'{"code":0,"message":"SUCCEED' + request + data + b"}")

    def refusal(self, code: int, message: str, status: int | None = None) -> Reply:
        """Refuse as the service does: no `data` key at all."""
        envelope = {"code": code, "message": message, "request_id": f"fault-{next(self._requests)}"}
        self.books.codes[code] += 1
        return Reply(status or HTTP.get(code, 400), json.dumps(envelope).encode(), code=code)

    def _create(self, body: Any, entry: Entry) -> Reply:
        wrong = complaint(body)
        if wrong is not None:
            return self.refusal(1201, wrong)
        settings, name, n = self.settings, body.get("external_task_id") or "", body.get("n", 1)
        if settings.unique and name in self.tasks.by_external:
            return self.refusal(1201, f"External_task_id {name} already exists")
        now, wall = self.clock.now(), self.clock.wall()
        held = self.tasks.settle(now) + settings.foreign + n
        if settings.slots is not None and held > settings.slots:
            if settings.enforce:
                return self.refusal(1303, "parallel task over resource pack limit")
            self.books.overruns += 1
        marked = (body.get("watermark_info") or {}).get("enabled") is True
        life = self._life(f"{name} {body.get('prompt')}")
        task = self.tasks.add(name, n, life, now, wall, watermark=marked)
        task.label = entry.label
        self.books.peak = max(self.books.peak, self.tasks.weight)
        self.books.charges.append(Charge(name, task.task_id, n, UNITS * n, entry.sha256, now, entry.label))
        entry.accepted = task.task_id
        return self.success(json.dumps(task.created_view()).encode())

    def _life(self, text: str) -> Life:
        return next((life for match, life in self.settings.lives if match in text), self.settings.life)

    def _get(self, name: str) -> Reply:
        task, now = self.tasks.find(name), self.clock.now()
        self.tasks.settle(now)
        if task is not None and name == task.external_id and self._hidden(task, now):
            task.misses += 1
            task = None
        shown = (
            None
            if task is None
            else self.tasks.show(
                task, self.settings.results or self.host, now, self.clock.wall(), self._signature()
            )
        )
        if shown is not None:
            return self.success(shown)
        if self.settings.not_found == "1203":
            return self.refusal(1203, "The requested resource does not exist")
        return self.refusal(1201, f"Task not found by id/external id: {name}")

    def _signature(self) -> str:
        return f"look-{next(self._requests)}" if self.settings.fresh_links else "signed"

    def _hidden(self, task: Task, now: float) -> bool:
        return now - task.born < self.settings.lag or task.misses < self.settings.lag_looks

    def _list(self, query: Mapping[str, str]) -> Reply:
        number, size = query.get("pageNum", "1"), query.get("pageSize", "30")
        if not (
            number.isdecimal() and size.isdecimal() and 1 <= int(number) <= 1000 and 1 <= int(size) <= 500
        ):
            return self.refusal(1201, "pageNum must be 1 to 1000 and pageSize 1 to 500")
        now, wall = self.clock.now(), self.clock.wall()
        self.tasks.settle(now)
        page = self.tasks.page(int(number), int(size), self.settings.listing)
        shown = (
            self.tasks.show(task, self.settings.results or self.host, now, wall, self._signature())
            for task in page
        )
        return self.success(b"[" + b",".join(filter(None, shown)) + b"]")

    def _costs(self, query: Mapping[str, str]) -> Reply:
        if not query.get("start_time", "").isdecimal() or not query.get("end_time", "").isdecimal():
            return self.refusal(1201, "start_time and end_time are required")
        wall = int(self.clock.wall() * 1000)
        pack = {
            "resource_pack_name": self.settings.pack.format(slots=self.settings.slots),
            "resource_pack_id": "pack-1",
            "resource_pack_type": "decreasing_total",
            "total_quantity": 1000.0,
            "remaining_quantity": 1000.0 - self.books.billed,
            "purchase_time": wall - 86_400_000,
            "effective_time": wall - 86_400_000,
            "invalid_time": wall + 86_400_000,
            "status": "online",
        }
        data = {"code": 0, "msg": "SUCCEED", "resource_pack_subscribe_infos": [pack]}
        return self.success(json.dumps(data).encode())

    def _result(self, target: str) -> Reply:
        path = urlsplit(target).path
        if self.settings.picture is not None:
            return Reply(body=self.settings.picture, content_type="image/png")
        if self.settings.same_pictures:
            _, _, name, number = path.split("/")
            task = self.tasks.find(name)
            path = f"{task.label if task else name}/{number}"
        return Reply(body=png(path, padding=self.settings.padding), content_type="image/png")
