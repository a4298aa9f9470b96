"""Posts callbacks as the service does, signed, over a few raw connections; part of the benchmark server."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from kling_async.protocol.callbacks import sign

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
_CONNECTIONS = 16


class Poster:
    """Keeps what is to be posted and posts it in its order; all of it goes to one host."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self.posted = self.refused = 0

    def post(self, url: str, body: bytes) -> None:
        """Post *body* to *url* as soon as a connection is free."""
        if not self._workers:
            self._workers = [
                asyncio.get_running_loop().create_task(self._work()) for _ in range(_CONNECTIONS)
            ]
        self._queue.put_nowait((url, body))

    async def _work(self) -> None:
        url, body = await self._queue.get()
        target = urlsplit(url)
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        while True:
            self.posted += 1
            stamp, name = int(time.time()), f"message-{self.posted}"
            writer.write(
                f"POST {urlsplit(url).path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"webhook-id: {name}\r\nwebhook-timestamp: {stamp}\r\n"
                f"webhook-signature: {sign(SECRET, name, stamp, body)}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            self.refused += not head.startswith(b"HTTP/1.1 200")
            url, body = await self._queue.get()
