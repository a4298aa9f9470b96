"""What `run` and `retry` share: the client, the plan that is shown before anything is spent, the run, its end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from attrs import define, evolve, field, frozen

from kling_async.cli.environment import Connection, writable_folder
from kling_async.cli.money import dollars, duration, in_dollars, plural
from kling_async.cli.voice import Voice, error_fields, reading_manifest
from kling_async.errors import KlingError
from kling_async.protocol.naming import TEMPLATE

if TYPE_CHECKING:
    from kling_async.batch.manifest import BadRow, Row
    from kling_async.cli.board import Board
    from kling_async.cli.driver import Ending, Orders
    from kling_async.cli.earlier import Command
    from kling_async.cli.estimate import Estimate
    from kling_async.client.kling import Kling
    from kling_async.report.gallery import Written

__all__ = ["Counting", "Settings", "banner", "refuse_unasked", "run_manifest", "summary"]

# Seconds that the first create waits for the count of a large manifest.
_COUNTING = 2.0
# Seconds that it waits to hear who answers.
_ASKING = 5.0


@frozen(kw_only=True)
class Settings:
    """What the caller said of a run."""

    manifest: Path
    out: Path | str
    connection: Connection
    journal: Path | None = None
    name: str = TEMPLATE
    slots: int | None = None
    budget: int | None = None
    split: bool = False
    emulator: bool = False
    yes: bool = False
    in_order: bool = False
    update: bool = False
    strict: bool = False
    shared: Mapping[str, Any] = field(factory=dict)
    fit: Literal["auto"] | None = None
    verify: Literal["header", "full"] = "header"
    engine: str | None = None
    slots_store: str | None = None

    @property
    def asks(self) -> bool:
        """Whether a person is to be asked before anything is spent."""
        return not self.emulator and not self.yes and sys.stdin.isatty()

    @property
    def journal_path(self) -> Path:
        """Where the journal lies."""
        return self.journal or self.home / "journal.db"

    @property
    def home(self) -> Path:
        """The folder of the run on this machine: OUT, or for an object store that of the journal."""
        if isinstance(self.out, Path):
            return self.out
        if self.journal is None:
            raise click.UsageError(
                f"expected --journal FILE on this machine, since -o {self.out} keeps pictures only, found none"
            )
        return self.journal.parent

    def command(self) -> Command:
        """Return what the folder of the run remembers."""
        from kling_async.cli.earlier import Command

        elsewhere = self.journal is not None and self.journal != self.home / "journal.db"
        return Command(
            manifest=str(self.manifest.absolute()),
            emulated=self.emulator,
            out=self.out if isinstance(self.out, str) else "",
            journal=str(self.journal_path.absolute()) if elsewhere else "",
            name=self.name,
            shared=self.shared,
            fit=self.fit,
            verify=self.verify,
        )

    def again(self) -> str:
        """Return the command that continues the run, whole: one without its budget would spend more."""
        words = ["kling-async", "run", str(self.manifest), "-o", str(self.out)]
        words += _words("--journal", self.journal)
        words += _words("--name", self.name if self.name != TEMPLATE else None)
        words += [word for name, value in self.shared.items() for word in (_OPTIONS[name], str(value))]
        words += _words("--fit", self.fit)
        words += _words("--verify", self.verify if self.verify != "header" else None)
        words += ["--emulator"] if self.emulator else []
        words += _words("--engine", self.engine)
        words += _words("--slots-store", self.slots_store)
        words += ["--strict"] if self.strict else []
        words += ["--update"] if self.update else []
        words += ["--yes"] if self.yes else []
        return shlex.join(words + self._how())

    def anew(self) -> str:
        """Return the command that makes anew what was done and has changed; it asks before it spends."""
        return evolve(self, update=True, yes=False).again()

    def retry(self) -> str:
        """Return the command that tries again what failed, as this run was told to; it asks before it spends."""
        return shlex.join(["kling-async", "retry", str(self.home), *self._how()])

    def orders(self, rows: Iterable[Row | BadRow]) -> Orders:
        """Return what is to be done with *rows*."""
        from kling_async.cli.driver import Orders

        return Orders(
            rows=rows,
            out=self.out,
            name=self.name,
            journal=self.journal,
            resume=self.again(),
            budget=self.budget,
            split=self.split,
            in_order=self.in_order,
            update=self.update,
            fit=self.fit,
            verify=self.verify,
        )

    def _how(self) -> list[str]:
        """Return the options that `run` and `retry` share."""
        return [
            *_words("--slots", self.slots),
            *_words("--budget", self.budget),
            *(["--split"] if self.split else []),
            *(["--in-order"] if self.in_order else []),
            *_words("--base-url", self.connection.base_url),
            *_words("--region", self.connection.region),
        ]


def _words(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]


_OPTIONS = {
    "scene_image": "--scene",
    "style_image": "--style",
    "prompt": "--prompt",
    "negative_prompt": "--negative-prompt",
    "n": "-n",
    "aspect_ratio": "--aspect-ratio",
    "model_name": "--model",
}


def refuse_unasked(settings: Settings) -> None:
    """Raise a usage error where money would be spent that nobody was asked about."""
    free = settings.emulator or settings.yes or settings.budget is not None
    if not free and not sys.stdin.isatty():
        raise click.UsageError(
            "expected --yes or --budget UNITS, since there is no terminal to ask on, found neither"
        )
    if settings.emulator and (settings.connection.base_url or settings.connection.region):
        raise click.UsageError("expected --emulator or --base-url/--region, found both; drop one of them")


async def run_manifest(
    settings: Settings, voice: Voice, *, prepare: Callable[[], Awaitable[None]] | None = None
) -> int:
    """
    Run the manifest to its end and return the exit code; raises what is found wrong before anything is sent.

    *prepare* changes the run once it is known to belong to the service that answers.
    """
    from kling_async.batch.upkeep import forget_running
    from kling_async.cli.board import Board
    from kling_async.cli.driver import drive, monotonic
    from kling_async.cli.earlier import is_emulated
    from kling_async.cli.estimate import estimate
    from kling_async.cli.intake import open_manifest
    from kling_async.cli.views import choose_view

    rows = open_manifest(settings.manifest, settings.shared)
    board = Board(monotonic)
    async with _client(settings, board) as (kling, target):
        writable_folder(settings.home)
        emulated = settings.emulator or await _is_emulated(kling)
        settings.command().keep(settings.home, emulated=emulated)
        if prepare is not None:
            await prepare()
        if settings.emulator and settings.journal_path.exists():
            # The emulator they ran on is gone, and they cost nothing.
            await forget_running(settings.journal_path)
        counting = Counting(
            lambda: estimate(
                settings.manifest, settings.journal_path, settings.shared, update=settings.update
            ),
            board,
        )
        asks = settings.asks and not emulated
        await counting.begin(wait=asks)
        if emulated and not settings.emulator:
            target[:1] = banner(target[0].split()[-1])
        for line in (*target, *_plan(settings, counting.result, emulated=bool(emulated))):
            voice.say(line)
        if asks and not click.confirm("Go on?", err=True):
            voice.say("nothing was sent")
            return 0
        view = choose_view(voice, emulated=bool(emulated))
        beside = None if counting.result else counting.count
        ending = await drive(kling, settings.orders(rows), board, view, voice, beside=beside)
    # Who did not answer at first has done so by now.
    _report(settings, ending, voice, emulated=bool(emulated or is_emulated(settings.home)))
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
            base_url=emulator.url,
            api_key=emulator.api_key,
            slots=slots,
            trust_env=False,
            on_event=board.see,
        ) as kling:
            yield kling, banner(emulator.url)


async def _is_emulated(kling: Kling) -> bool | None:
    import anyio

    # The run itself tells what is wrong, and knows whether it can wait for the service.
    with suppress(KlingError), anyio.move_on_after(_ASKING):
        return await kling.account.is_emulated()
    return None


def banner(url: str) -> list[str]:
    """Say, so that nobody can misread it, that what follows is emulated."""
    return [
        f"EMULATED: a local copy of the Kling API at {url}.",
        "Pictures are composites made here. Nothing is sent, nothing is charged.",
    ]


def _plan(settings: Settings, found: Estimate | None, *, emulated: bool) -> list[str]:
    work = found.work(settings.retry()) if found else "counting the rows meanwhile"
    cost = f"up to {found.cost()}" if found else "not counted yet"
    free = " (emulated, nothing is charged)" if emulated else ""
    budget = f"; budget {settings.budget:,} units" if settings.budget is not None else ""
    return [
        f"manifest  {settings.manifest}: {work}",
        f"output    {settings.out}",
        f"cost      {cost}{free}{budget}",
        *(["intake    pictures are made to fit, each change is told"] if settings.fit else []),
    ]


@define(eq=False)
class Counting:
    """The count of a manifest by *work*, made in a thread; *result* is None until it is there."""

    _work: Callable[[], Estimate]
    _board: Board
    result: Estimate | None = None

    def count(self) -> None:
        """Count, and tell the board; blocks."""
        found = self._work()
        self._board.total, self._board.todo = found.rows, found.undone
        self.result = found

    async def begin(self, *, wait: bool) -> None:
        """Count for a moment, or to the end if *wait*; what is not counted then is counted beside the run."""
        import anyio

        with anyio.move_on_after(None if wait else _COUNTING), reading_manifest():
            await anyio.to_thread.run_sync(self.count, abandon_on_cancel=True)


def summary(ending: Ending, out: Path | str, home: Path, gallery: Written | None = None) -> dict[str, Any]:
    """Return the end of a run as data; *home* is the folder of its results, *gallery* its page if there is one."""
    stats = ending.statistics
    return {
        "succeeded": stats.succeeded,
        "failed": stats.failed,
        "skipped": stats.skipped,
        "failed_before": ending.failed_before,
        "bad": ending.bad,
        "changed": ending.changed,
        "fitted": ending.fitted,
        "images": stats.images,
        "units": float(stats.units),
        "dollars": in_dollars(stats.units),
        "seconds": round(stats.seconds, 3),
        "slot_utilisation": stats.slot_utilisation,
        "out": str(out),
        "results": str(home / "results.jsonl"),
        "gallery": str(gallery.page) if gallery else None,
        "error": error_fields(ending.error) if ending.error else None,
        "interrupted": ending.interrupted,
        "exit_code": ending.exit_code,
    }


def _report(settings: Settings, ending: Ending, voice: Voice, *, emulated: bool) -> None:
    from kling_async.cli.gallery import write_at_the_end

    stats = ending.statistics
    gallery = write_at_the_end(settings.home, stats.done, voice)
    if voice.json:
        voice.emit(summary(ending, settings.out, settings.home, gallery) | {"emulated": emulated})
    free = " (emulated)" if emulated else ""
    bad = f" ({plural(ending.bad, 'bad row')}, nothing sent)" if ending.bad else ""
    voice.say(
        f"{plural(stats.succeeded, 'job')} done, {plural(stats.images, 'image')} in {duration(stats.seconds)}, "
        f"{stats.failed:,} failed{bad}, {float(stats.units):,.0f} units spent ≈ {dollars(stats.units)}{free}",
        bold=True,
    )
    if stats.skipped:
        failed = f", {ending.failed_before:,} failed before" if ending.failed_before else ""
        voice.say(f"{stats.skipped - ending.failed_before:,} had been done before{failed}")
    if ending.fitted:
        voice.say(f"{plural(ending.fitted, 'picture')} changed to fit the rules; each is told in the results")
    voice.say(f"pictures  {str(settings.out).rstrip('/')}/images")
    voice.say(f"results   {settings.home / 'results.jsonl'}")
    if gallery is not None:
        voice.say(f"gallery   {gallery.page}")
    if ending.error is not None:
        voice.warn(f"error: {ending.error}")
    if ending.error is not None or ending.interrupted:
        voice.say(f"go on     {settings.again()}")
    if stats.failed > ending.changed + ending.too_early or ending.failed_before:
        voice.say(
            f"failed    {settings.retry()}  (with the rows as they are now; what is done is not paid for again)"
        )
    if ending.changed:
        voice.say(
            f"changed   {settings.anew()}  (makes {plural(ending.changed, 'row')} anew and pays for it; else give it another key, "
            "or put it back)"
        )
