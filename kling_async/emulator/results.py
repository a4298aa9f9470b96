"""
The result host: signed links that expire, and the pictures behind them.

A link has the shape of the service's: `ksTime` is its end as hex seconds, `ksSecret` 32 hex digits over path and end.
Pictures are painted when they are first asked for, in a small thread pool, and a few are kept.
"""

from __future__ import annotations

import hmac
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from hashlib import blake2s
from typing import cast

from kling_async.emulator.pictures import Material
from kling_async.emulator.settings import DAY, EmulatorSettings
from kling_async.emulator.stamp import paint_stamp
from kling_async.emulator.store import Task

__all__ = ["Gallery", "LinkSigner"]

_MEDIA_KEPT = 30 * DAY
_KEPT_PICTURES = 32


class LinkSigner:
    """Makes and checks the links of results; *base* is the address that others reach the emulator by."""

    def __init__(self, base: str, settings: EmulatorSettings, now: Callable[[], float]) -> None:
        self._base = base.rstrip("/")
        self._key = settings.secret_key.encode()[:32]
        self._life = settings.expire_after
        self._now = now

    def __repr__(self) -> str:
        return f"<LinkSigner for {self._base}>"

    def links(self, task: Task, index: int) -> dict[str, str]:
        """Return the link of a picture, and of its watermarked twin if the order asked for one."""
        # A fresh link with each read, but none outlives the picture.
        end = int(min(self._now() + self._life, task.updated + _MEDIA_KEPT))
        links = {"url": self._link(f"/results/{task.task_id}/{index}.png", end)}
        if task.order.watermark:
            links["watermark_url"] = self._link(f"/results/{task.task_id}/{index}-watermark.png", end)
        return links

    def holds(self, path: str, query: Mapping[str, str]) -> bool:
        """Tell whether the link's signature is right and its end not yet come."""
        text = query.get("ksTime", "")
        right = hmac.compare_digest(
            self._sign(path, text), query.get("ksSecret", "").encode("ascii", "replace")
        )
        return right and int(text, 16) > self._now()

    def _link(self, path: str, end: int) -> str:
        text = f"{end:x}"
        return f"{self._base}{path}?x-kcdn-pid=0&ksSecret={self._sign(path, text).decode()}&ksTime={text}"

    def _sign(self, path: str, end: str) -> bytes:
        return blake2s(f"{path}?{end}".encode(), key=self._key, digest_size=16).hexdigest().encode()


class Gallery:
    """Paints and keeps result pictures."""

    def __init__(self, settings: EmulatorSettings, pool: Executor) -> None:
        self._settings = settings
        self._pool = pool
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Gallery, {self._settings.paint}, {len(self._kept)} pictures kept>"

    async def picture(self, task: Task, name: str) -> bytes | None:
        """Return the PNG called *name* (`0.png`, `0-watermark.png`) of *task*, None if it has no such picture."""
        number, _, rest = name.removesuffix(".png").partition("-")
        index = int(number) if number.isdecimal() else task.order.n
        known = rest == "" or (rest == "watermark" and task.order.watermark)
        if not name.endswith(".png") or index >= task.order.n or task.status != "succeed" or not known:
            return None
        if (task.task_id, name) not in self._kept:
            self._kept[task.task_id, name] = await self._paint(task, index, watermark=bool(rest))
            while len(self._kept) > _KEPT_PICTURES:
                self._kept.popitem(last=False)
        return self._kept[task.task_id, name]

    async def _paint(self, task: Task, index: int, *, watermark: bool) -> bytes:
        order = task.order
        materials = cast("tuple[Material, ...]", tuple(task.pictures))
        if self._settings.paint == "stamp":
            looks = "|".join(
                [order.prompt, *(each.seed for each in materials), str(index), str(self._settings.seed)]
            )
            return paint_stamp(order.aspect_ratio, looks, f"emulated stamp; index {index}")
        from kling_async.emulator.painter import Commission, paint

        commission = Commission(
            materials=materials,
            prompt=order.prompt,
            ratio=order.aspect_ratio,
            index=index,
            seed=str(self._settings.seed),
            area=self._settings.megapixels * 1_000_000,
            watermark=watermark,
        )
        return await get_running_loop().run_in_executor(self._pool, paint, commission)
