"""The shop in aiohttp.web; in `examples/`: `python -m aiohttp_shop.app 8000`, and open http://127.0.0.1:8000."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import web
from shop.core import HOOK, MOST_BYTES, PAGE, PICTURES, Refused, Shop, location, show

from kling_async.integrations.aiohttp_web import callback_app, progress_app

SHOP = web.AppKey("SHOP", Shop)
routes = web.RouteTableDef()


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Open the shop with the application and close it with it."""
    async with app[SHOP]:
        yield


@routes.get("/")
async def page(_: web.Request) -> web.StreamResponse:
    """Show the page."""
    return web.FileResponse(PAGE / "index.html")


@routes.post("/orders")
async def order(request: web.Request) -> web.StreamResponse:
    """Accept an order; its address is in `Location`."""
    fields = await request.post()
    photo = fields.get("photo")
    content = photo.file.read() if isinstance(photo, web.FileField) else b""
    form = {name: value for name, value in fields.items() if isinstance(value, str)}
    try:
        report = await request.app[SHOP].order(form, content)
    except Refused as error:
        return web.json_response({"detail": str(error)}, status=422)
    return web.json_response(show(report), status=202, headers=report.headers(location(report)))


@routes.get("/orders/{order_id}")
async def status(request: web.Request) -> web.StreamResponse:
    """Tell where an order stands."""
    report = await request.app[SHOP].jobs.find(request.match_info["order_id"])
    if report is None:
        raise web.HTTPNotFound(text="there is no such order")
    return web.json_response(show(report))


@routes.get(r"/orders/{order_id}/pictures/{index:\d{1,2}}")
async def picture(request: web.Request) -> web.StreamResponse:
    """Return a picture of an order that has succeeded."""
    path = await request.app[SHOP].picture(request.match_info["order_id"], int(request.match_info["index"]))
    if path is None:
        raise web.HTTPNotFound(text="there is no such picture")
    return web.FileResponse(path)


def application() -> web.Application:
    """Put the application together."""
    # A little more than a photo, for the other fields; a larger body is a 413.
    app = web.Application(client_max_size=MOST_BYTES + 100_000)
    app[SHOP] = shop = Shop()
    app.cleanup_ctx.append(opened)
    app.add_routes(routes)
    app.add_subapp("/live/", progress_app(shop.jobs))
    app.router.add_static("/static", PAGE)
    app.router.add_static("/samples", PICTURES)
    if shop.has_callbacks:
        app.add_subapp(HOOK, callback_app(shop.kling))
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
