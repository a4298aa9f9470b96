"""
A service for measuring: a raw asyncio protocol in a process of its own that does as little as the client lets it.

It has creates, single queries, list pages (newest first), resource packs and result pictures; tasks take
their time and hold slots, and where a create names an address, their end is posted to it. It keeps books, among them its own CPU time, from which `speed()` says that it is not the limit.
No token and no picture is checked: for that there is the emulator.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from benchmarks.pictures import png
from benchmarks.poster import Poster

PATH = b"/v1/images/multi-image2image"


class Item:
    """One task: what is said of it while it runs and when it has ended, ready as bytes."""

    __slots__ = ("done", "ends", "running", "slots", "starts")

    def __init__(self, number: int, asked: dict[str, Any], seconds: float, base: str) -> None:
        self.starts = time.time()
        self.ends = self.starts + seconds
        self.slots = int(asked.get("n", 1))
        head: dict[str, Any] = {
            "task_id": f"{number:018d}",
            "task_info": {"external_task_id": asked.get("external_task_id", "")},
            "created_at": int(self.starts * 1000),
        }
        running = head | {
            "task_status": "processing",
            "task_status_msg": "",
            "updated_at": head["created_at"],
        }
        images = [
            {
                "index": index,
                "url": f"{base}/result/{number:018d}-{index}.png?sign=" + "0123456789abcdef" * 16,
            }
            for index in range(self.slots)
        ]
        done = head | {
            "task_status": "succeed",
            "task_status_msg": "",
            "updated_at": int(self.ends * 1000),
            "final_unit_deduction": str(16 * self.slots),
            "task_result": {"images": images},
        }
        self.running = json.dumps(running).encode()
        self.done = json.dumps(done).encode()

    def shown(self, now: float) -> bytes:
        """Return what is said of the task at *now*."""
        return self.done if now >= self.ends else self.running


class State:
    """All tasks and the books."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dice = random.Random(options.seed)
        self.items: dict[bytes, Item] = {}
        self.ends: list[tuple[float, int]] = []
        self.held = self.peak = self.refused = 0
        self.counts: Counter[str] = Counter()
        self.base = ""
        self.picture = png(bytes(4096), options.picture_bytes)
        self.poster = Poster()
        self.began: float | None = None

    def create(self, body: bytes) -> bytes:
        """Accept a create or refuse it for want of slots."""
        asked = json.loads(body) if len(body) < 1 << 20 else {"n": 1}
        now = time.time()
        while self.ends and self.ends[0][0] <= now:
            self.held -= heapq.heappop(self.ends)[1]
        slots = int(asked.get("n", 1))
        if self.held + slots > self.options.slots:
            self.refused += 1
            return b'{"code": 1303, "message": "parallel task over resource pack limit", "request_id": "r"}'
        number = len(self.items) + 1
        item = Item(number, asked, self._seconds(number, now), self.base)
        if "callback_url" in asked:
            wait = max(0.0, item.ends - time.time())
            asyncio.get_running_loop().call_later(
                wait, self.poster.post, str(asked["callback_url"]), item.done
            )
        self.items[b"%018d" % number] = item
        self.held += slots
        self.peak = max(self.peak, self.held)
        heapq.heappush(self.ends, (item.ends, slots))
        return _envelope(item.running)

    def _seconds(self, number: int, now: float) -> float:
        if not self.options.rate:
            return self.dice.uniform(self.options.shortest, self.options.longest)
        # Ends come one after the other at a steady rate, whenever their tasks were made.
        self.began = now if self.began is None else self.began
        return float(self.began + self.options.shortest + number / self.options.rate - now)

    def page(self, query: bytes) -> bytes:
        """Return a page of the list, newest first."""
        wanted = dict(pair.split(b"=", 1) for pair in query.split(b"&"))
        number, size = int(wanted[b"pageNum"]), int(wanted[b"pageSize"])
        now = time.time()
        chosen = islice(reversed(self.items.values()), (number - 1) * size, number * size)
        return _envelope(b"[" + b",".join([item.shown(now) for item in chosen]) + b"]")

    def find(self, task_id: bytes) -> bytes:
        """Return one task."""
        item = self.items.get(task_id)
        if item is None:
            return b'{"code": 1203, "message": "task not found", "request_id": "r"}'
        return _envelope(item.shown(time.time()))

    def books(self) -> bytes:
        """Return the books: requests by kind, slots, and the CPU seconds of this process."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        document = {
            "counts": self.counts,
            "requests": sum(self.counts.values()),
            "tasks": len(self.items),
            "peak": self.peak,
            "refused": self.refused,
            "cpu": usage.ru_utime + usage.ru_stime,
            "utilisation": self.utilisation(),
        }
        return json.dumps(document).encode()

    def spans(self) -> bytes:
        """Return of every task when it began, when it ended, and how many slots it held."""
        return json.dumps([(item.starts, item.ends, item.slots) for item in self.items.values()]).encode()

    def utilisation(self) -> float:
        """Return the share of the slots that was held, from the first create to the longest task time before the end."""
        items = self.items.values()
        if not items:
            return 0.0
        first, last = min(item.starts for item in items), max(item.ends for item in items)
        last -= self.options.longest
        used = sum(max(0.0, min(item.ends, last) - item.starts) * item.slots for item in items)
        return used / (self.options.slots * (last - first)) if last > first else 0.0


def _envelope(data: bytes) -> bytes:
    return b'{"code": 0, "message": "SUCCEED", "request_id": "bench", "data": ' + data + b"}"


class Connection(asyncio.Protocol):
    """One connection; requests are answered in their order, bodies of any size are counted and thrown away."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._head = b""
        self._left = 0
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete with *data*."""
        if self._left:
            taken, data = data[: self._left], data[self._left :]
            self._take(taken)
            if self._left:
                return
        if self._head:
            data, self._head = self._head + data, b""
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            line, _, headers = data[:end].partition(b"\r\n")
            length = _length(headers)
            body, data = data[end + 4 : end + 4 + length], data[end + 4 + length :]
            self._line, self._left = line, length
            self._body.clear()
            self._take(body)
            if self._left:
                return

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        # Uploads of many megabytes are for the client's sake only.
        if len(self._body) < 1 << 20:
            self._body += piece
        if not self._left:
            self._answer(bytes(self._body))

    def _answer(self, body: bytes) -> None:
        method, target, _ = self._line.split(b" ")
        state, kind = self._state, b"application/json"
        path, _, query = target.partition(b"?")
        if method == b"POST":
            state.counts["create"] += 1
            reply = state.create(body)
        elif path == PATH:
            state.counts["list"] += 1
            reply = state.page(query)
        elif path.startswith(PATH):
            state.counts["get"] += 1
            reply = state.find(path[len(PATH) + 1 :])
        elif path == b"/books":
            reply = state.books()
        elif path == b"/tasks":
            reply = state.spans()
        elif path == b"/account/costs":
            state.counts["packs"] += 1
            reply = _envelope(b'{"resource_pack_subscribe_infos": []}')
        else:
            state.counts["picture"] += 1
            reply, kind = state.picture, b"image/png"
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(reply)) + reply
        )


def _length(headers: bytes) -> int:
    at = headers.lower().find(b"content-length:")
    return int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def serve(state: State, announce: Callable[[str], None]) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(state), "127.0.0.1", 0, backlog=4096
    )
    state.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    announce(state.base)
    await server.serve_forever()


def parser() -> argparse.ArgumentParser:
    """Return the options of the server."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--slots", type=int, default=1_000_000)
    options.add_argument("--shortest", type=float, default=2.0)
    options.add_argument("--longest", type=float, default=4.0)
    options.add_argument("--rate", type=float, default=0.0, help="ends a second; 0: as their times fall")
    options.add_argument("--picture-bytes", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--core", type=int, default=None)
    return options


def main() -> None:
    """Say the address on stdout and serve until stdin ends."""
    options = parser().parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})

    def announce(base: str) -> None:
        print(base, flush=True)
        # Whoever started the server holds its stdin; it ends with them.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os._exit(0))

    asyncio.run(serve(State(options), announce))


if __name__ == "__main__":
    main()
