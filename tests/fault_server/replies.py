"""Answers that are not the service's true ones: made to order, or edited."""

from __future__ import annotations

import asyncio
import json
import zlib
from functools import lru_cache
from typing import Any

from .script import Fault
from .service import CREATE, Service
from .wire import Reply

__all__ = ["edited", "scripted"]

DROP = "!drop"


async def scripted(fault: Fault, service: Service) -> Reply:
    """Make the answer that *fault* describes."""
    if fault.action == "refuse":
        message = fault.text or f"scripted refusal {fault.code}"
        return _dressed(fault, service.refusal(fault.code, message, fault.status or None))
    if fault.action == "redirect":
        target = f"{service.host}{CREATE}?elsewhere" if fault.to == "self" else fault.to
        return _dressed(fault, Reply(fault.status, headers=[("Location", target)], content_type="text/html"))
    if fault.action == "bomb":
        # In a thread: packing 300 MB takes a second, and the server has other connections.
        body = await asyncio.to_thread(_bomb, fault.size)
        return _dressed(fault, Reply(fault.status, body, [("Content-Encoding", "gzip")]))
    if fault.action == "bad_gzip":
        return _dressed(fault, Reply(fault.status, b"this is no gzip stream", [("Content-Encoding", "gzip")]))
    return _dressed(fault, Reply(fault.status, fault.text.encode(), framing=fault.framing))


def _dressed(fault: Fault, reply: Reply) -> Reply:
    for name, value in fault.headers:
        if name.lower() == "content-type":
            reply.content_type = value
        else:
            reply.headers.append((name, value))
    return reply


@lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    """Pack a JSON string of *size* spaces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(b'{"code":0,"message":"')]
    blank = b" " * 1_000_000
    pieces += [packer.compress(blank) for _ in range(size // len(blank))]
    return b"".join([*pieces, packer.compress(b'"}'), packer.flush()])


def edited(fault: Fault, reply: Reply) -> Reply:
    """Change fields of a true answer: dotted paths, list positions as numbers."""
    if fault.fields:
        value = json.loads(reply.body)
        for path, new in fault.fields.items():
            _put(value, path.split("."), new)
        reply.body = json.dumps(value).encode()
    if fault.framing != "length":
        reply.framing = fault.framing
    return _dressed(fault, reply)


def _put(value: Any, path: list[str], new: Any) -> None:
    *parents, last = path
    for name in parents:
        value = value[int(name)] if isinstance(value, list) else value.setdefault(name, {})
    if isinstance(value, list):
        value[int(last)] = new
    elif new == DROP:
        value.pop(last, None)
    else:
        value[last] = new
