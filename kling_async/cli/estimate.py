"""How much a manifest asks for, counted in one quick pass that makes no jobs of its rows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from attrs import define

from kling_async.batch.manifest import key_of, raw_records
from kling_async.cli.earlier import open_states
from kling_async.cli.money import dollars, plural
from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MOST_IMAGES, MultiImage

__all__ = ["Estimate", "estimate", "retry"]


@define(kw_only=True)
class Estimate:
    """
    The rows of a manifest: *done*, *failed* or *running* since an earlier run, and *todo*.

    *images* is what the rows to do ask for at most.
    """

    done: int = 0
    failed: int = 0
    running: int = 0
    todo: int = 0
    images: int = 0

    @property
    def rows(self) -> int:
        """All rows."""
        return self.done + self.failed + self.running + self.todo

    @property
    def units(self) -> int:
        """The units the rows to do cost if all succeed."""
        return self.images * MultiImage.units_per_image

    def cost(self) -> str:
        """Say what it costs, and how that comes about."""
        each = MultiImage.units_per_image
        return f"{plural(self.images, 'image')} x {each} units = {self.units:,} units ≈ {dollars(self.units)}"

    def work(self, home: Path) -> str:
        """Say what there is to do, and how to try again what failed in the run that lives in *home*."""
        if self.todo == self.rows:
            return plural(self.rows, "job")
        parts = [
            plural(self.rows, "job"),
            f"{self.done:,} done" if self.done else "",
            f"{self.failed:,} failed before (again: {retry(home)})" if self.failed else "",
            f"{self.running:,} running" if self.running else "",
            f"{self.todo:,} to do",
        ]
        return ", ".join(part for part in parts if part)


def retry(home: Path) -> str:
    """Return the command that tries again what failed in the run that lives in *home*."""
    return f"kling-async retry {shlex.quote(str(home))}"


def estimate(
    manifest: Path, journal: Path | None = None, shared: Mapping[str, object] | None = None
) -> Estimate:
    """Count the rows of *manifest* by what *journal* knows of them; blocks. A bad row is one to do and asks for nothing."""
    found = Estimate()
    with open_states(journal) as states:
        for number, fields in raw_records(manifest, shared):
            key, images = _key_and_images(number, fields)
            group = states.of(key) or "todo"
            setattr(found, group, getattr(found, group) + 1)
            found.images += images if group == "todo" else 0
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
    return wanted if type(wanted) is int and 1 <= wanted <= MOST_IMAGES else 0
