"""
A shop that photographs products without a camera: the part that knows no web framework.

An order is a photo, a scene, a style and a wish. It is accepted at once and made in the background; orders live in
the folder `shop-orders`, so that none is lost when the shop is started again. Needs credentials in the environment.
`SHOP_URL` is the address under which Kling reaches the shop; without it there are no callbacks, and only polling.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from kling_async import Kling, MultiImage
from kling_async.errors import InvalidJob
from kling_async.integrations.jobs import JobReport, Jobs

HERE = Path(__file__).parent
PAGE = HERE / "page"
PICTURES = HERE.parent / "pictures"
SAMPLES = {"robot": "robot.jpg", "jug": "jug.jpg", "dress": "dress.jpg"}
SCENES = {"meadow": "meadow.jpg", "harbour": "harbour.jpg"}
STYLES = {"watercolour": "watercolour.jpg"}
MOST_BYTES = 10_000_000  # what Kling takes
MOST_PICTURES = 4
HOOK = "/kling/hook"


class Refused(ValueError):
    """An order that cannot be taken; the text is for the customer."""


class Shop:
    """The shop, open inside `async with`; made without a running loop."""

    def __init__(self) -> None:
        address = os.environ.get("SHOP_URL", "").rstrip("/")
        self.has_callbacks = bool(address)
        self.kling = Kling(callback_url=f"{address}{HOOK}" if address else None)
        self.jobs = Jobs(self.kling, "shop-orders")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.kling)
        await self._stack.enter_async_context(self.jobs)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def order(self, form: dict[str, str], photo: bytes) -> JobReport:
        """Accept an order: the fields of the page's form, and a *photo* unless a sample was chosen. Raises `Refused`."""
        try:
            job = MultiImage(
                subject_images=[photo or _chosen("product", form.get("sample", ""), SAMPLES)],
                scene_image=_chosen("scene", form["scene"], SCENES) if form.get("scene") else None,
                style_image=_chosen("style", form["style"], STYLES) if form.get("style") else None,
                prompt=form.get("wish", "").strip() or "A product photo for an online shop",
                n=_count(form.get("count", "2")),
                aspect_ratio="1:1",
            )
            return await self.jobs.accept(job)
        except InvalidJob as error:
            raise Refused(str(error)) from error

    async def picture(self, order_id: str, index: int) -> Path | None:
        """Return the file of a picture; None if there is none, or not yet."""
        report = await self.jobs.find(order_id)
        return report.pictures[index] if report and 0 <= index < len(report.pictures) else None


def show(report: JobReport) -> dict[str, object]:
    """Return what the page is told of an order."""
    links = [f"{location(report)}/pictures/{index}" for index in range(len(report.pictures))]
    return report.body() | {"pictures": links}


def location(report: JobReport) -> str:
    """Return the address of an order."""
    return f"/orders/{report.job_id}"


def _chosen(what: str, name: str, known: dict[str, str]) -> Path:
    if name not in known:
        raise Refused(f"{what}: expected one of {', '.join(known)}, found {name!r}")
    return PICTURES / known[name]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PICTURES:
        raise Refused(f"count: expected a number from 1 to {MOST_PICTURES}, found {text!r}")
    return int(text)
