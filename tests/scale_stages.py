"""Stages for tests of clusters; the workers import them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from kling_async import MultiImage
from kling_async.scale import Assignment, KlingStage

__all__ = ["EmptyStage", "PoisonStage"]


@frozen(kw_only=True)
class PoisonStage(KlingStage):
    """Dies, and the whole process with it, of jobs whose key says that they are poison."""

    async def run(self, job: Assignment | MultiImage | Mapping[str, object]) -> dict[str, Any]:
        """Do *job*, or die."""
        assert isinstance(job, Assignment), "a driver hands out assignments"
        if job.key.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        return await KlingStage.run(self, job)


@frozen(kw_only=True)
class EmptyStage(KlingStage):
    """Does nothing, so that only the way of a job through the cluster is measured."""

    async def run(self, job: Assignment | MultiImage | Mapping[str, object]) -> dict[str, Any]:
        """Return a row that says that all is well."""
        assert isinstance(job, Assignment), "a driver hands out assignments"
        row: dict[str, Any] = {
            "key": job.key,
            "status": "succeeded",
            "task_id": f"t-{job.key}",
            "account": "default",
        }
        row |= {
            "external_task_id": job.external_task_id,
            "units": 16.0,
            "files": [],
            "urls": [],
            "error": None,
        }
        return row | {"attempts": 1, "created_at": None, "finished_at": None, "final": True, "stops": False}
