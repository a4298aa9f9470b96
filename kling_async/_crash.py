"""
Named places at which a test may kill the process, to prove that nothing is lost or paid twice there.

Nothing happens at them otherwise, and each costs one comparison. A journal passes the name of each state it has
committed; the other names say where they stand.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["arm", "crash_point"]

_armed: Callable[[str], None] | None = None


def crash_point(name: str) -> None:
    """Pass the place called *name*."""
    if _armed is not None:
        _armed(name)


def arm(trigger: Callable[[str], None] | None) -> None:
    """Have *trigger* called with the name of each place that is passed; for tests."""
    global _armed  # noqa: PLW0603  # one process, one trigger
    _armed = trigger
