"""What the tests of web apps share: streams of server-sent events, read over ASGI or a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from attrs import define, field, frozen

__all__ = ["Asgi", "Sent", "events"]


@frozen(kw_only=True)
class Sent:
    """One server-sent event; a comment has the name `comment`."""

    name: str
    data: Any = None
    event_id: str = ""


async def events(lines: AsyncIterator[bytes]) -> AsyncIterator[Sent]:
    """Parse a stream of server-sent events, as a browser does."""
    fields: dict[str, str] = {}
    async for raw in lines:
        line = raw.decode().rstrip("\n")
        if not line:
            if "data" in fields:
                yield Sent(
                    name=fields.get("event", "message"),
                    data=json.loads(fields["data"]),
                    event_id=fields.get("id", ""),
                )
            elif fields:
                yield Sent(name=next(iter(fields)) or "comment")
            fields = {}
            continue
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")


@define(eq=False)
class Asgi:
    """
    One GET to an ASGI app, as a server makes it: `async with Asgi(app, "task=t-1") as call`.

    The server takes what the app sends only while *flowing* is set, as one does whose reader is slow.
    """

    app: Callable[..., Any]
    query: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(factory=dict)
    status: int = 0
    said: dict[str, str] = field(factory=dict)
    body: bytes = b""
    flowing: asyncio.Event = field(factory=asyncio.Event)
    ended: asyncio.Event = field(factory=asyncio.Event)
    _gone: asyncio.Event = field(factory=asyncio.Event)
    _started: asyncio.Event = field(factory=asyncio.Event)
    _pieces: asyncio.Queue[bytes | None] = field(factory=asyncio.Queue)
    _task: asyncio.Task[None] = field(init=False)
    _first: bool = True

    async def __aenter__(self) -> Self:
        self.flowing.set()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": self.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
        }
        self._task = asyncio.ensure_future(self._run(scope))
        await self._started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.flowing.set()
        await self.leave()

    async def leave(self) -> None:
        """Close the connection, as a browser does whose page is left; returns when the app has ended."""
        self._gone.set()
        async with asyncio.timeout(10):
            await self._task

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self.app(scope, self._receive, self._send)
        finally:
            self.ended.set()
            self._started.set()
            self._pieces.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.said = {name.decode(): value.decode() for name, value in message["headers"]}
            self._started.set()
            return
        await self.flowing.wait()
        self.body += message["body"]
        self._pieces.put_nowait(message["body"])

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the answer as they come."""
        rest = b""
        while True:
            async with asyncio.timeout(10):
                piece = await self._pieces.get()
            if piece is None:
                break
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line + b"\n"

    def events(self) -> AsyncIterator[Sent]:
        """Yield the events of the stream."""
        return events(self.lines())
