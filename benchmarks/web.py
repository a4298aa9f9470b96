"""
An app whose handlers wait for pictures, and how long everything else in it has to wait for them (S13).

The app is aiohttp.web on one core with one client. Visitors in another process keep 1,000 requests open, each of which
awaits `run()` and is followed by the next; meanwhile an endpoint that does nothing is asked two hundred times a
second. Beside it stands the same app whose handlers only sleep as long. On a machine that has other work too the
kernel makes everybody wait, so the CPU time between two looks at the loop is told as well.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from benchmarks.harness import ROOT, SERVER_CORE, Figure, Variants, compare, main, measured

_NAME = "benchmarks.web"
_VISITORS = 1_000
_SHORTEST, _LONGEST = 4.0, 8.0
# Seconds in which the visitors come, and for which is measured after that.
_COMING, _STAYING = 4.0, 20.0


def handlers(options: dict[str, Any]) -> dict[str, float]:
    """Serve handlers that await `run()` on one client."""
    from aiohttp import web

    from kling_async import Kling

    async def run() -> dict[str, float]:
        kling = Kling(api_key="a" * 32, base_url=options["url"], slots=_VISITORS, trust_env=False)

        async def picture(_: web.Request) -> web.Response:
            task = await kling.images.multi_image.run(
                subject_images=["https://example.com/dress.png"], prompt="Red"
            )
            return web.Response(text=task.task_id)

        async with kling:
            return await _serve(picture)

    return asyncio.run(run())


def asleep(_: dict[str, Any]) -> dict[str, float]:
    """Serve handlers that sleep as long as a task takes."""
    from aiohttp import web

    async def nap(_: web.Request) -> web.Response:
        await asyncio.sleep(random.uniform(_SHORTEST, _LONGEST))
        return web.Response()

    return asyncio.run(_serve(nap))


async def _serve(handler: Any) -> dict[str, float]:
    from aiohttp import web

    async def ping(_: web.Request) -> web.Response:
        return web.Response(text="pong")

    app = web.Application()
    app.router.add_get("/picture", handler)
    app.router.add_get("/ping", ping)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2 * _VISITORS).start()
    port = runner.addresses[0][1]
    held = _Held()
    held.look()
    with measured() as found:
        words = [sys.executable, "-m", _NAME, "--child", "visitors", json.dumps({"port": port})]
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        told, _ = await process.communicate()
    late = held.stop()
    await runner.cleanup()
    heard: dict[str, float] = json.loads(told)
    return found | late | heard


class _Held:
    """Notes how much CPU the loop has spent each time it comes round to look; figures in milliseconds."""

    def __init__(self) -> None:
        self._spent: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()

    def look(self) -> None:
        """Look now, and every 5 ms from now on."""
        now = time.thread_time()
        self._spent.append(1000 * (now - self._last))
        self._last = now
        self._timer = self._loop.call_later(0.005, self.look)

    def stop(self) -> dict[str, float]:
        """Look no more and return the figures."""
        self._timer.cancel()
        spent = sorted(self._spent)
        return {"held_p99": spent[int(0.99 * (len(spent) - 1))], "held_max": spent[-1]}


# The visitors, in a process of their own.


def visitors(options: dict[str, Any]) -> dict[str, float]:
    """Keep the requests open, and ask the other endpoint meanwhile."""
    import os

    os.sched_setaffinity(0, {SERVER_CORE})
    return asyncio.run(_visit(options["port"]))


async def _visit(port: int) -> dict[str, float]:
    end = time.monotonic() + _COMING + _STAYING
    answers: list[int] = []
    waiting = [
        asyncio.create_task(_stay(port, number * _COMING / _VISITORS, end, answers))
        for number in range(_VISITORS)
    ]
    await asyncio.sleep(_COMING)
    begun = len(answers)
    took = await _ping(port, end)
    pictures = len(answers) - begun
    await asyncio.gather(*waiting)
    took.sort()
    return {
        "ping_p50": took[len(took) // 2],
        "ping_p99": took[int(0.99 * (len(took) - 1))],
        "ping_max": took[-1],
        "pings": len(took),
        "pictures": pictures,
        "refused": sum(status != 200 for status in answers),
    }


async def _stay(port: int, after: float, end: float, answers: list[int]) -> None:
    await asyncio.sleep(after)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        answers.append(await _ask(reader, writer, "/picture"))
    writer.close()


async def _ping(port: int, end: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while (began := time.perf_counter()) and time.monotonic() < end:
        await _ask(reader, writer, "/ping")
        took.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(0.005)
    writer.close()
    return took


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
    await reader.readexactly(int(length.partition(":")[2]))
    return int(head.split()[1])


VARIANTS: Variants = {"handlers": handlers, "asleep": asleep, "visitors": visitors}


def measure(repeat: int) -> list[Figure]:
    """Compare handlers that wait for pictures with those that sleep."""
    server: dict[str, float] = {"slots": _VISITORS, "shortest": _SHORTEST, "longest": _LONGEST}
    runs = compare(_NAME, ["handlers", "asleep"], {}, repeat=repeat, server=server)
    ours, bare = runs["handlers"], runs["asleep"]
    assert not ours["refused"], f"{ours['refused']:.0f} requests were refused"
    late, rate = ours["ping_p99"], ours["pictures"] / _STAYING
    return [
        Figure(
            "S13",
            f"another endpoint beside {_VISITORS:,} handlers in run(), p99 ({rate:.0f} tasks a second; "
            f"beside sleeping ones {bare['ping_p99']:.1f} ms)",
            "≤ 20 ms",
            f"{late:.1f} ms",
            late <= 20,
        ),
        Figure(
            "S13",
            f"CPU between two looks at the loop, p99 (most: {ours['held_max']:.0f} ms, in the garbage collector)",
            "≤ 20 ms",
            f"{ours['held_p99']:.1f} ms",
            ours["held_p99"] <= 20,
        ),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
