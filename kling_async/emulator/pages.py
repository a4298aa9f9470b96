"""The emulator's own pages: a glance in HTML at `/`, and under `/_emulator/` the books as JSON and the levers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import attrs
from aiohttp import web

from kling_async.emulator.faults import Fault, Faults
from kling_async.emulator.wire import JSON
from kling_async.errors import ConfigError

if TYPE_CHECKING:
    from kling_async.emulator.server import Emulator

__all__ = ["Pages", "http_date"]

_SHOWN = 40

_LOOK = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 small { font-weight: normal; opacity: .6 } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem }
.note { border-left: .3rem solid #d90; padding: .4rem .9rem; background: #d901 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
tr + tr td { border-top: 1px solid #8883 } code { font-size: .9em } .scroll { overflow-x: auto }
img { height: 4.5rem; border-radius: .3rem; margin-right: .3rem }
"""


@lru_cache(maxsize=8)
def http_date(second: int) -> str:
    """Return the `Date` header of this second."""
    return formatdate(second, usegmt=True)


class Pages:
    """The routes by which people and programs look into an emulator and steer it."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def __repr__(self) -> str:
        return f"<Pages of {self._emulator!r}>"

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, all outside the service's own paths."""
        return [
            web.get("/", self._home),
            web.get("/_emulator/requests", self._requests),
            web.get("/_emulator/tasks", self._tasks),
            web.get("/_emulator/callbacks", self._callbacks),
            web.get("/_emulator/faults", self._faults),
            web.post("/_emulator/faults", _lever(self._set_faults)),
            web.post("/_emulator/reset", _lever(self._reset)),
            web.post("/_emulator/advance", _lever(self._advance)),
        ]

    async def _requests(self, _request: web.Request) -> web.Response:
        return _json({"requests": [attrs.asdict(each) for each in self._emulator.requests]})

    async def _tasks(self, _request: web.Request) -> web.Response:
        tasks = [attrs.asdict(each) for each in self._emulator.tasks]
        return _json({"tasks": tasks, "peak_slots": self._emulator.peak_slots})

    async def _callbacks(self, _request: web.Request) -> web.Response:
        return _json({"callbacks": [attrs.asdict(each) for each in self._emulator.callbacks]})

    async def _faults(self, _request: web.Request) -> web.Response:
        rows = zip(self._emulator.faults, self._emulator.fault_hits, strict=True)
        return _json({"faults": [{**fault.row(), "hits": hits} for fault, hits in rows]})

    async def _set_faults(self, body: dict[str, Any]) -> dict[str, Any]:
        spec, rows = body.get("chaos"), body.get("faults")
        if isinstance(spec, str):
            self._emulator.faults = Faults.parse(spec)
        elif isinstance(rows, list):
            self._emulator.faults = Faults([Fault.from_row(row) for row in rows])
        else:
            raise ConfigError('expected {"chaos": "1303:5%"} or {"faults": [{"action": …}]}, found neither')
        return {"faults": [fault.row() for fault in self._emulator.faults]}

    async def _reset(self, _body: dict[str, Any]) -> dict[str, Any]:
        await self._emulator.reset()
        return {"reset": True}

    async def _advance(self, body: dict[str, Any]) -> dict[str, Any]:
        seconds = body.get("seconds")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < 1e10:
            raise ConfigError(f'expected {{"seconds": a number}} of zero or more, found {seconds!r}')
        await self._emulator.advance(seconds)
        return {"advanced": seconds}

    async def _home(self, _request: web.Request) -> web.Response:
        emulator, settings = self._emulator, self._emulator.settings
        tasks, requests = emulator.tasks, emulator.requests
        accounts = [
            (each.name, each.slots, f"{each.units:g}", each.access_key, "hidden")
            for each in settings.all_accounts()
        ]
        task_rows = [
            (t.task_id, t.external_task_id, t.account, t.n, t.status, t.status_message)
            for t in tasks[: -_SHOWN - 1 : -1]
        ]
        request_rows = [
            (
                http_date(int(r.time)),
                r.method,
                r.path,
                r.status or "none",
                "" if r.code is None else r.code,
                r.fault,
            )
            for r in requests[: -_SHOWN - 1 : -1]
        ]
        fault_rows = [
            (json.dumps(f.row()), hits) for f, hits in zip(emulator.faults, emulator.fault_hits, strict=True)
        ]
        parts = [
            "<h1>kling_async <small>emulator</small></h1>",
            (
                f"<p class=note><b>EMULATED.</b> A local copy of the Kling image API. Nothing is sent, nothing is charged. "
                f"Base URL <code>{escape(emulator.url)}</code>, speed {escape(str(settings.speed))}, "
                f"{len(tasks)} tasks, peak {emulator.peak_slots} slots.</p>"
            ),
            _table("Accounts", ("name", "slots", "units", "access key", "secrets"), accounts),
            _table("Faults", ("fault", "hits"), fault_rows),
            _table("Last tasks", ("task id", "external id", "account", "n", "status", "message"), task_rows),
            _table("Last requests", ("time", "method", "path", "status", "code", "fault"), request_rows),
            "<p>As JSON: "
            + " · ".join(f'<a href="/_emulator/{name}">{name}</a>' for name in _BOOKS)
            + "</p>",
        ]
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=3>"
            f"<title>Kling emulator</title><style>{_LOOK}</style><body>{''.join(parts)}</body></html>"
        )
        return web.Response(text=page, content_type="text/html")


_BOOKS = ("tasks", "requests", "callbacks", "faults")


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    lines = ["<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<h2>{escape(title)}</h2><div class=scroll><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, headers={"Content-Type": JSON})


def _lever(
    pull: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make a route of *pull*: a JSON object in, a JSON object out, 400 with a message for what is wrong."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read() or b"{}")
            if not isinstance(body, dict):
                raise ConfigError("expected a JSON object, found something else")
            return _json(await pull(body))
        except ValueError:
            return _json({"error": "expected a JSON object, found no JSON"}, 400)
        except ConfigError as error:
            return _json({"error": str(error)}, 400)

    return answer
