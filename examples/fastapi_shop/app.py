"""
The shop in FastAPI; in `examples/`: `python -m fastapi_shop.app 8000`, and open http://127.0.0.1:8000.

`GET /docs` describes the API. To try it without a key, see `kling-async emulator`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from shop.core import HOOK, MOST_BYTES, PAGE, PICTURES, Refused, Shop, location, show

from kling_async.integrations.asgi import callbacks, progress


def application() -> FastAPI:
    """Put the application together."""
    shop = Shop()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with shop:
            yield

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.mount("/live", progress(shop.jobs))
    app.mount("/static", StaticFiles(directory=PAGE))
    app.mount("/samples", StaticFiles(directory=PICTURES))
    if shop.has_callbacks:
        app.mount(HOOK, callbacks(shop.kling))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.post("/orders", status_code=202)
    async def order(
        *,
        photo: UploadFile | None = None,
        sample: Annotated[str, Form()] = "",
        scene: Annotated[str, Form()] = "",
        style: Annotated[str, Form()] = "",
        wish: Annotated[str, Form()] = "",
        count: Annotated[str, Form()] = "2",
    ) -> JSONResponse:
        """Accept an order; its address is in `Location`."""
        form = {"sample": sample, "scene": scene, "style": style, "wish": wish, "count": count}
        report = await shop.order(form, await photo.read(MOST_BYTES + 1) if photo else b"")
        return JSONResponse(show(report), 202, report.headers(location(report)))

    @app.get("/orders/{order_id}")
    async def status(order_id: str) -> JSONResponse:
        """Tell where an order stands."""
        report = await shop.jobs.find(order_id)
        if report is None:
            raise HTTPException(404, "there is no such order")
        return JSONResponse(show(report))

    @app.get("/orders/{order_id}/pictures/{index}")
    async def picture(order_id: str, index: int) -> FileResponse:
        """Return a picture of an order that has succeeded."""
        path = await shop.picture(order_id, index)
        if path is None:
            raise HTTPException(404, "there is no such picture")
        return FileResponse(path)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    # Open streams of events would hold up the end for ever.
    uvicorn.run(application, factory=True, host="127.0.0.1", port=port, timeout_graceful_shutdown=3)
