"""
Large bodies (S5, S6): creates with six pictures of 10 MB each, at once.

Beside ours stand `json=` as a script has it (with fewer at once, since each holds some 220 MB), a bare loop that reads, encodes
(as we do, with pybase64) and sends with blocking calls, and for pictures that many jobs share one that only sends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pybase64

from benchmarks.harness import (
    SERVER_CORE,
    TIMES,
    Figure,
    Lag,
    Run,
    Variants,
    at_most,
    compare,
    main,
    measured,
)
from benchmarks.pictures import png

_NAME = "benchmarks.uploads"
_PATH = "/v1/images/multi-image2image"
_PIECE = 96 * 1024  # of the bare loops


def _files(options: dict[str, Any], times: int = 1) -> list[Path]:
    """Make the pictures of a create, and as many further names of each as to have *times* of them."""
    folder, content = Path(options["folder"]), png(os.urandom(1 << 20), options["size"])
    paths = [folder / f"{number}.png" for number in range(options["pictures"] * times)]
    for number, path in enumerate(paths):
        if number < options["pictures"]:
            path.write_bytes(content)
        else:
            # Pictures of their own to whoever reads them, and as hot in the machine's caches as those of the bare loop.
            path.hardlink_to(paths[number % options["pictures"]])
    return paths


def _by_gigabyte(found: dict[str, float], options: dict[str, Any]) -> dict[str, float]:
    sent = options["creates"] * options["pictures"] * options["size"]
    return found | {"cpu_per_gb": found["cpu"] / (sent / 1e9)}


# Ours.


def ours(options: dict[str, Any]) -> dict[str, float]:
    """Create them all at once, each with pictures of its own, or all with the same if they are *shared*."""
    return _by_gigabyte(asyncio.run(_ours(options)), options)


async def _ours(options: dict[str, Any]) -> dict[str, float]:
    from kling_async import Kling, MultiImage

    own, creates = options["pictures"], options["creates"]
    small = Path(options["folder"]) / "small.png"
    small.write_bytes(png(bytes(1000), 500_000))
    paths = _files(options, 1 if options.get("shared") else creates)
    lag, probe = Lag(), _Probe()
    async with Kling(api_key="k" * 40, base_url=options["url"], slots=1_000_000) as kling:
        multi_image = kling.images.multi_image
        # What is loaded at the first picture is no part of the rest.
        _ = await multi_image.create(MultiImage(subject_images=[small], prompt="x"))
        tracked = MultiImage(subject_images=["https://pictures.example/a.png"], prompt="x")
        await asyncio.gather(*(multi_image.create(tracked) for _ in range(options.get("tracked", 0))))

        def job(number: int) -> MultiImage:
            chosen = paths if options.get("shared") else paths[own * number : own * (number + 1)]
            rest = dict(zip(("scene_image", "style_image"), chosen[4:], strict=False))
            return MultiImage(subject_images=chosen[:4], prompt="x", **rest)  # type: ignore[arg-type]  # two of its fields

        await probe.start()
        lag.start()
        with measured() as found:
            await asyncio.gather(*(multi_image.create(job(number)) for number in range(creates)))
        return found | lag.stop() | await probe.stop()


class _Probe:
    """A small server in the loop that is measured, and a process of its own that asks it each 20 ms."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self._asker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _ASK,
            str(port),
            str(SERVER_CORE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def stop(self) -> dict[str, float]:
        p99, worst = (await self._asker.communicate(b"\n"))[0].split()
        self._server.close()
        await self._server.wait_closed()
        return {"answer_p99": float(p99), "answer_max": float(worst)}


_ASK = """
import os, select, socket, sys, time
os.sched_setaffinity(0, {int(sys.argv[2])})
took = []
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as wire:
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        began = time.perf_counter()
        wire.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        wire.recv(1000)
        took.append(1000 * (time.perf_counter() - began))
took = sorted(took) or [0.0]
print(took[int(0.99 * (len(took) - 1))], took[-1])
"""


# Others.


def whole(options: dict[str, Any]) -> dict[str, float]:
    """Build each body whole and give it to `json=`."""
    import base64

    import aiohttp

    paths = _files(options)

    async def one(session: aiohttp.ClientSession) -> None:
        texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
        body = {"subject_image_list": [{"subject_image": text} for text in texts]}
        async with session.post(options["url"] + _PATH, json=body) as reply:
            await reply.json()

    async def run() -> dict[str, float]:
        lag = Lag()
        async with aiohttp.ClientSession() as session:
            lag.start()
            with measured() as found:
                await asyncio.gather(*(one(session) for _ in range(options["creates"])))
            return found | lag.stop()

    return _by_gigabyte(asyncio.run(run()), options)


def bare(options: dict[str, Any]) -> dict[str, float]:
    """Read, encode and send with blocking calls."""
    paths = _files(options)
    length = sum((path.stat().st_size + 2) // 3 * 4 for path in paths)
    with _wire(options) as wire, measured() as found:
        for _ in range(options["creates"]):
            wire.sendall(_head(length))
            for path in paths:
                with path.open("rb", buffering=0) as file:
                    while data := file.read(_PIECE):
                        wire.sendall(pybase64.b64encode(data))
            wire.recv(65536)
    return _by_gigabyte(found, options)


def hot(options: dict[str, Any]) -> dict[str, float]:
    """Send what lies encoded in memory with blocking calls."""
    texts = [memoryview(pybase64.b64encode(path.read_bytes())) for path in _files(options)]
    with _wire(options) as wire, measured() as found:
        for _ in range(options["creates"]):
            wire.sendall(_head(sum(map(len, texts))))
            for text in texts:
                for start in range(0, len(text), _PIECE):
                    wire.sendall(text[start : start + _PIECE])
            wire.recv(65536)
    return _by_gigabyte(found, options)


def _wire(options: dict[str, Any]) -> socket.socket:
    place = urlsplit(options["url"])
    return socket.create_connection((place.hostname or "", place.port or 80))


def _head(length: int) -> bytes:
    return f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


VARIANTS: Variants = {"ours": ours, "json": whole, "bare": bare, "hot": hot}


def measure(repeat: int) -> list[Figure]:
    """Compare CPU a gigabyte, and see what memory and the loop have of it."""
    # Tasks that run on while the uploads do.
    server: dict[str, float] = {"slots": 1_000_000, "shortest": 200.0, "longest": 300.0}
    many: dict[str, Any] = {"creates": 32, "pictures": 6, "size": 10_000_000}
    runs = compare(_NAME, ("ours", "bare"), many, repeat=3 * repeat, server=server)
    beside = compare(_NAME, ["ours"], {**many, "tracked": 5000}, repeat=repeat, server=server)["ours"]
    hand = compare(_NAME, ["json"], {**many, "creates": 4}, repeat=repeat, server=server)["json"]
    thousand = {"creates": 1000, "pictures": 6, "size": 1_000_000}
    crowd = compare(_NAME, ["ours"], thousand, repeat=1, server=server)["ours"]
    # As many as the larder has room for; one create encodes them, the others send what is there.
    shared = {"creates": 96, "pictures": 4, "size": 10_000_000, "shared": True}
    kept = compare(_NAME, ("ours", "hot"), shared, repeat=3 * repeat, server=server)
    return [*_of_many(runs["ours"], runs["bare"], hand), *_beside(beside, hand, crowd), _of_shared(kept)]


def _of_many(mine: Run, loop: Run, hand: Run) -> list[Figure]:
    name = "cpu_per_gb"
    what = (
        f"CPU a GB ({mine[name]:.2f} s) of 32 creates of 6 x 10 MB, to a blocking loop with the same encoder"
    )
    ratio = mine[name] / hand[name]
    return [
        at_most("S5", what, (mine, loop, name), 1.1),
        Figure(
            "S5",
            f"the same, to json= (of 4 creates, {hand[name]:.1f} s)",
            f"≤ 0.08 {TIMES}",
            f"{ratio:.3f} {TIMES}",
            ratio <= 0.08,
        ),
    ]


def _beside(mine: Run, hand: Run, crowd: Run) -> list[Figure]:
    json_memory = f"(json=, 4 creates: {hand['grown']:,.0f} MB)"
    answers = f"{mine['answer_p99']:.1f} and {mine['answer_max']:.1f} ms"
    return [
        _plain(f"memory of 32 at once beside 5,000 tasks {json_memory}", mine["grown"], 12, "MB"),
        _plain(
            f"lag of the loop meanwhile, p99 (json=: {hand['lag_p99']:,.0f} ms)", mine["own_p99"], 5, "ms"
        ),
        _plain("lag of the loop meanwhile, worst", mine["own_max"], 25, "ms"),
        Figure(
            "S5",
            "a request to the same process meanwhile, p99 and worst, by the wall",
            "-",
            answers,
            met=True,
        ),
        _plain("memory of 1,000 creates of 6 x 1 MB at once", crowd["grown"], 100, "MB"),
    ]


def _of_shared(kept: dict[str, Run]) -> Figure:
    mine, send, name = kept["ours"], kept["hot"], "cpu_per_gb"
    what = f"CPU a GB ({mine[name]:.2f} s) of pictures that 96 creates share, to a send of hot memory"
    return at_most("S6", what, (mine, send, name), 1.15)


def _plain(what: str, found: float, most: float, unit: str) -> Figure:
    return Figure("S5", what, f"≤ {most} {unit}", f"{found:.1f} {unit}", found <= most)


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=1)
