"""
Many pictures at once: three subjects in two scenes, as many in parallel as the account has slots.

You will see a line for each job as it finishes, in whatever order, and at the end how busy the slots were kept.
A job that fails is a line like any other and stops nothing. Needs credentials in the environment.
"""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path

from kling_async import Failed, Kling, MultiImage, Skipped, Succeeded

PICTURES = Path(__file__).parent / "pictures"


async def main() -> None:
    """Run six jobs and save their pictures into `out/images`."""
    jobs = [
        MultiImage(
            key=f"{subject}-{scene}",
            subject_images=[PICTURES / f"{subject}.jpg"],
            scene_image=PICTURES / f"{scene}.jpg",
            n=2,
        )
        for subject, scene in product(["dress", "jug", "robot"], ["meadow", "harbour"])
    ]
    async with Kling() as kling, kling.batch(jobs, out="out") as batch:
        async for outcome in batch:
            match outcome:
                case Succeeded(key=key, files=files):
                    print(key, *files)
                case Failed(key=key, error=error):
                    print(key, "failed:", error)
                case Skipped(key=key, reason=reason):
                    print(key, "skipped:", reason)
        busy = batch.statistics().slot_utilisation
    print(f"slots were busy for {busy or 0:.0%} of the time")


if __name__ == "__main__":
    asyncio.run(main())
