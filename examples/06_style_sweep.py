"""
A style sweep: the same subject in every style with every prompt, which is a product of lists.

You will see what it costs at most before anything is sent, a line for each of the eight pictures as it comes, and in
the end the files by style, to be laid side by side. Keys are made of the parts, so the files say what they are.
Needs credentials in the environment.
"""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path

from kling_async import Kling, MultiImage, Succeeded

PICTURES = Path(__file__).parent / "pictures"
SUBJECT = "robot"
STYLES = ["watercolour", "harbour"]
PROMPTS = {
    "rain": "A robot waits in the rain",
    "tea": "A robot drinks tea",
    "letter": "A robot reads a letter",
    "dance": "A robot dances",
}


def sweep() -> list[MultiImage]:
    """Return a job for each pair of style and prompt."""
    return [
        MultiImage(
            key=f"{SUBJECT}-{style}-{name}",
            subject_images=[PICTURES / f"{SUBJECT}.jpg"],
            style_image=PICTURES / f"{style}.jpg",
            prompt=prompt,
        )
        for style, (name, prompt) in product(STYLES, PROMPTS.items())
    ]


async def main() -> None:
    """Make the sweep, and for no more than was said."""
    jobs = sweep()
    cost = sum(job.units for job in jobs)
    print(f"{len(jobs)} pictures, at most {cost} units")
    done: dict[str, list[str]] = {style: [] for style in STYLES}
    async with Kling() as kling, kling.batch(jobs, out="out", budget=cost) as batch:
        async for outcome in batch:
            print(outcome.key, "done" if isinstance(outcome, Succeeded) else outcome)
            if isinstance(outcome, Succeeded):
                done[outcome.key.split("-")[1]] += map(str, outcome.files)
    for style, files in done.items():
        print(style, *sorted(files))


if __name__ == "__main__":
    asyncio.run(main())
