"""
What may take the place of the network under a whole client.

With it a client opens no socket and calls nobody: its requests come as values and go back as replies, those for result
pictures included. All above it is the real thing, down to the bodies streamed while pictures are read.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from kling_async.protocol.codec import Reply
from kling_async.transport.bodies import BodyPayload

__all__ = ["Asked", "StandIn", "StandInSession", "lent"]


@define(eq=False)
class Asked:
    """One request: *headers* have lower-case names, the body is there once it was `read()`."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    _payload: BodyPayload | None = field(default=None, repr=False)

    async def read(self) -> bytes:
        """Have the client send its body and return it; what raises before that was never sent, what raises later was."""
        taken = _Taken()
        if self._payload is not None:
            await self._payload.write(taken)  # type: ignore[arg-type]  # of a writer a payload uses write() alone
        return b"".join(taken.pieces)


class StandIn(ABC):
    """
    Give one as *session* to `Kling`; it is borrowed and never closed.

    An `OSError` or `TimeoutError` raised by `answer()` is trouble with the connection. *pace* is how many of the client's
    seconds pass in a real one, so that its pauses take no time in a test; time limits of requests are the real ones.
    """

    pace: float = 1.0

    @abstractmethod
    async def answer(self, asked: Asked) -> Reply:
        """Answer one request."""


def lent(session: aiohttp.ClientSession | StandIn | None) -> aiohttp.ClientSession | StandInSession | None:
    """Return what requests go through if the caller lends *session*."""
    return StandInSession(session) if isinstance(session, StandIn) else session


@define
class _Taken:
    pieces: list[bytes] = field(factory=list)

    async def write(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))


@frozen
class _Content:
    _body: bytes

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body


@frozen
class StandInResponse:
    """The part of aiohttp's response that this package uses."""

    _reply: Reply

    @property
    def status(self) -> int:
        """HTTP's status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by the names that servers send."""
        return {name.title(): value for name, value in self._reply.headers.items()}

    @property
    def content(self) -> _Content:
        """The body."""
        return _Content(self._reply.body)

    @property
    def content_length(self) -> int | None:
        """How long the body is said to be."""
        announced = self._reply.headers.get("content-length", "")
        return int(announced) if announced.isdigit() else None

    def close(self) -> None:
        """Do nothing: there is no connection."""


@frozen(eq=False)
class StandInSession:
    """The part of aiohttp's session that this package uses, over a stand-in."""

    _stand_in: StandIn
    closed: bool = False

    @property
    def pace(self) -> float:
        """How many seconds of the client pass in a real one."""
        return self._stand_in.pace

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        data: BodyPayload | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        **_rest: object,
    ) -> AsyncIterator[StandInResponse]:
        """Put the request to the stand-in; it has as long as a server would have."""
        named = {name.lower(): value for name, value in (headers or {}).items()}
        async with asyncio.timeout(timeout.total if timeout else None):
            reply = await self._stand_in.answer(Asked(method, str(url), named, data))
        yield StandInResponse(reply)

    def get(
        self, url: URL, *, timeout: aiohttp.ClientTimeout | None = None, **_rest: object
    ) -> AbstractAsyncContextManager[StandInResponse]:
        """Put a GET to the stand-in."""
        return self.request("GET", url, timeout=timeout)
