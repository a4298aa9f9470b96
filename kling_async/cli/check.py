"""`check`: every row and every picture of a manifest, and what it would cost; no key, nothing sent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from attrs import define, field

from kling_async.batch.changes import changed
from kling_async.batch.manifest import BadRow, Row, at_line
from kling_async.cli.earlier import Group, States, journal_of, open_states
from kling_async.cli.estimate import Estimate, retry
from kling_async.cli.intake import open_manifest, shares, takes_pictures, told_row
from kling_async.cli.money import in_dollars, plural
from kling_async.cli.place import Place
from kling_async.cli.voice import USAGE, ManifestError, Voice, finish, speaks
from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.pictures import Fitted, Picture, PictureRules
from kling_async.protocol.rows import UNKNOWN_FIELD
from kling_async.protocol.sources import ImageSource
from kling_async.transport.fitting import require_pillow
from kling_async.transport.stock import Stock

__all__ = ["check_command", "refuse_bad_rows"]

# Pictures remembered, since manifests use a few again and again.
_KEPT_PICTURES = 10_000
_LISTED = 1000
# Problems told where a run is refused for them.
_TOLD = 100


@click.command(
    name="check",
    epilog="""\b
Examples:
  kling-async check jobs.jsonl
  kling-async check jobs.csv --json | jq .units
  kling-async check jobs.csv -o out
  kling-async check photos --style watercolour.png --fit auto
