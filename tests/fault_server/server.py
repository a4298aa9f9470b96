"""
The server: sockets, the phases of each request, and the faults in them. asyncio streams only.

A client that goes away does not undo what was decided: a create whose body had arrived stays accepted, as it does
with the real service.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from attrs import define, evolve, field

from .bodies import Squeezer
from .books import Books, Entry
from .replies import edited, scripted
from .script import Fault, Phase, Script
from .service import Service, Settings, route_of
from .wire import Head, Line, Reader, Reply, Settled, listen

__all__ = ["FaultServer"]

_LABEL = 40


@define(eq=False)
class FaultServer:
    """
    A local Kling that goes wrong on order. `async with FaultServer() as server: server.url`.

    Add faults to *script*, change *service.settings* and *service.clock* at any time; read *books*.
    """

    service: Service = field(factory=Service)
    script: Script = field(factory=Script)
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)

    @classmethod
    def with_settings(cls, **settings: Any) -> Self:
        """Make a server whose account has these `Settings`."""
        return cls(Service(Settings(**settings)))

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def books(self) -> Books:
        """What happened so far."""
        return self.service.books

    def break_with(self, *faults: Fault) -> None:
        """Add *faults* to the script."""
        self.script.add(*faults)

    def change(self, **settings: Any) -> None:
        """Change settings of the account."""
        self.service.settings = evolve(self.service.settings, **settings)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def listen(self) -> None:
        """Begin (again) to accept connections, always at the same port."""
        self._server = await listen(self._connected, self.host, self.port, self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.service.host = self.url

    async def deafen(self) -> None:
        """Stop listening: connections are refused until *listen()*. Open ones are reset."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """End everything; hanging connections are reset."""
        await self.deafen()

    async def _connected(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # streams run this as a task
        self._tasks.add(task)
        books = self.books
        books.connections += 1
        books.open_connections += 1
        books.peak_connections = max(books.peak_connections, books.open_connections)
        line = Line(reader, writer, books.connections)
        try:
            await self._converse(line)
        except (Settled, ConnectionError):
            pass
        except asyncio.CancelledError:
            # Only *deafen()* cancels; streams would report it as an error of this callback.
            line.reset()
        finally:
            books.open_connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, line: Line) -> None:
        await self._strike(line, "connect", "*")
        while True:
            try:
                head = await line.read_head()
            except ValueError as error:
                self.books.oddities.append(f"connection {line.number}: {error}")
                return
            if head is None:
                return
            await self._request(line, head)
            line.answered += 1
            if (head.get("connection") or "").lower() == "close" or line.writer.is_closing():
                return
            await self._strike(line, "idle", "*")

    async def _request(self, line: Line, head: Head) -> None:
        entry = self._enter(line, head)
        body = Squeezer()
        reply = await self._strike(line, "head", entry.route, entry, head.target)
        if reply is not None:
            reply.close = True
            await self._send(line, reply, entry)
            await line.cut("fin")
        length = self._length(head)
        entry.complete = await line.read_body(length, body)
        entry.length, entry.sha256 = body.length, body.sha256 if body.length else ""
        if not entry.complete:
            raise Settled
        value, text = _parse(body, entry, head)
        reply = await self._strike(line, "read", entry.route, entry, text)
        if reply is None:
            reply = self.service.answer(head, value, entry)
            reply = await self._strike(line, "accepted", entry.route, entry, text, reply) or reply
        await self._send(line, reply, entry, text)

    def _enter(self, line: Line, head: Head) -> Entry:
        path = urlsplit(head.target).path
        entry = Entry(
            number=self.books.requests.total() + 1,
            connection=line.number,
            nth=line.answered + 1,
            at=self.service.clock.now(),
            method=head.method,
            path=path,
            route=route_of(head.method, path),
            headers=head.names(),
            authorized=head.get("authorization") is not None,
        )
        if entry.route == "get":
            entry.external_id = unquote(path.rpartition("/")[2])
        self.books.requests[entry.route] += 1
        self.books.log.append(entry)
        self._judge(head, entry)
        return entry

    def _judge(self, head: Head, entry: Entry) -> None:
        """Write down what a decent client would not have sent."""
        names, odd = head.names(), self.books.oddities
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            odd.append(f"{entry.route} {entry.number}: doubled headers {sorted(doubled)}")
        if "host" not in names:
            odd.append(f"{entry.route} {entry.number}: no Host")
        if "transfer-encoding" in names:
            odd.append(f"{entry.route} {entry.number}: chunked request")
        if entry.route == "result" and entry.authorized:
            odd.append(f"result {entry.number}: credentials sent to the result host")
        if (
            entry.route == "create"
            and (head.get("content-type") or "").partition(";")[0] != "application/json"
        ):
            odd.append(f"create {entry.number}: Content-Type is not application/json")

    def _length(self, head: Head) -> int:
        text = head.get("content-length") or "0"
        if not text.isdecimal() or head.get("transfer-encoding") is not None:
            raise Settled
        return int(text)

    async def _strike(
        self,
        line: Line,
        phase: Phase,
        route: str,
        entry: Entry | None = None,
        text: str = "",
        reply: Reply | None = None,
    ) -> Reply | None:
        """Let the phase's faults happen; return the answer they put in place of the true one, if they do."""
        for fault in self.script.take(phase, route, text, reused=line.answered > 0):
            if entry is not None:
                entry.faults.append(fault.name)
            if fault.action == "delay":
                await asyncio.sleep(fault.seconds or 0.0)
            elif fault.action in {"rst", "fin", "hang"}:
                await line.cut(fault.action, fault.seconds, deaf=phase == "head")
            elif fault.action == "edit":
                assert reply is not None  # only phase "accepted" can edit, and it has an answer
                reply = edited(fault, reply)
            else:
                reply = await scripted(fault, self.service)
        return reply

    async def _send(self, line: Line, reply: Reply, entry: Entry, text: str = "") -> None:
        if self.service.clock.sent:
            reply.headers.append(("Date", self.service.clock.date()))
        on_head = list(self.script.take("status", entry.route, text, reused=line.answered > 0))
        on_body = list(self.script.take("body", entry.route, text, reused=line.answered > 0))
        entry.faults += [fault.name for fault in on_head + on_body]
        entry.status, entry.code = reply.status, reply.code
        if entry.method == "HEAD":
            reply.body = b""
        await line.send(reply, on_head, on_body)
        if reply.close or reply.framing == "none":
            await line.cut("fin")


def _parse(body: Squeezer, entry: Entry, head: Head) -> tuple[Any, str]:
    """Return the JSON value (None if it is none) and the text that faults match."""
    if not body.length:
        return None, head.target
    try:
        value = body.value()
    except ValueError:
        return None, head.target
    if not isinstance(value, dict):
        return value, head.target
    entry.external_id = str(value.get("external_task_id") or "")
    entry.label = str(value.get("prompt") or "")[:_LABEL]
    return value, f"{head.target} {entry.external_id} {value.get('prompt')}"
