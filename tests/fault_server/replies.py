"""Answers that are not the service's true ones: made to order, or edited."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from functools import lru_cache
from typing import Any

from .script import Fault
from .service import CREATE, Service
from .wire import Reply

__all__ = ["edited", "prepare", "scripted"]

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
        # In a thread: checking 300 MB takes a while, and the server has other connections.
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
    """Gzip a JSON object with a string of *size* blanks."""
    head, blanks, tail = b'{"code":0,"message":"', b" " * 1_000_000, b'"}'
    count = size // len(blanks)
    # A fully flushed block stands for itself, so one packed megabyte can be repeated without packing all of them.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(tail) + packer.flush()
    check = zlib.crc32(head)
    for _ in range(count):
        check = zlib.crc32(blanks, check)
    length = len(head) + count * len(blanks) + len(tail)
    trailer = struct.pack("<II", zlib.crc32(tail, check), length & 0xFFFF_FFFF)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + first + block * count + last + trailer


def prepare(size: int) -> None:
    """Pack a bomb of *size* beforehand, where its time would count."""
    _bomb(size)


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
