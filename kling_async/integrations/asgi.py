"""Pure ASGI apps around a client, for Starlette, FastAPI, Litestar, Quart and whatever else can mount one."""

from __future__ import annotations

from kling_async.integrations.asgi_callbacks import callbacks
from kling_async.integrations.asgi_progress import progress

__all__ = ["callbacks", "progress"]
