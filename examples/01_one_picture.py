"""
One picture, awaited: a dress is put into a meadow.

You will see the ids of the task as soon as it is made, its status as it changes, and the path of the picture saved
into the folder `out`. Needs credentials in the environment (`KLING_API_KEY`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kling_async import Kling

PICTURES = Path(__file__).parent / "pictures"


async def main() -> None:
    """Make one task, watch it and save what it made."""
    async with Kling() as kling:
        handle = await kling.images.multi_image.create(
            subject_images=[PICTURES / "dress.jpg"],
            scene_image=PICTURES / "meadow.jpg",
            prompt="A red dress drying in the wind over the meadow",
            aspect_ratio="16:9",
        )
        print("task", handle.task_id, "also known as", handle.external_task_id)
        async for task in handle.events():
            print("status", task.status.value)
        task = await handle
        for image in task.images:
            print("saved", await image.save("out"))


if __name__ == "__main__":
    asyncio.run(main())
