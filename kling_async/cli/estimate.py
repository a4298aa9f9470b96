"""How much a manifest asks for, counted in one quick pass that makes jobs of few of its rows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from kling_async.batch.keys import KeyTable
from kling_async.batch.manifest import Manifest, Row, digest_of, key_of, manifest_at
from kling_async.batch.raws import Raw, fields_of
from kling_async.cli.earlier import Group, States, open_states
from kling_async.cli.money import dollars, plural
from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MOST_IMAGES, MultiImage

__all__ = ["Estimate", "estimate", "retry"]

# Rows to do that are looked at closely, half a second's worth; the others are taken to be good, until they are sent.
_LOOKED_AT = 20_000


@define(kw_only=True)
class Estimate:
    """
    The rows of a manifest: *done*, *failed* or *running* since an earlier run, *changed* since, *bad*, and *todo*.

    *anew* are those to do that were done before and changed. *images* is what the rows to do ask for at most.
    """

    done: int = 0
    failed: int = 0
    running: int = 0
    changed: int = 0
    bad: int = 0
    todo: int = 0
    anew: int = 0
    images: int = 0

    @property
    def rows(self) -> int:
        """All rows."""
        return self.done + self.failed + self.running + self.changed + self.bad + self.todo

    @property
    def undone(self) -> int:
        """Rows that a run takes up: those to do, those that run, and those that it refuses."""
        return self.running + self.changed + self.bad + self.todo

    @property
    def units(self) -> int:
        """The units the rows to do cost if all succeed."""
        return self.images * MultiImage.units_per_image

    def add(self, group: Group, images: int) -> None:
        """Count a good row of *group* that asks for *images*."""
        name = "todo" if group == "anew" else group
        setattr(self, name, getattr(self, name) + 1)
        self.anew += group == "anew"
        self.images += images if name == "todo" else 0

    def cost(self) -> str:
        """Say what it costs, and how that comes about."""
        each = MultiImage.units_per_image
        return f"{plural(self.images, 'image')} x {each} units = {self.units:,} units ≈ {dollars(self.units)}"

    def work(self, again: str) -> str:
        """Say what there is to do; *again* is the command that tries again what failed."""
        parts = [
            plural(self.rows, "job"),
            f"{self.done:,} done" if self.done else "",
            f"{self.failed:,} failed before (again: {again})" if self.failed else "",
            f"{self.running:,} running" if self.running else "",
            f"{self.changed:,} changed since and refused (to make them anew: --update)"
            if self.changed
            else "",
            f"{self.bad:,} bad and refused (which: kling-async check)" if self.bad else "",
            f"{self.todo:,} to do" if self.todo < self.rows or self.anew else "",
            f"{self.anew:,} of them anew, since they changed" if self.anew else "",
        ]
        return ", ".join(part for part in parts if part)


def retry(home: Path) -> str:
    """Return the command that tries again what failed in the run that lives in *home*."""
    return f"kling-async retry {shlex.quote(str(home))}"


def estimate(
    manifest: Path,
    journal: Path | None = None,
    shared: Mapping[str, object] | None = None,
    *,
    update: bool = False,
) -> Estimate:
    """
    Count the rows of *manifest* by what a run with *journal* will do with them; blocks.

    With *update* that run makes anew what changed. No picture is looked at, and of very many rows not all are: what turns
    out to be bad when it is sent costs nothing.
    """
    counting = _Counting(manifest_at(manifest, shared))
    with open_states(journal, update=update) as states:
        for number, raw in counting.manifest.raws():
            counting.count(number, raw, states)
    return counting.found


@define(eq=False)
class _Counting:
    """One pass over *manifest*."""

    manifest: Manifest
    found: Estimate = field(factory=Estimate)
    _keys: KeyTable = field(factory=KeyTable, init=False)
    _looked_at: int = field(default=0, init=False)
    # The last row that was looked at closely: its line and its job.
    _job: tuple[int, MultiImage] | None = field(default=None, init=False)

    def count(self, number: int, raw: Raw, states: States) -> None:
        """Count the row on line *number*."""
        fields = fields_of(raw)
        try:
            if isinstance(fields, InvalidJob):
                raise fields
            key = key_of(fields)
            if self._keys.add(key, number):
                raise InvalidJob.because("key", "a key of its own", key, "change it")
            group = states.of(key, digest_of(raw), self.manifest.base, lambda: self._look_at(number, raw))
            if group == "todo" and self._looked_at < _LOOKED_AT:
                self._look_at(number, raw)
        except InvalidJob:
            self.found.bad += 1  # it is told when the row is read for the run
        else:
            known = self._job is not None and self._job[0] == number
            self.found.add(group, self._job[1].n if known and self._job else _images(fields))

    def _look_at(self, number: int, raw: Raw) -> MultiImage:
        self._looked_at += 1
        row = self.manifest.row(number, raw)
        if not isinstance(row, Row):
            raise row.error
        self._job = number, row.job
        return row.job


def _images(fields: Mapping[str, object]) -> int:
    wanted = fields.get("n", 1)
    return wanted if type(wanted) is int and 1 <= wanted <= MOST_IMAGES else 0
