"""
For the test suites of those who use this package: an emulator in a fixture, and a service scripted without sockets.

pytest finds the plugin by itself where the package is installed. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kling_async.testing.running import RunningEmulator, running_emulator
    from kling_async.testing.scripted import Answer, Broken, ScriptedRequest, ScriptedTransport

__all__ = [
    "Answer",
    "Broken",
    "RunningEmulator",
    "ScriptedRequest",
    "ScriptedTransport",
    "running_emulator",
]

_RUNNING = frozenset({"RunningEmulator", "running_emulator"})


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "running" if name in _RUNNING else "scripted"
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
