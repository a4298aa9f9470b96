"""A small server for whatever is posted to it, and the way on to another one: what `kling-async webhook listen` is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
import anyio
from aiohttp import web
from attrs import field, frozen

from kling_async.errors import ConfigError, RequestTimeout, TransportError

__all__ = ["Received", "Taker", "forward", "listen"]

_LARGEST_BODY = 64 * 1024
# Seconds for a body to arrive in, and for whoever it is passed on to to answer in.
_PATIENCE = 10.0
# What belongs to one connection, or is made anew for the next one.
_OF_A_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@frozen(kw_only=True)
class Received:
    """A request as it came; *below* is its path and query, beginning with a slash."""

    method: str
    below: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


Taker: TypeAlias = Callable[[Received], Awaitable[int]]


@asynccontextmanager
async def listen(host: str, port: int, take: Taker) -> AsyncIterator[int]:
    """
    Serve on *host* and *port* (0 takes a free one), and answer each POST with the status that *take* returns; yields the port.

    Larger bodies than 64 KiB, packed and slow ones are refused. Raises `ConfigError` if the address cannot be had.
    """

    async def answer(request: web.Request) -> web.Response:
        if "Content-Encoding" in request.headers:
            raise web.HTTPUnsupportedMediaType
        body: bytes | None = None
        with anyio.move_on_after(_PATIENCE):
            body = await request.read()
        if body is None:
            raise web.HTTPRequestTimeout
        headers = tuple((name, value) for name, value in request.headers.items())
        received = Received(method=request.method, below=request.path_qs, headers=headers, body=body)
        return web.Response(status=await take(received))

    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_post("/{below:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"webhook listen: expected a free address, found {host}:{port} taken or not there ({error}); "
                "choose another --port or --host"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def forward(received: Received, url: str) -> int:
    """
    Post *received* on to *url* and what stood below ours, with its body and headers as they came; return the answer's status.

    Raises `TransportError` if nobody answers there.
    """
    target = url.rstrip("/") + received.below if received.below != "/" else url
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE)) as session,
            session.post(
                target, data=received.body, headers=_passed_on(received.headers), allow_redirects=False
            ) as reply,
        ):
            return reply.status
    except TimeoutError as error:
        raise RequestTimeout(f"{url} did not answer within {_PATIENCE:g} s", sent=True) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise TransportError(f"{url} cannot be reached: {error}", sent=False) from error


def _passed_on(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _OF_A_CONNECTION]
