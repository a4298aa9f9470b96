"""
Callbacks: how many can be verified, how soon they bring an end into the caller's hand (S3), and what they leave in memory.

The client serves its receiver with aiohttp.web on its own loop; the benchmark server posts to it, signed, as tasks end.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figure, Lag, Variants, compare, cpu, main, measured, resident
from benchmarks.poster import SECRET

if TYPE_CHECKING:
    from kling_async import Kling, TaskHandle

_NAME = "benchmarks.callbacks"
_PICTURE = "https://example.com/woman.png"
_RATE, _TASKS = 1_000, 4_000
# The first ends open the connections on which the others come.
_FIRST = 200
_WARM, _REQUESTS = 25_000, 50_000


def _body(number: int) -> bytes:
    link = "https://s15-kling-fdl.klingai.com/bs2/upload/result.png?x-kcdn-pid=112781&ksSecret=" + "0" * 400
    return (
        f'{{"task_id": "{number:018d}", "task_status": "succeed", "task_info": {{"external_task_id": "x-{number}"}}, '
        f'"task_result": {{"images": [{{"index": 0, "url": "{link}"}}]}}}}'
    ).encode()


def verify(options: dict[str, Any]) -> dict[str, float]:
    """Verify and read callbacks, each another one."""
    from kling_async.protocol.callbacks import Recent, Verifier, read_hint, sign

    verifier, recent, now = Verifier.of(SECRET), Recent(20_000, 600.0), 1_781_080_794
    given = []
    for number in range(options["count"]):
        name, body = f"message-{number}", _body(number)
        signature = sign(SECRET, name, now, body)
        headers = {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": signature}
        given.append((headers, body))
    with measured() as found:
        for headers, body in given:
            checked = verifier.check(headers, body, now)
            assert recent.add(checked.message_id, now)
            assert read_hint(body) is not None
    return {"rate": options["count"] / found["cpu"]}


@asynccontextmanager
async def _served(**options: Any) -> AsyncIterator[Kling]:
    """Open a client whose receiver listens."""
    from aiohttp import web

    from kling_async import Kling
    from kling_async.integrations.aiohttp_web import callback_app

    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    address = f"http://127.0.0.1:{sock.getsockname()[1]}/hook"
    async with Kling(api_key="k" * 40, callback_url=address, webhook_secret=SECRET, **options) as kling:
        app = web.Application()
        app.add_subapp("/hook", callback_app(kling))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, sock).start()
        yield kling
        await runner.cleanup()


def ends(options: dict[str, Any]) -> dict[str, float]:
    """Create tasks that end one after the other at a steady rate, and wait for all of them."""
    count = options["tasks"]

    async def wait(handle: TaskHandle, seen: list[tuple[float, float]]) -> None:
        done = await handle.wait()
        now = time.time()
        assert done.updated_at is not None
        end = done.updated_at.timestamp()
        seen.append((end, now - end))

    async def create(kling: Kling, numbers: range, handles: list[TaskHandle]) -> None:
        for number in numbers:
            made = await kling.images.multi_image.create(subject_images=[_PICTURE], prompt=f"number {number}")
            handles.append(made)

    async def run() -> dict[str, float]:
        seen: list[tuple[float, float]] = []
        handles: list[TaskHandle] = []
        async with _served(base_url=options["url"], slots=count) as kling:
            if options["settled"]:
                # As docs/web.md advises those whom a pause of the collector would hurt.
                await kling.images.multi_image.list(page_size=1)
                gc.collect()
                gc.freeze()
                gc.set_threshold(50_000, 20, 50)
            await asyncio.gather(*(create(kling, range(part, count, 64), handles) for part in range(64)))
            waiting = [asyncio.create_task(wait(handle, seen)) for handle in handles]
            lag = Lag()
            lag.start()
            with measured() as found:
                await asyncio.gather(*waiting)
            heeded = kling.callbacks.statistics().heeded
            found |= lag.stop()
        late = sorted(delay for _, delay in sorted(seen)[_FIRST:])
        return found | {
            "delay_mean": 1000 * sum(late) / len(late),
            "delay_p99": 1000 * late[int(0.99 * (len(late) - 1))],
            "heeded": heeded / count,
            "cpu_per_end": 1e6 * found["cpu"] / count,
        }

    return asyncio.run(run())


def flood(options: dict[str, Any]) -> dict[str, float]:
    """Take genuine callbacks about tasks that nobody waits for, until memory could have grown."""
    from benchmarks.poster import Poster

    async def run() -> dict[str, float]:
        async with _served(base_url="http://127.0.0.1:9") as kling:
            poster = Poster()
            address = kling.callbacks.address or ""

            async def post(first: int, count: int) -> None:
                for number in range(first, first + count):
                    poster.post(address, _body(number))
                    if number % 100 == 0:
                        # As fast as they are taken: what waits to be posted is no memory of the receiver's.
                        while poster.posted < number - 200:  # noqa: ASYNC110  # it tells nobody
                            await asyncio.sleep(0)
                while sum_of(kling) < first + count:  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.01)

            await post(0, options["warm"])
            gc.collect()
            before, used = resident(), cpu()
            await post(options["warm"], options["requests"])
            spent = cpu() - used
            gc.collect()
            assert poster.refused == 0
            return {"grown": resident() - before, "cpu_each": 1e6 * spent / options["requests"]}

    def sum_of(kling: Kling) -> int:
        counts = kling.callbacks.statistics()
        return counts.heeded + counts.unneeded + counts.repeated + counts.refused

    return asyncio.run(run())


VARIANTS: Variants = {"verify": verify, "ends": ends, "flood": flood}


def measure(repeat: int) -> list[Figure]:
    """Verify, wait and flood."""
    checked = compare(_NAME, ["verify"], {"count": 20_000}, repeat=repeat)["verify"]
    server: dict[str, float] = {"rate": _RATE, "shortest": 12.0, "slots": _TASKS}
    waited, plain = (
        compare(_NAME, ["ends"], {"tasks": _TASKS, "settled": settled}, repeat=times, server=server)["ends"]
        for settled, times in ((True, repeat), (False, 1))
    )
    flooded = compare(_NAME, ["flood"], {"warm": _WARM, "requests": _REQUESTS}, repeat=1)["flood"]
    rate, late, mean = checked["rate"], waited["delay_p99"], waited["delay_mean"]
    grown, looks = flooded["grown"], waited["requests"] / _TASKS - 1
    return [
        Figure(
            "S3",
            "callbacks verified and read a second, on one core",
            "≥ 5,000",
            f"{rate:,.0f}",
            rate >= 5_000,
        ),
        Figure(
            "S3",
            f"delay until an end is in hand with callbacks, {_RATE:,} ends a second, collector settled, p99 (mean {mean:.1f} ms, "
            f"{waited['cpu_per_end']:.0f} µs CPU an end, {looks:.2f} requests)",
            "≤ 10 ms",
            f"{late:.1f} ms",
            late <= 10,
        ),
        Figure(
            "S3",
            "the same with the collector as Python sets it, p99 and its longest pause",
            "-",
            f"{plain['delay_p99']:.1f} and {plain['own_max']:.1f} ms",
            True,
        ),
        Figure(
            "S3",
            f"memory that {_REQUESTS:,} callbacks leave behind ({flooded['cpu_each']:.0f} µs CPU each, sender included)",
            "≤ 1 MB",
            f"{grown:.1f} MB",
            grown <= 1,
        ),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
