"""
Live progress for browsers: the states of tasks as server-sent events, in plain ASGI.

    GET /?task=ID&task=ID        the states of these tasks, each at once and then whenever it changes

An event is named `task` and holds the latest state as JSON; between changes a comment keeps proxies from closing.
When all tasks that were asked for have ended, an event `end` follows and the stream is over; whoever asks again with
what was read gets a 204, upon which a browser stops asking.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import parse_qs

import anyio
from attrs import define, field, frozen

from kling_async.client.kling import Kling
from kling_async.integrations.asgi_callbacks import App, Receive, Scope, Send, attend_lifespan
from kling_async.integrations.board import Live, Reader, live
from kling_async.protocol.endpoints import seconds

__all__ = ["Refusal", "Streams", "progress"]

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would collect events until a buffer is full.
    "X-Accel-Buffering": "no",
}
# Ids in one stream; a page shows no more, and each is looked at on every change.
_MOST_IDS = 50
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EVENT_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
# Seconds: what changes several times in between is told once.
_PAUSE = 0.05
# Seconds after which a browser comes again when the stream broke.
_RETRY = 2


@frozen
class Refusal:
    """Why there is no stream: an HTTP *status* and, unless it is 204, what is wrong."""

    status: int
    error: str = ""

    @property
    def body(self) -> bytes:
        """The JSON text of the answer."""
        return json.dumps({"error": self.error}).encode() if self.error else b""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {"Content-Type": "application/json"} if self.error else {}
        headers |= {"Allow": "GET"} if self.status == 405 else {}
        return headers | ({"Retry-After": "10"} if self.status == 503 else {})


@define(eq=False)
class Streams:
    """The streams of one mounted endpoint: what they have in common whatever the framework."""

    live: Live
    all_tasks: bool
    heartbeat: float
    most_streams: int
    _open: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        seconds("heartbeat", self.heartbeat)

    @property
    def open(self) -> int:
        """How many there are now."""
        return self._open

    async def begin(
        self, method: str, ids: Iterable[str], last_event_id: str
    ) -> AsyncGenerator[bytes, None] | Refusal:
        """Return the text of a stream in pieces, to be closed when the reader has gone, or why there is none."""
        wanted = frozenset(ids)
        refusal = self._refusal(method, wanted)
        if refusal is not None:
            return refusal
        for name in wanted:
            known = self.live.board.find(name) or await self.live.recall(name)
            if known is not None:
                self.live.board.post(known)
        version = self._version(last_event_id)
        with self.live.board.follow(wanted or None, version) as reader:
            if version and reader.finished:
                return Refusal(204)
        return self._stream(wanted, version)

    def _refusal(self, method: str, ids: frozenset[str]) -> Refusal | None:
        if method != "GET":
            return Refusal(405, f"expected GET, found {method}")
        if not ids and not self.all_tasks:
            return Refusal(400, "expected ?task=ID, found none; name the tasks to follow")
        if len(ids) > _MOST_IDS or not all(map(_ID.fullmatch, ids)):
            return Refusal(400, f"expected at most {_MOST_IDS} ids of tasks, found others")
        if self._open >= self.most_streams or self.live.closed:
            return Refusal(503, "no stream is free; come again later")
        return None

    def _version(self, last_event_id: str) -> int:
        found = _EVENT_ID.fullmatch(last_event_id)
        # The numbers of another process, or of this one before it was started again, mean nothing here.
        return int(found[2]) if found and found[1] == self.live.board.name else 0

    async def _stream(self, ids: frozenset[str], version: int) -> AsyncGenerator[bytes, None]:
        self._open += 1
        try:
            with self.live.board.follow(ids or None, version) as reader:
                yield f"retry: {1000 * _RETRY}\n\n".encode()
                while True:
                    if states := reader.take():
                        yield b"".join(
                            self._text(state.version, state.public(with_key=not ids)) for state in states
                        )
                    if reader.finished:
                        yield b"event: end\ndata: {}\n\n"
                        return
                    if self.live.closed:
                        return
                    if not await self._changed(reader):
                        yield b":\n\n"
        finally:
            self._open -= 1

    async def _changed(self, reader: Reader) -> bool:
        with anyio.move_on_after(self.heartbeat):
            await reader.changed()
            await anyio.sleep(_PAUSE)
            return True
        return False

    def _text(self, version: int, shown: dict[str, Any]) -> bytes:
        data = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        return f"id: {self.live.board.name}-{version}\nevent: task\ndata: {data}\n\n".encode()


def progress(
    source: Kling | Live,
    *,
    all_tasks: bool = False,
    heartbeat: float = 15.0,
    most_streams: int = 1000,
) -> App:
    """
    Return an ASGI app that tells browsers how tasks go on.

    Put it in its place with the framework's mount, as in `app.mount("/kling/live", progress(kling))`.
    *source* is a client, or a `Jobs`. A browser asks for the tasks whose ids it knows (`?task=ID`, external id or task
    id) and is told of no others; only with *all_tasks* may it leave them out and see everything, keys included: put
    your own authentication before that. A comment every *heartbeat* seconds keeps proxies from closing. A reader too
    slow for every state gets the latest ones; more than *most_streams* at once are refused with 503.
    """
    streams = Streams(live(source), all_tasks=all_tasks, heartbeat=heartbeat, most_streams=most_streams)

    # A function and no object with __call__: some frameworks look whether an app is a coroutine function.
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(streams, scope, receive, send)
        elif scope["type"] == "lifespan":
            await attend_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _answer(streams: Streams, scope: Scope, receive: Receive, send: Send) -> None:
    ids = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("task", [])
    text = dict(scope["headers"]).get(b"last-event-id", b"").decode("latin-1")
    begun = await streams.begin(scope["method"], ids, text)
    if isinstance(begun, Refusal):
        await _start(send, begun.status, begun.headers)
        await send({"type": "http.response.body", "body": begun.body})
        return
    async with aclosing(begun), anyio.create_task_group() as group:
        group.start_soon(_until_gone, receive, group.cancel_scope)
        # A server may say by this that the reader has gone.
        with suppress(OSError):
            await _tell(send, begun)
        group.cancel_scope.cancel()


async def _tell(send: Send, pieces: AsyncIterator[bytes]) -> None:
    await _start(send, 200, HEADERS)
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
