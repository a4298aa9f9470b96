"""For those who serve with aiohttp.web: sub-applications that do what the apps of `asgi` do."""

from __future__ import annotations

from contextlib import aclosing, suppress

import anyio
from aiohttp import web

from kling_async.client.callbacks import PATIENCE, Intake
from kling_async.client.kling import Kling
from kling_async.integrations.asgi_progress import HEADERS, Refusal, Streams
from kling_async.integrations.board import Live, live

__all__ = ["callback_app", "progress_app"]

# Seconds between looks at whether a reader has gone.
_LOOK = 0.5


def callback_app(kling: Kling, *, patience: float = PATIENCE) -> web.Application:
    """
    Return an application that takes in the callbacks of *kling*.

    Add it with `add_subapp()` at the path of the client's *callback_url*. It answers 200 to what it took, also when
    that changed nothing, and an error to everything else; nothing that arrives can raise here. A body may take
    *patience* seconds to arrive.

    Raises `ConfigError` if the client has neither a *callback_url* nor a *webhook_secret*.
    """
    receiver = kling.callbacks.require()

    async def take(request: web.Request) -> web.Response:
        intake = receiver.intake(request.method, request.path, request.headers.items())
        complete = False
        with anyio.move_on_after(patience):
            complete = await _read(intake, request)
        response = web.Response(status=intake.finish(complete=complete))
        if response.status == 405:
            response.headers["Allow"] = "POST"
        if not complete and request.transport is not None:
            # Otherwise the server goes on reading for ten seconds, as it should where only the answer came early.
            await response.prepare(request)
            await response.write_eof()
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_route("*", "", take)
    app.router.add_route("*", "/{below:.*}", take)
    return app


async def _read(intake: Intake, request: web.Request) -> bool:
    """Read the body; False if its sender went away before its end."""
    try:
        while not intake.over and (piece := await request.content.readany()):
            intake.feed(piece)
    except (ConnectionError, web.HTTPException, web.RequestPayloadError):
        return False
    return True


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
    while request.transport is not None:  # noqa: ASYNC110  # no event is set anywhere
        await anyio.sleep(_LOOK)
    scope.cancel()
