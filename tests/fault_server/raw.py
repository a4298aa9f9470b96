"""A client of bare sockets, so that the server is tested by something that shares nothing with the package."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any, Self
from urllib.parse import urlsplit

from attrs import define

from .service import CREATE
from .tokens import Gate

__all__ = ["RawClient", "RawReply", "job", "token"]

PICTURE = "https://example.com/dress.png"


def job(external_id: str = "", **fields: Any) -> dict[str, Any]:
    """Return a create body that breaks no rule."""
    body: dict[str, Any] = {"model_name": "kling-v2-1", "prompt": "a dress", "n": 1}
    body["subject_image_list"] = [{"subject_image": PICTURE}]
    return body | ({"external_task_id": external_id} if external_id else {}) | fields


def token(
    gate: Gate, *, start: float = -5.0, end: float = 1800.0, now: float | None = None, **claims: Any
) -> str:
    """Sign a JWT by hand."""
    moment = time.time() if now is None else now
    payload = {"iss": gate.access_key, "nbf": int(moment + start), "exp": int(moment + end)} | claims
    parts = [_packed(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, payload)]
    signature = hmac.digest(gate.secret_key.encode(), ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, _packed(signature)])


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@define(eq=False)
class RawReply:
    """What came back: *raw* is all of it, *end* how it ended: `length`, `fin`, `rst` or `silence`."""

    raw: bytes
    end: str

    @property
    def status(self) -> int:
        """The status code; 0 where there is no status line."""
        first = self.raw.split(b"\r\n", 1)[0].split(b" ")
        return int(first[1]) if first[0] == b"HTTP/1.1" else 0

    @property
    def head(self) -> str:
        """Status line and headers."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        """What follows the head."""
        return self.raw.partition(b"\r\n\r\n")[2]

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


@define(eq=False)
class RawClient:
    """One connection, kept alive. `async with RawClient.to(url, key) as client: await client.create(job())`."""

    url: str
    authorization: str | None
    patience: float = 5.0
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        parts = urlsplit(self.url)
        self.reader, self.writer = await asyncio.open_connection(parts.hostname, parts.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.writer is not None  # opened by __aenter__
        self.writer.close()

    async def create(self, body: dict[str, Any], **headers: str) -> RawReply:
        """Send a create."""
        content = {"Content-Type": "application/json"} | headers
        return await self.ask("POST", CREATE, json.dumps(body).encode(), **content)

    async def get(self, name: str) -> RawReply:
        """Read one task."""
        return await self.ask("GET", f"{CREATE}/{name}")

    async def list(self, page: int = 1, size: int = 30) -> RawReply:
        """Read one list page."""
        return await self.ask("GET", f"{CREATE}?pageNum={page}&pageSize={size}")

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> RawReply:
        """Send a request and read until the answer, or the connection, ends, or *patience* seconds are over."""
        assert self.writer is not None  # opened by __aenter__
        lines = [f"{method} {path} HTTP/1.1", "Host: fault"]
        if self.authorization is not None:
            lines.append(f"Authorization: Bearer {self.authorization}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        return await self.receive()

    async def receive(self) -> RawReply:
        """Read an answer."""
        assert self.reader is not None  # opened by __aenter__
        raw = b""
        try:
            async with asyncio.timeout(self.patience):
                while not _whole(raw):
                    piece = await self.reader.read(65_536)
                    if not piece:
                        return RawReply(raw, "fin")
                    raw += piece
        except ConnectionError:
            return RawReply(raw, "rst")
        except TimeoutError:
            return RawReply(raw, "silence")
        return RawReply(raw, "length")


def _whole(raw: bytes) -> bool:
    head, gap, body = raw.partition(b"\r\n\r\n")
    if not gap:
        return False
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        return body.endswith(b"0\r\n\r\n")
    _, found, rest = lowered.partition(b"content-length: ")
    return bool(found) and len(body) >= int(rest.split(b"\r\n", 1)[0])
