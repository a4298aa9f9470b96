"""
A local Kling: the image API's behaviour on this machine, for tests, demos and load runs of any HTTP client.

Nothing of this package uses it by itself. Names are loaded when they are first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kling_async.emulator.faults import Fault, Faults
    from kling_async.emulator.server import Emulator, serve
    from kling_async.emulator.settings import EmulatedAccount, EmulatorSettings

__all__ = ["EmulatedAccount", "Emulator", "EmulatorSettings", "Fault", "Faults", "serve"]

_HOMES = {
    "EmulatedAccount": "settings",
    "Emulator": "server",
    "EmulatorSettings": "settings",
    "Fault": "faults",
    "Faults": "faults",
    "serve": "server",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
