"""`check`: every row and every picture of a manifest, and what it would cost; no key, nothing sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
from attrs import define, field

from kling_async.cli.money import dollars, plural
from kling_async.cli.voice import USAGE, ManifestError, Voice, finish, reading_manifest, speaks
from kling_async.errors import InvalidJob

__all__ = ["check_command", "refuse_bad_rows"]

# Pictures remembered, since manifests use a few again and again.
_KEPT_PICTURES = 10_000
_LISTED = 1000


@click.command(
    name="check",
    epilog="""\b
Examples:
  kling-async check jobs.jsonl
  kling-async check jobs.csv --json | jq .units

Exits with 0 if all rows are good and with 2 if any is bad.
""",
)
@click.argument("manifest", type=click.Path(path_type=Path))
@speaks
def check_command(*, manifest: Path, voice: Voice) -> None:
    """Check every row and picture of MANIFEST and show the cost. Needs no key and sends nothing."""
    import anyio

    finish(anyio.run(_check, manifest, voice))


async def refuse_bad_rows(manifest: Path) -> None:
    """Raise ManifestError at the first bad row or picture of *manifest*."""
    async for _, _, error in _Inspection().problems(manifest):
        raise ManifestError(f"{manifest}: {error}; nothing was sent, since --strict was given")


@define(eq=False)
class _Inspection:
    """One look at a manifest, with the counts of what was found."""

    rows: int = 0
    bad: int = 0
    images: int = 0
    urls: int = 0
    _pictures: OrderedDict[Path, InvalidJob | None] = field(factory=OrderedDict)

    async def problems(self, manifest: Path) -> AsyncIterator[tuple[int, str, InvalidJob]]:
        """Yield line, key and error of everything that is wrong; all pictures of a row are looked at."""
        from kling_async.batch.manifest import BadRow, at_line, read_manifest

        with reading_manifest():
            rows = read_manifest(manifest)
        for row in rows:
            self.rows += 1
            if isinstance(row, BadRow):
                self.bad += 1
                yield row.number, row.key, row.error
                continue
            wrong = [error async for error in self._wrong_pictures(row.job)]
            for error in wrong:
                yield row.number, row.key, at_line(row.number, error)
            self.bad += bool(wrong)
            self.images += 0 if wrong else row.job.n

    async def _wrong_pictures(self, job: Any) -> AsyncIterator[InvalidJob]:
        from kling_async.transport.pictures import inspect

        for name, source in job.pictures():
            if source.url is not None:
                self.urls += 1
                continue
            if source.path in self._pictures:
                error = self._pictures[source.path]
            else:
                error = None
                try:
                    await inspect(source, name)
                except InvalidJob as found:
                    error = found
                if source.path is not None:
                    self._remember(source.path, error)
            if error is not None:
                yield InvalidJob.because(name, error.rule, error.value, error.remedy)

    def _remember(self, path: Path, error: InvalidJob | None) -> None:
        self._pictures[path] = error
        if len(self._pictures) > _KEPT_PICTURES:
            self._pictures.popitem(last=False)


async def _check(manifest: Path, voice: Voice) -> int:
    inspection = _Inspection()
    listed: list[dict[str, Any]] = []
    tell: Callable[[dict[str, Any]], object] = listed.append if voice.json else _line_to(voice)
    told = 0
    async for number, key, error in inspection.problems(manifest):
        told += 1
        if not voice.json or told <= _LISTED:
            tell(_problem(number, key, error))
    _sum_up(manifest, inspection, listed, told, voice)
    return USAGE if inspection.bad else 0


def _line_to(voice: Voice) -> Callable[[dict[str, Any]], object]:
    return lambda problem: voice.data(f"{problem['key']}  {problem['message']}")


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


def _sum_up(
    manifest: Path, found: _Inspection, listed: list[dict[str, Any]], told: int, voice: Voice
) -> None:
    from kling_async.protocol.jobs import MultiImage

    units = found.images * MultiImage.units_per_image
    if voice.json:
        voice.emit(
            {
                "manifest": str(manifest),
                "rows": found.rows,
                "good": found.rows - found.bad,
                "bad": found.bad,
                "images": found.images,
                "units": units,
                "dollars": round(units * 0.0035, 4),
                "urls_not_checked": found.urls,
                "problems": listed,
                "problems_left_out": told - len(listed),
            }
        )
    verdict = f"{found.bad:,} bad" if found.bad else "all good"
    voice.say(f"{plural(found.rows, 'row')}, {verdict}", colour="red" if found.bad else "green", bold=True)
    if found.urls:
        voice.say(f"{plural(found.urls, 'picture')} given as URL not looked at: the service fetches those")
    each = MultiImage.units_per_image
    voice.say(
        f"cost of the good rows: {plural(found.images, 'image')} x {each} units = {units:,} units ≈ {dollars(units)}"
    )
