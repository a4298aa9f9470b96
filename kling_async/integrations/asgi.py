"""For every ASGI framework (Starlette, FastAPI, Litestar, Quart): apps to mount, in plain ASGI."""

from __future__ import annotations

from kling_async.integrations.progress import progress

__all__ = ["progress"]
