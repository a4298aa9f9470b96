"""
A manifest through Ray Data: `python ray_batch.py jobs.jsonl OUT` adds the paint step to a pipeline of yours.

Ray repeats whole blocks when a worker dies; a row that is repeated finds its task and is not paid again. Credentials
and KLING_SLOTS_STORE come from the workers' environment. OUT is a folder that all workers see.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ray.data

from kling_async.scale import KlingStage


class Paint:
    """Does the jobs of a block at once; Ray keeps one for each worker, and with it one client."""

    def __init__(self, stage: KlingStage) -> None:
        self.stage = stage

    async def __call__(self, block: dict[str, Any]) -> AsyncIterator[dict[str, list[str]]]:
        """Turn lines of a manifest into lines of results."""
        rows = await asyncio.gather(*(self.stage.run(json.loads(line)) for line in block["text"]))
        yield {"key": [row["key"] for row in rows], "row": [json.dumps(row) for row in rows]}


def main(manifest: Path, out: Path) -> None:
    """Run *manifest* into *out* and say how many jobs ended how."""
    # The same name finds the same tasks when the pipeline is started again.
    stage = KlingStage(
        run=manifest.stem, limit=5, out=str(out.absolute()), base=str(manifest.absolute().parent)
    )
    lines = ray.data.read_text(str(manifest))
    done = lines.map_batches(
        Paint,
        fn_constructor_args=(stage,),
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(size=2),
        # They wait rather than compute; with a whole processor each, two would leave none for reading on a small machine.
        num_cpus=0.1,
    )
    rows = [json.loads(line["row"]) for line in done.take_all()]
    for status in sorted({row["status"] for row in rows}):
        print(f"{sum(row['status'] == status for row in rows)} {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