""",
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=Place(), help="Leave out of the cost what a run has done in this folder.")
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Journal of that run.  [default: OUT/journal.db]"
)
@click.option("--update", is_flag=True, help="With -o: the cost if that run is gone on with by --update.")
@takes_pictures
@shares
@speaks
def check_command(
    *,
    manifest: Path,
    out: Path | str | None,
    journal: Path | None,
    update: bool,
    voice: Voice,
    shared: Mapping[str, Any],
    fit: Literal["auto"] | None,
    verify: Literal["header", "full"],
) -> None:
    """
    Check every row and picture of MANIFEST and show the cost. Needs no key and sends nothing.

    With --fit, show what would be changed of which picture. With -o, what an earlier run has done, has begun or has
    failed at costs nothing more, and a row that has changed since it was done is bad, as `run` without --update refuses
    it. Exits with 0 if all rows are good and with 2 if any is bad.
    """
    import anyio

    if isinstance(out, str) and journal is None:
        raise click.UsageError(f"expected --journal FILE, since -o {out} keeps pictures only, found none")
    earlier = journal_of(out) if journal is None and isinstance(out, Path) else journal
    # A run whose pictures go to a store lives where its journal lies.
    home = out if isinstance(out, Path) else Path(journal or "").parent
    rules = PictureRules(fit=fit, verify=verify)
    states = open_states(earlier, update=update)
    finish(anyio.run(partial(_check, manifest, shared, rules, voice, states=states, home=home)))


async def refuse_bad_rows(
    manifest: Path, shared: Mapping[str, Any], rules: PictureRules, voice: Voice
) -> None:
    """Raise ManifestError if *manifest* has bad rows or pictures; tells what is wrong with the first hundred."""
    inspection, told = _Inspection(rules), 0
    async for _, key, found in inspection.findings(manifest, shared):
        if isinstance(found, InvalidJob):
            told += 1
            if told <= _TOLD:
                voice.warn(f"{key}  {found}")
    if inspection.bad:
        more = f"; {told - _TOLD:,} more, see kling-async check" if told > _TOLD else ""
        raise ManifestError(
            f"{manifest}: expected good rows only, since --strict was given, found "
            f"{inspection.bad:,} bad of {inspection.rows:,}{more}; nothing was sent"
        )


@define(eq=False)
class _Inspection:
    """One look at a manifest under *rules*, with the counts of what was found."""

    rules: PictureRules
    states: States = field(factory=States)
    rows: int = 0
    bad: int = 0
    images: int = 0
    urls: int = 0
    fitted: int = 0
    # Good rows by what an earlier run made of them, and bad ones that have only changed.
    work: Estimate = field(factory=Estimate)
    changed: int = 0
    # How many rows have each field that no job has.
    unknown: Counter[str] = field(factory=Counter)
    # Pictures whose changes were told: the style of a thousand rows is told once.
    _told: set[str] = field(factory=set, init=False)
    _stock: Stock = field(factory=Stock, init=False)
    # What was said of a file is said once for each field it is used in.
    _wrong: OrderedDict[Path, InvalidJob] = field(factory=OrderedDict, init=False)

    async def findings(
        self, manifest: Path, shared: Mapping[str, Any]
    ) -> AsyncIterator[tuple[int, str, InvalidJob | Fitted]]:
        """Yield line, key and error or change of everything that there is to tell; all pictures of a row are looked at."""
        rows = open_manifest(manifest, shared)
        for row in rows:
            self.rows += 1
            if isinstance(row, BadRow):
                self.bad += 1
                async for each in self._troubles(row):
                    yield row.number, row.key, each
                continue
            wrong = False
            async for each in self._look_at(row.job):
                if isinstance(each, InvalidJob):
                    wrong = True
                    yield row.number, row.key, at_line(row.number, each)
                else:
                    yield row.number, row.key, each
            group = self._group(row, rows.base)
            if group == "changed":
                wrong = True
                self.changed += 1
                yield row.number, row.key, at_line(row.number, changed(self.states.state(row.key)))
            self.bad += wrong
            if not wrong:
                self.work.add(group, row.job.n)
                self.images += row.job.n

    def _group(self, row: Row, base: Path) -> Group:
        return self.states.of(row.key, row.digest, base, lambda: row.job)

    async def _troubles(self, row: BadRow) -> AsyncIterator[InvalidJob | Fitted]:
        """Yield all that is wrong with *row*; fields that are unknown hide nothing else."""
        for each in row.unknown:
            if each.field in self.unknown or len(self.unknown) < _LISTED:
                self.unknown[each.field] += 1
            yield each
        if isinstance(row.rest, InvalidJob):
            yield row.rest
        elif row.rest is not None:
            async for found in self._look_at(row.rest):
                yield at_line(row.number, found) if isinstance(found, InvalidJob) else found
        else:
            yield row.error

    def is_told(self, found: InvalidJob | Fitted) -> bool:
        """Tell whether *found* is a field that an earlier row has as well, such as a column of a table."""
        is_name = isinstance(found, InvalidJob) and found.rule == UNKNOWN_FIELD
        return is_name and self.unknown[found.field] > 1

    async def _look_at(self, job: MultiImage) -> AsyncIterator[InvalidJob | Fitted]:
        for name, source in job.pictures():
            self.urls += source.url is not None or source.presign
            if source.url is not None or source.presign:
                continue
            found = await self._take(source, name)
            if isinstance(found, InvalidJob):
                yield InvalidJob.because(name, found.rule, found.value, found.remedy)
            elif found is not None and found.changes and found.name not in self._told:
                self._told.add(found.name)
                self.fitted += 1
                yield Fitted(field=name, picture=found.name, changes=found.changes)

    async def _take(self, source: ImageSource, name: str) -> Picture | InvalidJob | None:
        if source.path is not None and source.path in self._wrong:
            return self._wrong[source.path]
        try:
            picture = await self._stock.look(source, name, self.rules)
        except InvalidJob as error:
            if source.path is not None:
                self._remember(source.path, error)
            return error
        return picture if isinstance(picture, Picture) else None

    def _remember(self, path: Path, error: InvalidJob) -> None:
        self._wrong[path] = error
        if len(self._wrong) > _KEPT_PICTURES:
            self._wrong.popitem(last=False)


async def _check(
    manifest: Path,
    shared: Mapping[str, Any],
    rules: PictureRules,
    voice: Voice,
    *,
    states: AbstractContextManager[States],
    home: Path,
) -> int:
    require_pillow(rules)
    problems, changes, told = _Listed(), _Listed(), 0
    with states as known:
        inspection = _Inspection(rules, known)
        async for number, key, found in inspection.findings(manifest, shared):
            if not voice.json:
                told += not inspection.is_told(found)
                if told <= _LISTED and not inspection.is_told(found):
                    voice.data(f"{key}  {found}")
            elif isinstance(found, Fitted):
                changes.add(told_row(number, key, found))
            else:
                problems.add(_problem(number, key, found))
    if voice.json:
        voice.emit(_fields(manifest, inspection, problems, changes))
    elif told > _LISTED:
        voice.data(f"… and {told - _LISTED:,} more")
    for name, count in inspection.unknown.items():
        if count > 1:
            voice.tell(f"{name}: an unknown field in {count:,} rows")
    _sum_up(inspection, home, voice)
    return USAGE if inspection.bad else 0


@define
class _Listed:
    """The first of many things, and how many more there were."""

    rows: list[Mapping[str, Any]] = field(factory=list)
    left_out: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        if len(self.rows) < _LISTED:
            self.rows.append(row)
        else:
            self.left_out += 1


def _problem(number: int, key: str, error: InvalidJob) -> dict[str, Any]:
    return {
        "line": number,
        "key": key,
        "field": error.field,
        "expected": error.rule,
        "found": error.value,
        "remedy": error.remedy,
        "message": str(error),
    }


def _fields(manifest: Path, found: _Inspection, problems: _Listed, changes: _Listed) -> dict[str, Any]:
    return {
        "manifest": str(manifest),
        "rows": found.rows,
        "good": found.rows - found.bad,
        "bad": found.bad,
        "changed": found.changed,
        "done": found.work.done,
        "failed_before": found.work.failed,
        "running": found.work.running,
        "todo": found.work.todo,
        "anew": found.work.anew,
        "images": found.images,
        **_price(found.images, ""),
        "images_todo": found.work.images,
        **_price(found.work.images, "_todo"),
        "urls_not_checked": found.urls,
        "problems": problems.rows,
        "problems_left_out": problems.left_out,
        "fitted": changes.rows,
        "fitted_left_out": changes.left_out,
    }


def _price(images: int, ending: str) -> dict[str, Any]:
    units = images * MultiImage.units_per_image
    return {f"units{ending}": units, f"dollars{ending}": in_dollars(units)}


def _sum_up(found: _Inspection, home: Path, voice: Voice) -> None:
    since = f", {found.changed:,} of them changed since they were sent" if found.changed else ""
    verdict = f"{found.bad:,} bad{since}" if found.bad else "all good"
    voice.tell(f"{plural(found.rows, 'row')}, {verdict}", colour="red" if found.bad else "green", bold=True)
    if found.fitted:
        voice.tell(f"{plural(found.fitted, 'picture')} to be changed to fit the rules, as listed")
    if found.urls:
        voice.tell(f"{plural(found.urls, 'picture')} given as URL not looked at: the service fetches those")
    left, whole = found.work, Estimate(images=found.images)
    if left.rows == left.todo and not left.anew:
        voice.tell(f"cost of the good rows: {whole.cost()}")
        return
    voice.tell(f"of the good rows: {left.work(retry(home))}")
    voice.tell(f"cost of what is to do: {left.cost()}; of all good rows: {whole.cost()}")
