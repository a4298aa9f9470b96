"""The server's two clocks, both settable: the wall clock for `Date` and tokens, the steady one for tasks' lives."""

from __future__ import annotations

import time
from email.utils import formatdate

from attrs import define

__all__ = ["Clock"]


@define(eq=False)
class Clock:
    """*skew* is how many seconds the server's wall clock is ahead of this machine's; *sent* is False to send no `Date`."""

    skew: float = 0.0
    sent: bool = True
    _leap: float = 0.0
    _second: int = 0
    _text: str = ""

    def now(self) -> float:
        """Return steady seconds."""
        return time.monotonic() + self._leap

    def wall(self) -> float:
        """Return seconds since 1970 as the server sees them."""
        return time.time() + self.skew + self._leap

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks at once."""
        self._leap += seconds

    def date(self) -> str:
        """Return the `Date` header's value, built once a second."""
        second = int(self.wall())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text
