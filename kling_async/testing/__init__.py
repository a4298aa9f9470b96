"""
For the test suites of those who use this package: a pytest plugin with an emulator in a fixture.

pytest finds the plugin by itself where the package is installed. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kling_async.testing.running import RunningEmulator, running_emulator

__all__ = ["RunningEmulator", "running_emulator"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kling_async.testing import running

    return getattr(running, name)


def __dir__() -> list[str]:
    return sorted(__all__)
