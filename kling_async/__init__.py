"""
An asyncio-first SDK for the Kling image API, with a batch runner that keeps an account's slots full and never pays twice.

Names only, each loaded when it is first used (R29): importing this package imports neither asyncio nor aiohttp.
"""

from __future__ import annotations

from importlib import import_module

from kling_async._version import __version__

# The name alone tells a type checker; the module *typing* would take longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kling_async.batch.batch import Batch
    from kling_async.batch.manifest import BadRow, Row, read_manifest
    from kling_async.batch.outcomes import Failed, Outcome, Skipped, Succeeded
    from kling_async.batch.statistics import AccountStatistics, LaneStatistics, Statistics
    from kling_async.client.handles import TaskHandle
    from kling_async.client.kling import Kling
    from kling_async.client.raw import RawReply
    from kling_async.client.settings import Account
    from kling_async.errors import KlingError
    from kling_async.protocol.endpoints import Timeouts
    from kling_async.protocol.jobs import MultiImage
    from kling_async.protocol.packs import Pack
    from kling_async.protocol.sources import ImageSource
    from kling_async.protocol.tasks import ResultImage, Task, TaskStatus

_HOMES = {
    "Account": "client.settings",
    "AccountStatistics": "batch.statistics",
    "BadRow": "batch.manifest",
    "Batch": "batch.batch",
    "Failed": "batch.outcomes",
    "ImageSource": "protocol.sources",
    "Kling": "client.kling",
    "KlingError": "errors",
    "LaneStatistics": "batch.statistics",
    "MultiImage": "protocol.jobs",
    "Outcome": "batch.outcomes",
    "Pack": "protocol.packs",
    "RawReply": "client.raw",
    "ResultImage": "protocol.tasks",
    "Row": "batch.manifest",
    "Skipped": "batch.outcomes",
    "Statistics": "batch.statistics",
    "Succeeded": "batch.outcomes",
    "Task": "protocol.tasks",
    "TaskHandle": "client.handles",
    "TaskStatus": "protocol.tasks",
    "Timeouts": "protocol.endpoints",
    "read_manifest": "batch.manifest",
}

__all__ = [
    "Account",
    "AccountStatistics",
    "BadRow",
    "Batch",
    "Failed",
    "ImageSource",
    "Kling",
    "KlingError",
    "LaneStatistics",
    "MultiImage",
    "Outcome",
    "Pack",
    "RawReply",
    "ResultImage",
    "Row",
    "Skipped",
    "Statistics",
    "Succeeded",
    "Task",
    "TaskHandle",
    "TaskStatus",
    "Timeouts",
    "__version__",
    "read_manifest",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
