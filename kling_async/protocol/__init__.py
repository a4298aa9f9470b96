"""
The rules of the service and of this SDK as pure code.

Nothing here opens a socket, reads a clock, rolls dice, touches a disk or logs: whatever depends on time takes
*now*, whatever depends on chance takes the drawn number. A test holds this.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kling_async.protocol import events as events  # a name of this package for type checkers
else:

    def __getattr__(name: str) -> object:
        # Loaded with the first watcher: events are not made for nobody.
        if name == "events":
            import kling_async.protocol.events

            return kling_async.protocol.events
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
