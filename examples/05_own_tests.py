"""
Testing your own program without a key, a network or a mock: `pytest 05_own_tests.py`.

You will see two tests pass. The fixture `kling_emulator` comes with the package; it is a whole local service on a
port of this machine, so your code runs as it is. `kling_env` puts its address into the environment besides.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kling_async import Kling
from kling_async.errors import ContentRefusal
from kling_async.testing import RunningEmulator

PICTURES = Path(__file__).parent / "pictures"


async def portrait(kling: Kling, prompt: str) -> bytes:
    """Stand here for your own code."""
    task = await kling.images.multi_image.run(subject_images=[PICTURES / "robot.jpg"], prompt=prompt)
    return await task.images[0].read()


def test_pictures_arrive(kling_emulator: RunningEmulator) -> None:
    """The code returns a PNG, and made one task for it."""

    async def main() -> bytes:
        async with kling_emulator.client() as kling:
            return await portrait(kling, "a robot")

    assert asyncio.run(main()).startswith(b"\x89PNG")
    assert [task.prompt for task in kling_emulator.tasks] == ["a robot"]


@pytest.mark.kling_emulator(faults="1301")
def test_refusals_surface(kling_env: RunningEmulator) -> None:
    """A refused prompt reaches the caller as an error, with no task made."""

    async def main() -> None:
        async with Kling() as kling:
            with pytest.raises(ContentRefusal):
                await portrait(kling, "a robot")

    asyncio.run(main())
    assert kling_env.tasks == []
