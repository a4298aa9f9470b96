"""
Measure a batch on the emulator, the one honest measure first: how busy the slots were kept.

The emulator runs in a thread of this process with tiny pictures, so the processor time is an upper bound. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
import zlib

from kling_async import MultiImage
from kling_async.testing import running_emulator


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def picture() -> bytes:
    """Return the smallest picture that the service takes."""
    header = struct.pack(">IIBBBBB", 300, 300, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x20\x50\x90" * 300) * 300)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


async def measure(jobs: int, slots: int, speed: float) -> dict[str, float | None]:
    """Run a batch of *jobs* of one to three pictures each and return what came of it."""
    source = picture()
    with running_emulator(slots=slots, speed=speed) as emulator:
        async with emulator.client(slots=slots, min_poll_interval=0.5 / speed) as kling:
            started, used = time.perf_counter(), time.process_time()
            batch = kling.batch(MultiImage(subject_images=[source], n=1 + i % 3) for i in range(jobs))
            async with batch:
                async for outcome in batch:
                    outcome.unwrap()
            seconds, processor = time.perf_counter() - started, time.process_time() - used
        return {
            "jobs": jobs,
            "seconds": round(seconds, 2),
            "slot_utilisation": round(emulator.slot_seconds / (slots * seconds * speed), 4),
            "peak_slots": emulator.peak_slots,
            "requests_per_job": round(len(emulator.requests) / jobs, 2),
            "processor_ms_per_job": round(processor / jobs * 1000, 2),
        }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=300)
    arguments.add_argument("--slots", type=int, default=50)
    arguments.add_argument("--speed", type=float, default=20)
    given = arguments.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(measure(given.jobs, given.slots, given.speed)), indent=1) + "\n")
