"""
A crash, and the same program again: `python 07_resume.py crash`, then `python 07_resume.py`.

You will see two jobs done before the program is gone as if by a power cut, in the midst of others. The second start
passes over what was done, collects what had been sent meanwhile, and makes the rest. No job is paid for twice: the
journal `out/journal.db` has each intent on the disk before it is sent. Needs credentials in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from kling_async import Failed, Kling, MultiImage, Skipped, Succeeded

PICTURES = Path(__file__).parent / "pictures"


async def main(*, crash: bool) -> None:
    """Run twelve jobs into `out`, or continue with them."""
    jobs = [
        MultiImage(key=f"jug-{hour:02}", subject_images=[PICTURES / "jug.jpg"], prompt=f"A jug at {hour}:00")
        for hour in range(12)
    ]
    done = 0
    async with Kling() as kling, kling.batch(jobs, out="out") as batch:
        async for outcome in batch:
            match outcome:
                case Succeeded(key=key, files=files):
                    done += 1
                    print("done", key, *files, flush=True)
                case Skipped(key=key):
                    print("was done before", key)
                case Failed(key=key, error=error):
                    print("failed", key, error)
            if crash and done == 2:
                os._exit(9)  # nothing is tidied up
    print(done, "done by this run")


if __name__ == "__main__":
    asyncio.run(main(crash="crash" in sys.argv[1:]))
