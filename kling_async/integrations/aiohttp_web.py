"""For aiohttp.web: sub-apps that do what those of `asgi` do."""

from __future__ import annotations

from contextlib import aclosing, suppress

import anyio
from aiohttp import web

from kling_async.client.kling import Kling
from kling_async.integrations.board import Live, live
from kling_async.integrations.progress import HEADERS, Refusal, Streams

__all__ = ["progress_app"]

# Seconds between looks at whether a reader has gone.
_LOOK = 0.5


def progress_app(
    source: Kling | Live,
    *,
    all_tasks: bool = False,
    heartbeat: float = 15.0,
    most_streams: int = 1000,
) -> web.Application:
    """
    Return a sub-app that tells browsers how tasks go on.

    Put it in its place with `app.add_subapp("/kling/live/", progress_app(kling))`. Takes and does what `asgi.progress()`
    does. Streams end when the application shuts down.
    """
    watched = live(source)
    streams = Streams(watched, all_tasks=all_tasks, heartbeat=heartbeat, most_streams=most_streams)

    async def stream(request: web.Request) -> web.StreamResponse:
        ids = request.query.getall("task", [])
        begun = await streams.begin(request.method, ids, request.headers.get("Last-Event-ID", ""))
        if isinstance(begun, Refusal):
            return web.Response(status=begun.status, headers=begun.headers, body=begun.body)
        response = web.StreamResponse(headers=HEADERS)
        async with aclosing(begun), anyio.create_task_group() as group:
            group.start_soon(_until_gone, request, group.cancel_scope)
            with suppress(ConnectionError):
                await response.prepare(request)
                async for piece in begun:
                    await response.write(piece)
            group.cancel_scope.cancel()
        return response

    async def end(_: web.Application) -> None:
        # The server waits for its handlers, and these would never return.
        watched.board.close()

    app = web.Application()
    app.router.add_route("*", "/", stream)
    app.router.add_route("*", "", stream)
    app.on_shutdown.append(end)
    return app


async def _until_gone(request: web.Request, scope: anyio.CancelScope) -> None:
    # aiohttp tells nobody, unless the whole server cancels its handlers; without a write it is seen by looking.
    while request.transport is not None:
        await anyio.sleep(_LOOK)
    scope.cancel()
