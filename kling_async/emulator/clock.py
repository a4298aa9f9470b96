"""
The emulator's three clocks, all in seconds.

*now()* is emulated time: tasks, callbacks, links and the 30 days of the media live in it. It passes *speed* times as
fast as real time, stands still in manual mode and leaps with *advance()*. *stamp()* is what replies show
(`created_at`): the same moments as a client measures them, so that at speed 20 a task of 24 emulated seconds ends
1.2 s after its creation on both sides. *wall()* is for `Date` and tokens: real time plus *skew*, never speeded up, or
every token would expire at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Emulated time; *speed* is a factor, `"instant"` (tasks end at once) or `"manual"`."""

    def __init__(
        self,
        speed: float | str,
        *,
        skew: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.instant = speed == "instant"
        self.manual = speed == "manual"
        self.skew = skew
        self._rate = 0.0 if self.manual else 1.0 if isinstance(speed, str) else speed
        self._monotonic = monotonic
        self._wall = wall
        self._real = monotonic()
        # By hand, time begins at a whole second: the same steps then show the same stamps apart.
        self._emulated = self._stamped = float(int(wall())) if self.manual else wall()

    def __repr__(self) -> str:
        mode = "instant" if self.instant else "manual" if self.manual else f"{self._rate:g}x"
        return f"<Clock {mode}, at {self.now():.3f}>"

    def now(self) -> float:
        """Return emulated time, as seconds since 1970."""
        return self._emulated + (self._monotonic() - self._real) * self._rate

    def wall(self) -> float:
        """Return the time of `Date` headers and tokens, as seconds since 1970."""
        return self._wall() + self.skew

    def advance(self, seconds: float) -> None:
        """Leap forward by *seconds* of emulated time."""
        real = self._monotonic()
        if not self.manual:
            self._stamped += real - self._real
        self._emulated = self.now() + seconds
        self._stamped += seconds
        self._real = real

    def stamp(self, moment: float) -> int:
        """Return the emulated *moment* as replies show it, in milliseconds since 1970."""
        since = moment - self._emulated
        # What lies before the last leap is reckoned second by second; nothing after it exists in manual mode.
        shown = self._stamped + (since if since < 0 or self.manual else since / self._rate)
        return round((shown + self.skew) * 1000)

    def delay(self, moment: float) -> float | None:
        """Return the real seconds until the emulated *moment*, None if only *advance()* brings it."""
        if self.manual:
            return None
        return max(0.0, (moment - self.now()) / self._rate)
