"""
Batches over several machines: `KlingStage` runs single jobs on any engine, `DaskEngine` hands them out on Dask.

The engine decides where a job runs. That it is paid for once rests on none of that: it rests on external ids that are
the same in every execution, on asking before sending, and on the shared store, which lets one process send at a time.
"""

from __future__ import annotations

from kling_async.scale.dask import DaskEngine
from kling_async.scale.driver import Driver
from kling_async.scale.stage import Assignment, KlingStage

__all__ = ["Assignment", "DaskEngine", "Driver", "KlingStage"]
