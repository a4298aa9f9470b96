"""The shop in Litestar; in `examples/`: `python -m litestar_shop.app 8000`, and open http://127.0.0.1:8000."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from litestar import Litestar, Request, Response, asgi, get, post
from litestar.datastructures import UploadFile
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import File
from litestar.static_files import create_static_files_router
from shop.core import HOOK, MOST_BYTES, PAGE, PICTURES, Refused, Shop, location, show

from kling_async.integrations.asgi import callbacks, progress


def application() -> Litestar:
    """Put the application together."""
    shop = Shop()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with shop:
            yield

    @get("/", include_in_schema=False)
    async def page() -> File:
        return File(PAGE / "index.html", content_disposition_type="inline")

    @post("/orders", status_code=202, request_max_body_size=MOST_BYTES + 100_000)
    async def order(request: Request[Any, Any, Any]) -> Response[dict[str, object]]:
        """Accept an order; its address is in `Location`."""
        fields = await request.form()
        photo = fields.get("photo")
        content = await photo.read() if isinstance(photo, UploadFile) else b""
        form = {name: value for name, value in fields.items() if isinstance(value, str)}
        report = await shop.order(form, content)
        return Response(show(report), headers=report.headers(location(report)))

    @get("/orders/{order_id:str}")
    async def status(order_id: FromPath[str]) -> dict[str, object]:
        """Tell where an order stands."""
        report = await shop.jobs.find(order_id)
        if report is None:
            raise NotFoundException("there is no such order")
        return show(report)

    @get("/orders/{order_id:str}/pictures/{index:int}")
    async def picture(order_id: FromPath[str], index: FromPath[int]) -> File:
        """Return a picture of an order that has succeeded."""
        path = await shop.picture(order_id, index)
        if path is None:
            raise NotFoundException("there is no such picture")
        return File(path, filename=path.name, content_disposition_type="inline")

    def refused(_: Request[Any, Any, Any], error: Refused) -> Response[dict[str, str]]:
        return Response({"detail": str(error)}, status_code=422)

    handlers: list[Any] = [page, order, status, picture]
    handlers += [
        create_static_files_router("/static", [PAGE]),
        create_static_files_router("/samples", [PICTURES]),
    ]
    handlers.append(asgi("/live", is_mount=True, copy_scope=True)(progress(shop.jobs)))
    if shop.has_callbacks:
        handlers.append(asgi(HOOK, is_mount=True, copy_scope=True)(callbacks(shop.kling)))
    return Litestar(handlers, lifespan=[lifespan], exception_handlers={Refused: refused})


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    # Open streams of events would hold up the end for ever.
    uvicorn.run(application, factory=True, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
