"""What the tests of web apps share: servers in processes of their own, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from attrs import define, field, frozen

__all__ = ["EXAMPLES", "Asgi", "Sent", "events", "free_port", "path_with", "served"]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def path_with(folder: Path) -> dict[str, str]:
    """Return the environment in which Python also imports from *folder*."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


@contextmanager
def served(
    command: Sequence[str], port: int, *, folder: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server with Python in a process of its own, in *folder*, until it is left; yields when *port* answers."""
    words = [sys.executable, *command]
    with (
        (folder / "server.log").open("ab") as log,
        subprocess.Popen(words, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(process, port, folder / "server.log")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not come up:\n{log.read_text(encoding='utf-8')}")


@frozen(kw_only=True)
class Sent:
    """One server-sent event; a comment has the name `comment`."""

    name: str
    data: Any = None
    event_id: str = ""


async def events(lines: AsyncIterable[bytes]) -> AsyncIterator[Sent]:
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
