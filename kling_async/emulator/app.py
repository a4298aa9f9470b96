"""
The routes of the emulated service: a thin shell that reads requests, asks the pure parts and sends their replies.

Every call takes the same way (`_exchange`): what is due happens, faults get their chance before anything is accepted
and after, a `Refusal` becomes an answer, and one line goes into the request log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, TypeAlias
from uuid import UUID

from aiohttp import web
from attrs import define, field, frozen

from kling_async.emulator import wire
from kling_async.emulator.auth import Gate
from kling_async.emulator.clock import Clock
from kling_async.emulator.endpoints import ENDPOINTS, Endpoint
from kling_async.emulator.faults import Dice, Fault
from kling_async.emulator.intake import BIG, parse
from kling_async.emulator.mischief import misbehave, rest, send
from kling_async.emulator.pictures import Material, Reader
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.results import Gallery, LinkSigner
from kling_async.emulator.settings import EmulatedAccount, EmulatorSettings
from kling_async.emulator.store import Change, Circumstances, Store, Task
from kling_async.emulator.views import disguise, rearrange

__all__ = ["Api", "RequestRecord"]


@frozen(kw_only=True)
class RequestRecord:
    """One request as it was answered; *status* 0 means that no answer was sent, *fault* what it was struck by."""

    time: float
    method: str
    path: str
    route: str
    status: int
    code: int | None
    account: str
    external_task_id: str
    task_id: str
    fault: str


_NO_REPLY = wire.Reply(500, b"")


@define(eq=False)
class _Call:
    """A request on its way through."""

    route: str
    request: web.Request
    account: str = ""
    external_task_id: str = ""
    task_id: str = ""
    fault: str = ""


@define(eq=False, slots=False)
class _Struck(Exception):
    """A fault takes over; *reply* is what it spoils, if there is anything."""

    fault: Fault
    reply: wire.Reply = _NO_REPLY


_Work: TypeAlias = Callable[[_Call], Awaitable[wire.Reply]]

# Faults after which no status reaches the client.
_SILENT = ("reset", "close", "hang")


@define(eq=False, kw_only=True)
class Api:
    """The service's routes over one store; *noticed* is told each change a create makes."""

    settings: EmulatorSettings
    clock: Clock
    store: Store
    dice: Dice
    gate: Gate
    reader: Reader
    gallery: Gallery
    signer: LinkSigner
    wake: Callable[[], None]
    noticed: Callable[[Change], None]
    closing: asyncio.Event
    opened: float
    log: deque[RequestRecord] = field(repr=False)
    request_ids: Random = field(repr=False)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes: those of each endpoint, the account's, the result host's, and whatever else is asked for."""
        found = []
        for endpoint in ENDPOINTS:
            found += [
                web.post(endpoint.path, self._route("create", partial(self._create, endpoint))),
                web.get(endpoint.path, self._route("list", partial(self._list, endpoint))),
                web.get(endpoint.path + "/{id}", self._route("get", partial(self._get, endpoint))),
                web.route("*", endpoint.path, self._route("other", self._wrong_method)),
                web.route("*", endpoint.path + "/{id}", self._route("other", self._wrong_method)),
            ]
        return [
            *found,
            web.get("/account/costs", self._route("costs", self._costs)),
            web.get("/results/{task}/{name}", self._route("result", self._result)),
            web.route("*", "/{rest:.*}", self._route("other", self._nowhere)),
        ]

    def _route(self, route: str, work: _Work) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._exchange(_Call(route, request), work)

        return answer

    async def _exchange(self, call: _Call, work: _Work) -> web.StreamResponse:
        self.wake()
        reply = _NO_REPLY
        try:
            struck = self.dice.strike("early", call.route)
            if struck is None:
                reply = await work(call)
                struck = self._after(call, reply)
        except Refusal as refusal:
            reply, struck = wire.refused(refusal, self.request_id()), None
        except _Struck as planned:
            struck, reply = planned.fault, planned.reply
        if struck is not None:
            call.fault = struck.action
            if struck.code is not None:
                reply, struck = wire.refused(_refusal(struck), self.request_id()), None
        self._note(call, reply)
        return send(reply) if struck is None else await misbehave(call.request, struck, reply, self.closing)

    def _after(self, call: _Call, reply: wire.Reply) -> Fault | None:
        # A refused call meets no such fault: `5002-but-created` promises that there is a task.
        if call.route == "result":
            return self.dice.strike("after", "result", call.external_task_id) if reply.status == 200 else None
        return self.dice.strike("after", call.route, call.external_task_id) if reply.code == 0 else None

    async def _before(self, call: _Call) -> None:
        """Let the faults strike that keep the call from being carried out."""
        slow = self.dice.strike("wait", call.route, call.external_task_id)
        if slow is not None:
            call.fault = slow.action
            await rest(call.request, 1.0 if slow.seconds is None else slow.seconds, self.closing)
        struck = self.dice.strike("before", call.route, call.external_task_id)
        if struck is not None:
            raise _Struck(struck)

    def _note(self, call: _Call, reply: wire.Reply) -> None:
        silent = call.fault.startswith(_SILENT)
        page = call.fault.startswith("html-502")
        self.log.append(
            RequestRecord(
                time=self.clock.wall(),
                method=call.request.method,
                path=call.request.path,
                route=call.route,
                status=0 if silent else 502 if page else reply.status,
                code=None if silent or page else reply.code,
                account=call.account,
                external_task_id=call.external_task_id,
                task_id=call.task_id,
                fault=call.fault,
            )
        )

    def request_id(self) -> str:
        """Return a new request id, seeded."""
        return str(UUID(int=self.request_ids.getrandbits(128), version=4))

    def _admit(self, call: _Call) -> EmulatedAccount:
        account = self.gate.admit(call.request.headers.get("Authorization"), self.clock.wall())
        call.account = account.name
        return account

    async def _create(self, endpoint: Endpoint, call: _Call) -> wire.Reply:
        account = self._admit(call)
        body = await self._body(call.request)
        # Known before the body is judged, so that a fault for one external id strikes it in any case.
        wanted = body.get("external_task_id")
        call.external_task_id = wanted if isinstance(wanted, str) else ""
        await self._before(call)
        order = endpoint.order.parse(body, self.settings)
        pictures = await self.reader.read(order.pictures)
        around = self._around(order.external_task_id, pictures)
        self.wake()
        change = self.store.create(account, endpoint, order, self.clock.now(), around=around)
        call.task_id = change.task.task_id
        reply = wire.success(wire.accepted(change.task), self.request_id())
        self.noticed(change)
        return reply

    async def _body(self, request: web.Request) -> dict[str, Any]:
        if request.content_type != "application/json":
            raise Refusal(1200, "Content-Type must be application/json")
        try:
            raw = await request.read()
        except ConnectionResetError:
            # The client went away in mid-body: nobody is left to answer, and nothing was asked.
            raise web.HTTPBadRequest from None
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(1200, "Request body is too large", 413) from None
        return parse(raw) if len(raw) < BIG else await asyncio.to_thread(parse, raw)

    def _around(self, external_task_id: str, pictures: Sequence[Material]) -> Circumstances:
        struck = self.dice.strike("task", "create", external_task_id)
        lag = self.dice.strike("lag", "get", external_task_id)
        action = struck.action if struck else ""
        seconds = (struck.seconds or 60.0) if struck else 0.0
        told = (struck.message if struck else "") or "failed as a fault asked"
        unfit = next((each.trouble for each in pictures if each.trouble), "")
        return Circumstances(
            pictures=pictures,
            fails=unfit or (told if action == "fail-task" else ""),
            stuck=action == "stuck-task",
            slower=seconds if action == "slow-task" else 0.0,
            hidden=0.0 if lag is None else 10.0 if lag.seconds is None else lag.seconds,
        )

    async def _get(self, endpoint: Endpoint, call: _Call) -> wire.Reply:
        account = self._admit(call)
        wanted = call.request.match_info["id"]
        call.external_task_id = wanted
        await self._before(call)
        task = self.store.find(account, endpoint, wanted, self.clock.now())
        call.task_id, call.external_task_id = task.task_id, task.order.external_task_id
        return wire.success(self._show("get", task), self.request_id())

    async def _list(self, endpoint: Endpoint, call: _Call) -> wire.Reply:
        account = self._admit(call)
        await self._before(call)
        number = _whole(call.request.query, "pageNum", 1, 1000)
        size = _whole(call.request.query, "pageSize", 30, 500)
        strange = self.dice.strike("rows", "list")
        start = (number - 1) * size + (strange is not None and strange.action == "shifted-rows")
        rows = self.store.page(account, endpoint, start, size, self.clock.now())
        if strange is not None:
            call.fault = strange.action
            rows = rearrange(rows, strange.action)
        return wire.success([self._show("list", task) for task in rows], self.request_id())

    def _show(self, route: str, task: Task) -> dict[str, Any]:
        shown = wire.show(task, self.signer.links)
        if task.ended and (struck := self.dice.strike("state", route, task.order.external_task_id)):
            disguise(shown, struck.action)
        return shown

    async def _costs(self, call: _Call) -> wire.Reply:
        account = self._admit(call)
        await self._before(call)
        start = _whole(call.request.query, "start_time", None)
        if _whole(call.request.query, "end_time", None) < start:
            raise Refusal(1201, "end_time must not lie before start_time")
        name = call.request.query.get("resource_pack_name")
        return wire.success(
            wire.packs(self.store.ledgers[account.name], self.opened, name), self.request_id()
        )

    async def _result(self, call: _Call) -> wire.Reply:
        request = call.request
        call.task_id = request.match_info["task"]
        task = next(
            (each.by_id[call.task_id] for each in self.store.ledgers.values() if call.task_id in each.by_id),
            None,
        )
        call.external_task_id = task.order.external_task_id if task else ""
        await self._before(call)
        struck = self.dice.strike("picture", "result", call.external_task_id)
        expired = struck is not None and struck.action == "expired-link"
        if expired or not self.signer.holds(request.path, request.query):
            call.fault = "expired-link" if expired else ""
            return wire.Reply(403, b"<html><body><h1>403 Forbidden</h1></body></html>", "text/html")
        picture = await self.gallery.picture(task, request.match_info["name"]) if task else None
        if picture is None:
            return wire.Reply(404, b"<html><body><h1>404 Not Found</h1></body></html>", "text/html")
        reply = wire.Reply(200, picture, "image/png")
        if struck is not None:
            raise _Struck(struck, reply)
        return reply

    async def _wrong_method(self, call: _Call) -> wire.Reply:
        raise Refusal(1202, f"The requested method is invalid: {call.request.method} {call.request.path}")

    async def _nowhere(self, call: _Call) -> wire.Reply:
        raise Refusal(1203, f"The requested resource does not exist: {call.request.path}")


def _refusal(fault: Fault) -> Refusal:
    assert fault.code is not None
    message = fault.message or ("parallel task over resource pack limit" if fault.code == 1303 else "")
    return Refusal(fault.code, message, retry_after=fault.retry_after)


def _whole(query: Mapping[str, str], name: str, default: int | None, most: int = 10**15) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    lowest = 0 if default is None else 1
    if text is None or not text.isascii() or not text.isdecimal() or not lowest <= int(text) <= most:
        raise Refusal(1201, f"{name} must be an integer in [{lowest}, {most}], got {text!r}")
    return int(text)
