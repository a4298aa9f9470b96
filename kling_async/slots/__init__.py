"""
Stores that share an account's slots between processes: `Kling(slots=RedisSlots("redis://…", limit=50))`.

`MemorySlots` serves one process, `SqliteSlots` one machine, `RedisSlots` any number of machines. Each is loaded when it is
first used: a client whose slots are its own needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kling_async.protocol.claims import Terms
    from kling_async.slots.memory import MemorySlots
    from kling_async.slots.redis import RedisSlots
    from kling_async.slots.sqlite import SqliteSlots
    from kling_async.slots.store import SlotStore

__all__ = ["MemorySlots", "RedisSlots", "SlotStore", "SqliteSlots", "Terms"]

_HOMES = {
    "MemorySlots": "kling_async.slots.memory",
    "RedisSlots": "kling_async.slots.redis",
    "SlotStore": "kling_async.slots.store",
    "SqliteSlots": "kling_async.slots.sqlite",
    "Terms": "kling_async.protocol.claims",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
