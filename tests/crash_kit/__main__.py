"""`python -m crash_kit '{"url": …}'` is a client that carries out one order; without one, what clients are forked from."""

from __future__ import annotations

import json
import signal
import sys

# The unused ones, so that no client that is forked from here has to import them.
import anyio._backends._asyncio  # noqa: F401
import jwt  # noqa: F401

import kling_async.batch.batch
import kling_async.client.kling  # noqa: F401

from .victim import Order, play
from .zygote import serve

# What a shell starts in the background ignores Ctrl-C, and so do its children unless they say otherwise.
signal.signal(signal.SIGINT, signal.default_int_handler)
if len(sys.argv) > 1:
    sys.exit(play(Order(**json.loads(sys.argv[1]))))
serve()
