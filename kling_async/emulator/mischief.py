"""
Puts replies on the socket, well or badly.

Each way to misbehave is one small coroutine in a table. What they return has been sent already or cannot be sent any
more; aiohttp only has to end the request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from aiohttp import web
from attrs import evolve

from kling_async.emulator.faults import Fault
from kling_async.emulator.wire import Reply, json_reply

__all__ = ["GATEWAY_PAGE", "misbehave", "rest", "send"]

# How often a silent request looks whether its client is still there, and the pieces in which a slow body drips.
_GLANCE = 0.1
_DRIPS = 10

GATEWAY_PAGE = Reply(
    502,
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
    "text/html",
)

Trick: TypeAlias = Callable[[web.Request, Fault, Reply, asyncio.Event], Awaitable[web.StreamResponse]]


def send(reply: Reply) -> web.Response:
    """Return *reply* as a response, to be sent as it is."""
    headers = {"Content-Type": reply.content_type, **reply.headers}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


async def misbehave(
    request: web.Request, fault: Fault, reply: Reply, closing: asyncio.Event
) -> web.StreamResponse:
    """Answer *request* the way *fault* has it, where *reply* would have been right; gives up waiting when *closing* is set."""
    return await _TRICKS[fault.action](request, fault, reply, closing)


async def rest(request: web.Request, seconds: float | None, closing: asyncio.Event) -> None:
    """Wait *seconds* (None: for ever), but not longer than the client or the emulator lives."""
    loop = asyncio.get_running_loop()
    end = float("inf") if seconds is None else loop.time() + seconds
    while not closing.is_set() and _alive(request) and (left := end - loop.time()) > 0:
        try:
            await asyncio.wait_for(closing.wait(), min(left, _GLANCE))
        except TimeoutError:
            continue


def _alive(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


async def _reset(
    request: web.Request, _fault: Fault, reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # Lingering for zero seconds turns the close into an RST.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return send(reply)


async def _close(
    request: web.Request, _fault: Fault, reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return send(reply)


async def _hang(
    request: web.Request, fault: Fault, reply: Reply, closing: asyncio.Event
) -> web.StreamResponse:
    await rest(request, fault.seconds, closing)
    return await _close(request, fault, reply, closing)


async def _gateway(
    _request: web.Request, _fault: Fault, _reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    return send(GATEWAY_PAGE)


async def _truncate(
    request: web.Request, fault: Fault, reply: Reply, closing: asyncio.Event
) -> web.StreamResponse:
    response = await _begin(request, reply)
    await response.write(reply.body[: len(reply.body) // 2])
    await _close(request, fault, reply, closing)
    return response


async def _drip(
    request: web.Request, fault: Fault, reply: Reply, closing: asyncio.Event
) -> web.StreamResponse:
    response = await _begin(request, reply)
    step = max(1, -(-len(reply.body) // _DRIPS))
    pause = (1.0 if fault.seconds is None else fault.seconds) / _DRIPS
    for at in range(0, len(reply.body), step):
        await rest(request, pause, closing)
        await response.write(reply.body[at : at + step])
    return response


async def _begin(request: web.Request, reply: Reply) -> web.StreamResponse:
    headers = {"Content-Type": reply.content_type, **reply.headers}
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    return response


async def _halve(
    _request: web.Request, _fault: Fault, reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    return send(evolve(reply, status=200, body=reply.body[: len(reply.body) // 2]))


async def _empty(
    _request: web.Request, _fault: Fault, reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    return send(evolve(reply, status=200, body=b""))


async def _bare(
    _request: web.Request, _fault: Fault, reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    return send(json_reply({"code": reply.code, "message": "SUCCEED", "request_id": ""}))


async def _page(
    _request: web.Request, _fault: Fault, _reply: Reply, _closing: asyncio.Event
) -> web.StreamResponse:
    return send(evolve(GATEWAY_PAGE, status=200, body=b"<html><body><h1>Not found</h1></body></html>"))


_TRICKS: Mapping[str, Trick] = MappingProxyType(
    {
        "reset-before-reading": _reset,
        "reset": _reset,
        "reset-after-accept": _reset,
        "close": _close,
        "close-after-accept": _close,
        "hang": _hang,
        "hang-after-accept": _hang,
        "html-502": _gateway,
        "html-502-after-accept": _gateway,
        "truncate": _truncate,
        "slow-body": _drip,
        "bad-json": _halve,
        "empty-body": _empty,
        "no-data": _bare,
        "short-picture": _truncate,
        "cut-picture": _halve,
        "html-picture": _page,
    }
)
