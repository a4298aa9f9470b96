"""
Large bodies (S5, S6): creates with six pictures of 10 MB each, at once.

Beside ours stand `json=` as a script has it (with fewer at once, since each holds some 220 MB) and a bare loop that reads,
encodes and sends with blocking calls.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness import Figure, Lag, Variants, at_most, compare, main, measured
from benchmarks.pictures import png

_NAME = "benchmarks.uploads"
_PATH = "/v1/images/multi-image2image"
_PICTURE = 10_000_000
_FIELDS = (
    "subject_images[0]",
    "subject_images[1]",
    "subject_images[2]",
    "subject_images[3]",
    "scene_image",
    "style_image",
)


def _files(options: dict[str, Any]) -> list[Path]:
    paths = [Path(options["folder"]) / f"{number}.png" for number in range(len(_FIELDS))]
    for path in paths:
        path.write_bytes(png(os.urandom(1 << 20), _PICTURE))
    return paths


def _by_gigabyte(found: dict[str, float], creates: int) -> dict[str, float]:
    return found | {"cpu_per_gb": found["cpu"] / (creates * len(_FIELDS) * _PICTURE / 1e9)}


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Create them all at once."""
    from kling_async import Kling, MultiImage

    first, second, third, fourth, scene, style = _files(options)

    async def run() -> dict[str, float]:
        lag = Lag()
        kling = Kling(api_key="k" * 40, base_url=options["url"], slots=options["creates"])
        async with kling:
            await kling.images.multi_image.list(page_size=1)
            job = MultiImage(
                subject_images=[first, second, third, fourth],
                scene_image=scene,
                style_image=style,
                prompt="x",
            )
            lag.start()
            with measured() as found:
                await asyncio.gather(
                    *(kling.images.multi_image.create(job) for _ in range(options["creates"]))
                )
            return found | lag.stop()

    return _by_gigabyte(asyncio.run(run()), options["creates"])


def whole(options: dict[str, Any]) -> dict[str, float]:
    """Build each body whole and give it to `json=`."""
    import aiohttp

    paths = _files(options)

    async def one(session: aiohttp.ClientSession) -> None:
        texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
        body = {
            "subject_image_list": [{"subject_image": text} for text in texts[:4]],
            "scene_image": texts[4],
            "style_image": texts[5],
        }
        async with session.post(options["url"] + _PATH, json=body) as reply:
            await reply.json()

    async def run() -> dict[str, float]:
        lag = Lag()
        async with aiohttp.ClientSession() as session:
            lag.start()
            with measured() as found:
                await asyncio.gather(*(one(session) for _ in range(options["creates"])))
            return found | lag.stop()

    return _by_gigabyte(asyncio.run(run()), options["creates"])


def bare(options: dict[str, Any]) -> dict[str, float]:
    """Read, encode and send with blocking calls."""
    paths, piece = _files(options), 96 * 1024
    length = sum((path.stat().st_size + 2) // 3 * 4 for path in paths)
    place = urlsplit(options["url"])
    with socket.create_connection((place.hostname, place.port or 80)) as wire, measured() as found:
        for _ in range(options["creates"]):
            wire.sendall(f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
            for path in paths:
                with path.open("rb", buffering=0) as file:
                    while data := file.read(piece):
                        wire.sendall(base64.b64encode(data))
            wire.recv(65536)
    return _by_gigabyte(found, options["creates"])


VARIANTS: Variants = {"ours": ours, "json": whole, "bare": bare}


def measure(repeat: int) -> list[Figure]:
    """Compare CPU a gigabyte, and see how late the loop gets."""
    server: dict[str, float] = {"slots": 1_000_000}
    many, few = {"creates": 32}, {"creates": 4}
    # In turn, though of different sizes.
    runs = compare(_NAME, ("ours", "bare"), many, repeat=repeat, server=server)
    mine, loop = runs["ours"], runs["bare"]
    hand = compare(_NAME, ["json"], few, repeat=repeat, server=server)["json"]
    name = "cpu_per_gb"
    return [
        at_most(
            "S5",
            f"CPU a GB ({mine[name]:.2f} s) of 32 creates of 6 x 10 MB, to a blocking loop",
            (mine, loop, name),
            1.1,
        ),
        at_most("S5", "the same, to json= (of 4 creates)", (mine, hand, name), 0.08),
        _plain(f"memory of 32 at once (json=, 4: {hand['grown']:,.0f} MB)", mine["grown"], 12, "MB"),
        _plain("lag of the loop, p99", mine["lag_p99"], 5, "ms"),
        _plain("lag of the loop, worst", mine["lag_max"], 25, "ms"),
    ]


def _plain(what: str, found: float, most: float, unit: str) -> Figure:
    return Figure("S5", what, f"≤ {most} {unit}", f"{found:.1f} {unit}", found <= most)


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=2)
