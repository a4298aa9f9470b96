"""
Scripting and reading a server from another process: JSON over HTTP, at a port of its own where no fault strikes.

GET /books, GET /books?log=no · POST /faults [{...}] · POST /clear · POST /settings {...} · POST /clock {"skew",
"sent", "advance"} · POST /end-all · POST /deafen · POST /listen · POST /reset
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from attrs import define, field

from .bodies import Squeezer
from .books import Books
from .script import Fault
from .server import FaultServer
from .service import Settings
from .tasks import Tasks
from .wire import Line, Reader, Reply, listen

__all__ = ["Control"]


@define(eq=False)
class Control:
    """Listens beside *server* for as long as its `async with` lasts."""

    server: FaultServer
    _server: asyncio.Server | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where to send the orders."""
        assert self._server is not None  # only open ones have an address
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await listen(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # opened by __aenter__
        self._server.close()

    async def _serve(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        line, body = Line(reader, writer), Squeezer()
        head = await line.read_head()
        if head is not None and await line.read_body(int(head.get("content-length") or 0), body):
            try:
                told = await self._order(head.target, body.value() if body.length else None)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                await line.send(Reply(400, json.dumps({"error": repr(error)}).encode(), close=True), [], [])
            else:
                await line.send(Reply(200, json.dumps(told).encode(), close=True), [], [])
        writer.close()

    async def _order(self, target: str, value: Any) -> Any:
        if target.startswith("/books"):
            books = self.server.books.snapshot()
            return books if target == "/books" else {**books, "log": [], "charges": []}
        orders: dict[str, Callable[[Any], Awaitable[None]]] = {
            "/faults": self._faults,
            "/clear": self._clear,
            "/settings": self._settings,
            "/clock": self._clock,
            "/end-all": self._end_all,
            "/deafen": self._deafen,
            "/listen": self._listen,
            "/reset": self._reset,
        }
        await orders[target](value)
        return {"ok": True, "faults": len(self.server.script)}

    async def _faults(self, value: Any) -> None:
        self.server.break_with(*(Fault(**each) for each in value))

    async def _clear(self, _: Any) -> None:
        self.server.script.clear()

    async def _settings(self, value: Any) -> None:
        service = self.server.service
        service.settings = Settings.from_json(value, service.settings)

    async def _clock(self, value: Any) -> None:
        clock = self.server.service.clock
        clock.skew = value.get("skew", clock.skew)
        clock.sent = value.get("sent", clock.sent)
        clock.advance(value.get("advance", 0.0))

    async def _end_all(self, _: Any) -> None:
        self.server.service.tasks.end_all()

    async def _deafen(self, _: Any) -> None:
        await self.server.deafen()

    async def _listen(self, _: Any) -> None:
        await self.server.listen()

    async def _reset(self, _: Any) -> None:
        self.server.script.clear()
        self.server.service.books = Books(open_connections=self.server.books.open_connections)
        self.server.service.tasks = Tasks(self.server.service.tasks.seed)
