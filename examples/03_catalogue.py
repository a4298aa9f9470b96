"""
A shop's catalogue: a manifest in CSV, a spending limit, and rows that are wrong.

You will see one line a row: pictures for the four good ones, and for the two bad ones the field, the rule and what to
do. The good ones cost 240 units; a job that would pass the budget of 300 would not be sent, and the run would say so.
`out/results.jsonl` has it all for the next program. Needs credentials in the environment; the first argument may be
another manifest.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kling_async import Kling, Succeeded, read_manifest
from kling_async.errors import BudgetSpent

MANIFEST = Path(__file__).parent / "catalogue.csv"


async def main(manifest: Path, budget: int) -> None:
    """Run the rows of *manifest* for at most *budget* units."""
    async with Kling() as kling, kling.batch(read_manifest(manifest), out="out", budget=budget) as batch:
        try:
            async for outcome in batch:
                if isinstance(outcome, Succeeded):
                    print("done  ", outcome.key, *outcome.files)
                else:
                    print("not   ", outcome.key, getattr(outcome, "error", ""))
        except BudgetSpent as end:
            print("stopped", end)
        numbers = batch.statistics()
        print(f"{numbers.succeeded} done, {numbers.failed} failed, {numbers.units} units spent")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else MANIFEST, budget=300))
