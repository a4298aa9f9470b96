"""
Reading replies (S12): a list page of 500 tasks for the poll plan beside orjson and cattrs, and a single query.

The first is the time in which nothing else can run, from the bytes to what the plan needs.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from attrs import frozen

from benchmarks.harness import Figure, Variants, at_most, compare, main, measured

_NAME = "benchmarks.decode"
_PATH = "/v1/images/multi-image2image"
_PAGES = 100


@frozen
class _Image:
    index: int
    url: str


@frozen
class _Result:
    images: list[_Image]


@frozen
class _Info:
    external_task_id: str


@frozen
class _Task:
    task_id: str
    task_status: str
    task_status_msg: str
    task_info: _Info
    created_at: int
    updated_at: int
    task_result: _Result


def _page() -> bytes:
    """Make a page on which one task in ten has ended."""
    tasks = []
    for number in range(500):
        images = [{"index": 0, "url": "https://host.example/result.png?" + "0123456789abcdef" * 24}]
        ended = number % 10 == 0
        tasks.append(
            {
                "task_id": f"{number:018d}",
                "task_status": "succeed" if ended else "processing",
                "task_status_msg": "",
                "task_info": {"external_task_id": f"ka-{number:032x}"},
                "created_at": 1_760_000_000_000 + number,
                "updated_at": 1_760_000_024_000 + number,
                "task_result": {"images": images if ended else []},
            }
        )
    return json.dumps({"code": 0, "message": "SUCCEED", "request_id": "r", "data": tasks}).encode()


def slim(_options: dict[str, Any]) -> dict[str, float]:
    """Read pages as the poller does."""
    from kling_async.protocol.codec import Reply
    from kling_async.protocol.pages import read_page

    reply = Reply(status=200, headers={}, body=_page())
    read_page(reply)  # a reader that is not imported yet is not what is measured
    with measured() as found:
        sizes = {len(read_page(reply).glances) for _ in range(_PAGES)}
    assert sizes == {500}, "all is read"
    return found | {"cpu_per_page": 1000 * found["cpu"] / _PAGES}


def full(_options: dict[str, Any]) -> dict[str, float]:
    """Structure every task of a page with orjson and cattrs."""
    import orjson
    from cattrs.preconf.orjson import make_converter

    converter, body = make_converter(), _page()
    converter.structure(orjson.loads(body)["data"], list[_Task])  # makes its functions
    with measured() as found:
        sizes = {len(converter.structure(orjson.loads(body)["data"], list[_Task])) for _ in range(_PAGES)}
    assert sizes == {500}, "all is read"
    return found | {"cpu_per_page": 1000 * found["cpu"] / _PAGES}


def queries(options: dict[str, Any]) -> dict[str, float]:
    """Ask for one task many times, and in turn with a bare aiohttp session."""
    import aiohttp

    from kling_async import Kling

    async def run() -> dict[str, float]:
        client = Kling(api_key="k" * 40, base_url=options["url"], slots=9)
        async with client as kling, aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session:
            handle = await kling.images.multi_image.create(subject_images=["https://host.example/a.png"])
            address = f"{options['url']}{_PATH}/{handle.task_id}"
            spent = {"ours": 0.0, "raw": 0.0}
            for _ in range(10):
                began = time.process_time()
                for _ in range(options["queries"] // 10):
                    await kling.images.multi_image.retrieve(handle.task_id)
                spent["ours"] += time.process_time() - began
                began = time.process_time()
                for _ in range(options["queries"] // 10):
                    async with session.get(address) as reply:
                        await reply.read()
                spent["raw"] += time.process_time() - began
            return {"over": 1e6 * (spent["ours"] - spent["raw"]) / options["queries"]}

    return asyncio.run(run())


VARIANTS: Variants = {"slim": slim, "full": full, "queries": queries}


def measure(repeat: int) -> list[Figure]:
    """Compare pages, then what a query costs over the request."""
    runs = compare(_NAME, ("slim", "full"), {}, repeat=repeat)
    mine, other, name = runs["slim"], runs["full"], "cpu_per_page"
    one = compare(
        _NAME, ["queries"], {"queries": 2_000}, repeat=repeat, server={"longest": 90, "shortest": 60}
    )
    over = one["queries"]["over"]
    what = f"a page of 500 ({mine[name]:.1f} ms), to orjson and cattrs"
    return [
        at_most("S12", what, (mine, other, name), 0.06),
        Figure("S12", "CPU of ours in a single query", "≤ 20 µs", f"{over:.0f} µs", over <= 20),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
