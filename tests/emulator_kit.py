"""What the emulator's tests share: a plain HTTP caller, bodies and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Protocol

import aiohttp
from attrs import define, frozen
from PIL import Image

from kling_async.emulator import Emulator

PATH = "/v1/images/multi-image2image"


@frozen
class Answer:
    """A reply, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        return self.json["code"]

    @property
    def message(self) -> Any:
        return self.json["message"]

    @property
    def data(self) -> Any:
        return self.json["data"]


@define
class Caller:
    """Any HTTP client: plain requests with the API key of the first account."""

    emulator: Emulator
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        options.setdefault("headers", {"Authorization": f"Bearer {self.emulator.api_key}"})
        url = path if path.startswith("http") else self.emulator.url + path
        async with self.session.request(method, url, **options) as reply:
            return Answer(reply.status, await reply.read(), reply.headers)

    async def create(self, **fields: Any) -> Answer:
        return await self.ask("POST", PATH, json=body(**fields))

    async def get(self, either_id: str) -> Answer:
        return await self.ask("GET", f"{PATH}/{either_id}")

    async def list(self, query: str = "") -> Answer:
        return await self.ask("GET", PATH + query)

    async def finished(self, **fields: Any) -> Any:
        """Create a task, let it end, and return how a read shows it."""
        task_id = (await self.create(**fields)).data["task_id"]
        await self.emulator.advance(3600)
        return (await self.get(task_id)).data


class Opener(Protocol):
    """Opens an emulator with these options."""

    async def __call__(self, **options: Any) -> Caller: ...


def body(**fields: Any) -> dict[str, Any]:
    """Return a body that the service accepts, changed by *fields*; one that is `...` is left out."""
    usual = {
        "model_name": "kling-v2-1",
        "prompt": "in a red dress",
        "subject_image_list": [{"subject_image": "https://pictures.example/woman.png"}],
    }
    return {name: value for name, value in {**usual, **fields}.items() if value is not ...}


def picture(width: int = 320, height: int = 320, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture: a red disc on white."""
    image = Image.new("RGB", (width, height), (250, 250, 250))
    image.paste((200, 30, 30), (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def subjects(*pictures: str) -> list[dict[str, str]]:
    return [{"subject_image": each} for each in pictures]
