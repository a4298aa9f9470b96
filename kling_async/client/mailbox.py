"""Events on their way to a watcher who takes his time: bounded, and counted where they are lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeAlias

import anyio.to_thread
from attrs import define, field

from kling_async.protocol.events import Event, Missed

__all__ = ["Letter", "MailThread", "Mailbox"]

# An event, and the context in which it happened where that is wanted.
Letter: TypeAlias = tuple[Event, Context | None]

_LONGEST = 10_000


@define(eq=False)
class Mailbox:
    """Keeps the newest *longest* events; whoever takes them is told first how many were lost before. For any thread."""

    longest: int = _LONGEST
    _letters: deque[Letter] = field(factory=deque, init=False, repr=False)
    _missed: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    _changed: threading.Condition = field(factory=threading.Condition, init=False, repr=False)

    def put(self, letter: Letter) -> None:
        """Add *letter*, in place of the oldest if there are too many; never waits."""
        with self._changed:
            if len(self._letters) >= self.longest:
                self._letters.popleft()
                self._missed += 1
            self._letters.append(letter)
            self._changed.notify()

    def take(self) -> Letter | None:
        """Take the next letter; None if there is none."""
        with self._changed:
            return self._next()

    def wait(self) -> Letter | None:
        """Wait for the next letter; None once the box is closed and empty. Blocks."""
        with self._changed:
            self._changed.wait_for(lambda: self._letters or self._closed)
            return self._next()

    def close(self) -> None:
        """Let who waits end when the box is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Throw away what nobody will take."""
        with self._changed:
            self._letters.clear()

    def _next(self) -> Letter | None:
        if self._missed:
            missed, self._missed = self._missed, 0
            return Missed(count=missed), None
        return self._letters.popleft() if self._letters else None


class MailThread:
    """Calls *watcher* with the letters of *mailbox* in a thread of its own; *failed* is told what it raises."""

    def __init__(
        self,
        mailbox: Mailbox,
        watcher: Callable[[Event], object],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._mailbox = mailbox
        self._watcher = watcher
        self._failed = failed
        # A daemon, so that a watcher that never returns does not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="kling-on-event", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the thread end when all was told; does not wait."""
        self._mailbox.close()

    async def aclose(self, grace: float) -> bool:
        """End the thread, after at most *grace* seconds; False if it still runs, blocked in its watcher."""
        self._mailbox.close()
        await anyio.to_thread.run_sync(self._thread.join, grace)
        if self._thread.is_alive():
            self._mailbox.clear()
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (letter := self._mailbox.wait()) is not None:
            event, context = letter
            try:
                if context is None:
                    self._watcher(event)
                else:
                    context.run(self._watcher, event)
            except Exception as error:  # noqa: BLE001  # a watcher may raise anything
                self._failed(error)
