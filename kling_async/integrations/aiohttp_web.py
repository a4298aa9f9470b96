"""The receiver of callbacks as a sub-application of aiohttp.web."""

from __future__ import annotations

import anyio
from aiohttp import web

from kling_async.client.callbacks import PATIENCE, Intake
from kling_async.client.kling import Kling

__all__ = ["callback_app"]


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
