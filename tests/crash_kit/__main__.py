"""`python -m crash_kit '{"url": …}'` is a client that carries out one order; without one, what clients are forked from."""

from __future__ import annotations

import json
import sys
from importlib import import_module

from .victim import Order, play
from .zygote import serve

# So that no client that is forked from here has to import them.
for name in ("anyio._backends._asyncio", "jwt", "kling_async.batch.batch", "kling_async.client.kling"):
    import_module(name)

if len(sys.argv) > 1:
    sys.exit(play(Order(**json.loads(sys.argv[1]))))
serve()
