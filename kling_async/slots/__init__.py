"""
Stores that share an account's slots between processes: `Kling(slots=RedisSlots("redis://…", limit=50))`.

`MemorySlots` serves one process, `SqliteSlots` one machine, `RedisSlots` any number of machines.
"""

from __future__ import annotations

from kling_async.protocol.claims import Terms
from kling_async.slots.memory import MemorySlots
from kling_async.slots.redis import RedisSlots
from kling_async.slots.sqlite import SqliteSlots
from kling_async.slots.store import SlotStore

__all__ = ["MemorySlots", "RedisSlots", "SlotStore", "SqliteSlots", "Terms"]
