"""`run`: a manifest to pictures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from attrs import frozen

from kling_async.cli.environment import Connection, connects, writable_folder
from kling_async.cli.money import dollars, duration, plural
from kling_async.cli.voice import Voice, error_fields, finish, reading_manifest, speaks

if TYPE_CHECKING:
    from kling_async.cli.board import Board
    from kling_async.cli.driver import Ending
    from kling_async.cli.estimate import Estimate
    from kling_async.client.kling import Kling

__all__ = ["Settings", "banner", "run_command", "summary"]

# Seconds that the first create waits for the count of a large manifest.
_COUNTING = 2.0


@frozen(kw_only=True)
class Settings:
    """What the caller said of a run."""

    manifest: Path
    out: Path
    slots: int | None
    budget: int | None
    emulator: bool
    yes: bool
    in_order: bool
    connection: Connection


@click.command(
    name="run",
    epilog="""\b
Examples:
  kling-async run jobs.jsonl -o out --emulator
  kling-async run jobs.csv -o out --budget 5000 --yes

Running it again continues: rows that succeeded are not sent again.
""",
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder for pictures and results."
)
@click.option("--slots", type=click.IntRange(min=1), help="Slots of the account, instead of finding out.")
@click.option("--budget", type=click.IntRange(min=0), metavar="UNITS", help="Most units to commit.")
@click.option("--emulator", is_flag=True, help="Use the local emulator: nothing is sent, nothing charged.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before spending.")
@click.option("--in-order", is_flag=True, help="Finish rows in the order of the manifest.")
@click.option("--strict", is_flag=True, help="Check everything first; send nothing if any row is bad.")
@speaks
@connects
def run_command(*, manifest: Path, voice: Voice, strict: bool, **options: Any) -> None:
    """
    Run MANIFEST (JSONL, CSV, TSV) and save the pictures.

    Shows the target and the cost first and asks once.
    """
    import anyio

    settings = Settings(manifest=manifest, **options)
    _refuse_unasked(settings)
    if strict:
        from kling_async.cli.check import refuse_bad_rows

        anyio.run(refuse_bad_rows, manifest)
    finish(anyio.run(_run, settings, voice))


def _refuse_unasked(settings: Settings) -> None:
    free = settings.emulator or settings.yes or settings.budget is not None
    if not free and not sys.stdin.isatty():
        raise click.UsageError(
            "expected --yes or --budget UNITS, since there is no terminal to ask on, found neither"
        )
    if settings.emulator and (settings.connection.base_url or settings.connection.region):
        raise click.UsageError("expected --emulator or --base-url/--region, found both; drop one of them")


async def _run(settings: Settings, voice: Voice) -> int:
    from kling_async.batch.manifest import read_manifest
    from kling_async.batch.sinks import RESULTS
    from kling_async.cli.board import Board
    from kling_async.cli.driver import Orders, drive, monotonic
    from kling_async.cli.estimate import estimate
    from kling_async.cli.resume import read_earlier
    from kling_async.cli.views import choose_view

    with reading_manifest():
        rows = read_manifest(settings.manifest)
    board = Board(monotonic)
    async with _client(settings, board) as (kling, target):
        writable_folder(settings.out)
        earlier = read_earlier(settings.out / RESULTS)
        counting = await _count(lambda: estimate(settings.manifest, earlier), board, wait=_asks(settings))
        for line in (*target, *_plan(settings, counting)):
            voice.say(line)
        for key, task in list(earlier.held.items())[:5]:
            voice.warn(
                f"held back {key}: its task may have been paid for; kling-async wait {task} -o {settings.out}"
            )
        if _asks(settings) and not click.confirm("Go on?", err=True):
            voice.say("nothing was sent")
            return 0
        orders = Orders(
            rows=earlier.left_of(rows),
            out=settings.out,
            resume=_again(settings),
            budget=settings.budget,
            in_order=settings.in_order,
        )
        ending = await drive(
            kling,
            orders,
            board,
            choose_view(voice, emulated=settings.emulator),
            voice,
            beside=None if counting.result else counting.count,
        )
    _report(settings, ending, voice)
    return ending.exit_code


@asynccontextmanager
async def _client(settings: Settings, board: Board) -> AsyncIterator[tuple[Kling, list[str]]]:
    """Open the client, on the emulator if asked for; with the lines that say where the run goes."""
    if not settings.emulator:
        target = settings.connection.describe(settings.slots)
        async with settings.connection.open(slots=settings.slots, on_event=board.see) as kling:
            yield kling, target
        return
    from kling_async.client.kling import Kling
    from kling_async.emulator import Emulator

    async with Emulator(slots=settings.slots or 9) as emulator:
        slots: int | Literal["auto"] = settings.slots or "auto"
        async with Kling(
            base_url=emulator.url, api_key=emulator.api_key, slots=slots, trust_env=False, on_event=board.see
        ) as kling:
            yield kling, banner(emulator.url)


def banner(url: str) -> list[str]:
    """Say, so that nobody can misread it, that what follows is emulated."""
    return [
        f"EMULATED: a local copy of the Kling API at {url}.",
        "Pictures are composites made on this machine. Nothing is sent, nothing is charged.",
    ]


def _asks(settings: Settings) -> bool:
    return not settings.emulator and not settings.yes and sys.stdin.isatty()


def _plan(settings: Settings, counting: Counting) -> list[str]:
    found = counting.result
    work = found.work() if found else "counting the rows meanwhile"
    cost = f"up to {found.cost()}" if found else "not counted yet"
    free = " (emulated, nothing is charged)" if settings.emulator else ""
    budget = f"; budget {settings.budget:,} units" if settings.budget is not None else ""
    return [
        f"manifest  {settings.manifest}: {work}",
        f"output    {settings.out}",
        f"cost      {cost}{free}{budget}",
    ]


def _again(settings: Settings) -> str:
    words = ["kling-async", "run", str(settings.manifest), "-o", str(settings.out)]
    words += ["--emulator"] if settings.emulator else []
    return shlex.join(words)


class Counting:
    """The count of a manifest, made in a thread; *result* is None until it is there."""

    def __init__(self, work: Any, board: Board) -> None:
        self.result: Estimate | None = None
        self._work = work
        self._board = board

    def count(self) -> None:
        """Count, and tell the board."""
        result: Estimate = self._work()
        self._board.total, self._board.images = result.do, result.images
        self.result = result


async def _count(work: Any, board: Board, *, wait: bool) -> Counting:
    """Count for as long as there is a question to answer, else for a moment only; the rest is done beside the run."""
    import anyio

    counting = Counting(work, board)
    with anyio.move_on_after(None if wait else _COUNTING), reading_manifest():
        await anyio.to_thread.run_sync(counting.count, abandon_on_cancel=True)
    return counting


def summary(ending: Ending, out: Path) -> dict[str, Any]:
    """Return the end of a run as data."""
    stats = ending.statistics
    return {
        "succeeded": stats.succeeded,
        "failed": stats.failed,
        "skipped": stats.skipped,
        "images": stats.images,
        "units": float(stats.units),
        "dollars": round(float(stats.units) * 0.0035, 4),
        "seconds": round(stats.seconds, 3),
        "slot_utilisation": stats.slot_utilisation,
        "out": str(out),
        "results": str(out / "results.jsonl"),
        "error": error_fields(ending.error) if ending.error else None,
        "interrupted": ending.interruption.signal is not None,
        "exit_code": ending.exit_code,
    }


def _report(settings: Settings, ending: Ending, voice: Voice) -> None:
    stats = ending.statistics
    if voice.json:
        voice.emit(summary(ending, settings.out))
    free = " (emulated)" if settings.emulator else ""
    voice.say(
        f"{plural(stats.succeeded, 'job')} done, {plural(stats.images, 'image')} in {duration(stats.seconds)}, "
        f"{stats.failed:,} failed, {float(stats.units):,.0f} units ≈ {dollars(stats.units)}{free}",
        bold=True,
    )
    voice.say(f"pictures  {settings.out / 'images'}")
    voice.say(f"results   {settings.out / 'results.jsonl'}")
    if ending.error is not None:
        voice.warn(f"error: {ending.error}")
    if ending.error is not None or ending.interruption.signal is not None or stats.failed:
        voice.say(f"go on     {_again(settings)}")
