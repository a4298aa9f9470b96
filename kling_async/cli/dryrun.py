"""What `create --dry-run` shows: the request as it would be sent, pictures elided."""

from __future__ import annotations

import json
import os
from typing import Any

from kling_async.cli.environment import Connection
from kling_async.cli.money import dollars
from kling_async.cli.voice import Voice
from kling_async.protocol.endpoints import base_url
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.pictures import Picture, PictureRules
from kling_async.transport.fitting import require_pillow
from kling_async.transport.stock import Stock

__all__ = ["show_request"]


async def show_request(job: MultiImage, connection: Connection, voice: Voice, rules: PictureRules) -> None:
    """Check the pictures of *job* and print its request; no key is needed and nothing is sent."""
    require_pillow(rules)
    stock = Stock()
    pictures = {name: _elided(await stock.look(source, name, rules)) for name, source in job.pictures()}
    address = connection.base_url or (None if connection.region else os.environ.get("KLING_BASE_URL"))
    region = connection.region or os.environ.get("KLING_REGION") or "global"
    url = base_url(address, region) + job.path
    body = job.body(job.external_task_id or "(made when it is sent)", pictures)
    headers = {"Authorization": "Bearer (elided)", "Content-Type": "application/json"}
    if voice.json:
        voice.emit({"method": "POST", "url": url, "headers": headers, "body": body, "units": job.units})
        return
    voice.data(f"POST {url}")
    for name, value in headers.items():
        voice.data(f"{name}: {value}")
    voice.data("")
    voice.data(json.dumps(body, ensure_ascii=False, indent=2))
    voice.say(f"dry run: nothing was sent; it would cost {job.units} units ≈ {dollars(job.units)}")


def _elided(picture: Picture | str) -> Any:
    if isinstance(picture, str):
        return picture
    header, changes = picture.header, "".join(f"; {change}" for change in picture.changes)
    kind = f"{header.format} {header.width}x{header.height}, {picture.size:,} bytes"
    return f"(base64 of {picture.name}: {kind}{changes})"
