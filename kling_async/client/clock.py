"""Time and chance, in one place, so that everything else can be told what they are."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import anyio
from attrs import frozen

__all__ = ["Clock"]


@frozen(kw_only=True)
class Clock:
    """*now* is monotonic seconds, *wall* Unix time, *dice* a number in [0, 1), *sleep* waits for seconds."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    dice: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
