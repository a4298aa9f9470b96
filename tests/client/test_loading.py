"""What is loaded when: little for the first request, the rest beside it, and never on the loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import kling_async

LATER = {
    "cattrs",
    "statistics",
    "kling_async.client.callbacks",
    "kling_async.client.poller",
    "kling_async.client.results",
    "kling_async.client.subscriptions",
    "kling_async.protocol.events",
    "kling_async.protocol.fitting",
    "kling_async.protocol.polling",
    "kling_async.protocol.wire",
    "kling_async.transport.downloads",
    "kling_async.transport.fitting",
    "kling_async.transport.stand_in",
}


def run(program: str) -> list[str]:
    """Run *program* in a new interpreter and return the words it prints."""
    root = str(Path(kling_async.__file__).parents[1])
    path = os.pathsep.join((root, str(Path(__file__).parents[1])))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_client_that_has_asked_nothing_has_loaded_little() -> None:
    """Neither what polls, downloads, decodes, tells events or reads tasks is loaded for a client that was only made."""
    found = run(
        """
        import sys
        from kling_async import Kling

        Kling(api_key="k" * 40)
        print(*sys.modules)
        """
    )

    assert "kling_async.client.kling" in found
    assert not LATER & set(found)


def test_what_a_task_needs_is_loaded_beside_its_create() -> None:
    """Loading what polls and reads tasks holds no loop: another thread does it while the first create is on its way."""
    found = run(
        """
        import asyncio, sys, threading
        from importlib.abc import MetaPathFinder
        from kling_async import Kling
        from kling_async.emulator import Emulator, Fault
        from socket_kit import client, job

        looked_for = {}

        class Watch(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                looked_for.setdefault(name, threading.current_thread() is threading.main_thread())

        async def main():
            async with Emulator(speed=1, task_seconds=1.0, paint="stamp") as emulator, client(emulator) as kling:
                sys.meta_path.insert(0, Watch())
                task = await kling.images.multi_image.run(job())
                assert task.images

        asyncio.run(main())
        for name, on_the_loop in looked_for.items():
            print(name, on_the_loop)
        """
    )
    on_the_loop = dict(zip(found[::2], found[1::2], strict=True))

    for module in ("client.poller", "client.results", "protocol.wire"):
        assert on_the_loop[f"kling_async.{module}"] == "False", module
    assert not [
        name for name, here in on_the_loop.items() if here == "True" and name.startswith("kling_async")
    ]
