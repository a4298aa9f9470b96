"""
Inside a web application: one client for as long as the server runs, a task awaited in a request.

You will see the address; open it with `?prompt=…` and the picture comes back some seconds later. All requests share
the client, so together they never pass the account's slots. Needs credentials in the environment; the port is the
first argument (0 for a free one).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from kling_async import Kling, KlingError
from kling_async.errors import InvalidJob

PICTURES = Path(__file__).parent / "pictures"
CLIENT = web.AppKey("CLIENT", Kling)


async def client(app: web.Application) -> AsyncIterator[None]:
    """Open the client with the application and close it with it."""
    async with Kling() as app[CLIENT]:
        yield


async def picture(request: web.Request) -> web.Response:
    """Answer with a new picture of the robot."""
    try:
        task = await request.app[CLIENT].images.multi_image.run(
            subject_images=[PICTURES / "robot.jpg"],
            prompt=request.query.get("prompt", "A robot in the rain"),
            wait_timeout=120,
        )
        return web.Response(body=await task.images[0].read(), content_type="image/png")
    except InvalidJob as error:  # the visitor's own mistake; nothing was sent
        return web.json_response({"field": error.field, "remedy": error.remedy}, status=422)
    except KlingError as error:
        return web.json_response({"error": str(error)}, status=502)


def application() -> web.Application:
    """Put the application together."""
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/", picture)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
