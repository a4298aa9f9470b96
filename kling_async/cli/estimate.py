"""How much a manifest asks for, counted in one quick pass that makes no jobs of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import define

from kling_async.batch.manifest import key_of, raw_records
from kling_async.cli.money import dollars, plural
from kling_async.cli.resume import Earlier
from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MOST_IMAGES, MultiImage

__all__ = ["Estimate", "estimate"]


@define(kw_only=True)
class Estimate:
    """Rows of a manifest: all, *done* earlier, *held* back, and to *do* with the pictures these ask for at most."""

    rows: int = 0
    done: int = 0
    held: int = 0
    do: int = 0
    images: int = 0

    @property
    def units(self) -> int:
        """The units the rows to do cost if all succeed."""
        return self.images * MultiImage.units_per_image

    def cost(self) -> str:
        """Say what it costs, and how that comes about."""
        each = MultiImage.units_per_image
        return f"{plural(self.images, 'image')} x {each} units = {self.units:,} units ≈ {dollars(self.units)}"

    def work(self) -> str:
        """Say what there is to do."""
        if not self.done and not self.held:
            return plural(self.rows, "job")
        held = f", {self.held} held back" if self.held else ""
        return f"{plural(self.rows, 'job')}, {self.done:,} done{held}, {self.do:,} to do"


def estimate(manifest: Path, earlier: Earlier) -> Estimate:
    """Count the rows of *manifest*. A row that is bad counts as one to do and asks for nothing."""
    found = Estimate()
    for number, fields in raw_records(manifest):
        found.rows += 1
        key, images = _key_and_images(number, fields)
        if key in earlier.held:
            found.held += 1
        elif key in earlier.done:
            found.done += 1
        else:
            found.do += 1
            found.images += images
    return found


def _key_and_images(number: int, fields: dict[str, object] | InvalidJob) -> tuple[str, int]:
    if not isinstance(fields, InvalidJob):
        try:
            return key_of(fields), _images(fields)
        except InvalidJob:
            pass  # it is told when the row is read for the run
    return f"line-{number}", 0


def _images(fields: Mapping[str, object]) -> int:
    wanted = fields.get("n", 1)
    good = isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= MOST_IMAGES
    return int(str(wanted)) if good else 0
