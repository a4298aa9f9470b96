"""`demo`: a whole run without a key, on the emulator, with some honest trouble."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kling_async.cli.money import dollars, duration, plural
from kling_async.cli.running import banner, summary
from kling_async.cli.voice import SOME_FAILED, Voice, finish, speaks
from kling_async.errors import ContentRefusal

if TYPE_CHECKING:
    from kling_async.batch.outcomes import Failed
    from kling_async.cli.driver import Ending
    from kling_async.cli.estimate import Estimate
    from kling_async.cli.views import View
    from kling_async.emulator import Emulator
    from kling_async.report.gallery import Written

__all__ = ["demo_command"]

SLOTS = 9
BUDGET = 1000
# Emulated seconds a second: the tasks of the real service take about 24 s, these one.
SPEED = 24.0
# In proportion to the tasks.
POLL_INTERVAL = 0.25
# Fewer pixels than the real service makes, so that two cores paint 48 pictures in the time.
MEGAPIXELS = 0.3
# The create whose reply is lost once it was accepted.
LOST_REPLY = 12


@click.command(
    name="demo",
    epilog="""\b
Examples:
  kling-async demo
  kling-async demo --open
  kling-async demo my-folder --progress plain
""",
)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("kling-demo"), required=False)
@click.option("--open", "opens", is_flag=True, help="Open the gallery in a browser at the end.")
@click.option(
    "--svg", type=click.Path(path_type=Path), hidden=True, help="Keep a picture of the live view here."
)
@speaks
def demo_command(*, folder: Path, opens: bool, svg: Path | None, voice: Voice) -> None:
    """
    See a whole run on the local emulator: 24 jobs, 48 images, no key, nothing charged.

    Makes FOLDER (kling-demo) with pictures, manifest and script, which are yours to keep and change. Exits with 0 if
    it ended as planned, the one refusal that is planned included. Running it again continues.
    """
    import anyio

    from kling_async.cli.gallery import open_page
    from kling_async.cli.sample import make_folder

    voice.say("kling-async demo: 24 jobs, two images each; no API key is used", bold=True)
    made = make_folder(folder)
    if made:
        voice.say(f"made {plural(len(made), 'file')} in {folder}: reference pictures, jobs.jsonl, run.py")
    code = anyio.run(_demo, folder, svg, voice)
    page = folder / "gallery.html"
    if opens and page.exists():
        open_page(page, voice)
    finish(code)


def trouble(moment: float) -> int:
    """Return the slots that somebody else on the account holds at *moment*, in emulated seconds."""
    return 2 if 30 <= moment % 75 < 50 else 0


def emulated_service() -> Emulator:
    """Return the demo's service: one reply is lost, and other programs take slots now and then."""
    from kling_async.emulator import Emulator, Fault

    lost = Fault(action="reset-after-accept", route="create", after=LOST_REPLY - 1, times=1)
    return Emulator(
        slots=SLOTS,
        speed=SPEED,
        megapixels=MEGAPIXELS,
        foreign_load=trouble,
        faults=[lost],
        seed=7,
        default_model="kling-v2-1",
    )


async def _demo(folder: Path, svg: Path | None, voice: Voice) -> int:
    from kling_async.batch.manifest import read_manifest
    from kling_async.batch.upkeep import forget_running
    from kling_async.cli.board import Board
    from kling_async.cli.driver import Orders, drive, monotonic
    from kling_async.cli.earlier import Command, journal_of
    from kling_async.cli.estimate import estimate, retry
    from kling_async.cli.gallery import write_at_the_end
    from kling_async.cli.voice import reading_manifest
    from kling_async.client.kling import Kling

    manifest = folder / "jobs.jsonl"
    Command(manifest=str(manifest.absolute()), emulated=True).keep(folder)
    if journal_of(folder).exists():
        # Tasks of an emulator that is gone: nobody can finish them, and they cost nothing.
        await forget_running(journal_of(folder))
    with reading_manifest():
        rows = read_manifest(manifest)
        todo, whole = estimate(manifest, journal_of(folder)), estimate(manifest)
    board = Board(monotonic, todo.rows, todo.undone)
    async with (
        emulated_service() as emulator,
        Kling(
            base_url=emulator.url,
            api_key=emulator.api_key,
            slots=SLOTS,
            min_poll_interval=POLL_INTERVAL,
            trust_env=False,
            on_event=board.see,
        ) as kling,
    ):
        for line in banner(emulator.url):
            voice.say(f"┃ {line}", colour="yellow", bold=True)
        voice.say(f"┃ manifest  {manifest}: {todo.work(retry(folder))}")
        voice.say(f"┃ output    {folder / 'images'}   journal  {journal_of(folder)}")
        orders = Orders(
            rows=rows, out=folder, resume=f"kling-async demo {shlex.quote(str(folder))}", budget=BUDGET
        )
        ending = await drive(kling, orders, board, _view(voice, svg), voice)
        twice = len(emulator.tasks) - ending.statistics.creates
    code = _code(ending, manifest)
    gallery = write_at_the_end(folder, ending.statistics.done, voice)
    if voice.json:
        voice.emit(summary(ending, folder, folder, gallery) | {"emulated": True, "exit_code": code})
    _say_end(folder, ending, whole, twice=twice, gallery=gallery, voice=voice)
    return code


def _view(voice: Voice, svg: Path | None) -> View:
    from kling_async.cli.views import choose_view

    view = choose_view(voice, emulated=True, every=2.0)
    if svg is None:
        return view
    from kling_async.cli.live import Camera

    return Camera(view, svg, "kling-async demo")


def _code(ending: Ending, manifest: Path) -> int:
    """Return 0 if nothing but the planned refusals failed, now and before."""
    usual = ending.exit_code
    if usual != SOME_FAILED or ending.error is not None:
        return usual
    failed = ending.statistics.failed
    as_planned = len(ending.failed) == failed and all(map(_planned, ending.failed))
    return 0 if as_planned and ending.failed_before + failed <= _planned_rows(manifest) else usual


def _planned_rows(manifest: Path) -> int:
    from kling_async.batch.manifest import raw_records
    from kling_async.cli.sample import PLANNED_REFUSAL

    return sum(PLANNED_REFUSAL in str(fields) for _, fields in raw_records(manifest))


def _planned(failed: Failed) -> bool:
    from kling_async.cli.sample import PLANNED_REFUSAL

    marked = failed.job is not None and PLANNED_REFUSAL in (failed.job.prompt or "")
    return marked and isinstance(failed.error, ContentRefusal)


def _say_end(
    folder: Path, ending: Ending, whole: Estimate, *, twice: int, gallery: Written | None, voice: Voice
) -> None:
    from kling_async.cli.estimate import retry

    stats = ending.statistics
    voice.say()
    if ending.statistics.skipped == ending.statistics.done:
        voice.say("nothing was left to do", bold=True)
    else:
        voice.say(
            f"{stats.succeeded} of {plural(stats.succeeded + stats.failed, 'job')} done, "
            f"{plural(stats.images, 'image')} in {duration(stats.seconds)}, {stats.failed} failed, {twice} sent twice",
            bold=True,
        )
        voice.say(
            f"{float(stats.units):,.0f} units ≈ {dollars(stats.units)} (emulated), "
            f"{stats.slot_utilisation or 0:.0%} used of the slots that others left"
        )
    if stats.skipped:
        refused = f", {ending.failed_before} of them refused" if ending.failed_before else ""
        voice.say(f"{plural(stats.skipped, 'job')} had ended in an earlier run{refused}")
    for failed in ending.failed:
        why = "planned refusal: " if _planned(failed) else ""
        voice.say(f"  {failed.key}: {why}{failed.error}")
    quoted = shlex.quote(str(folder))
    lines: list[tuple[str, Any]] = [
        ("pictures", f"{folder / 'images'}"),
        ("results", f"{folder / 'results.jsonl'}  (a line for each job)"),
        *([] if ending.whole else [("again", f"kling-async demo {quoted}  (only what is left)")]),
        *([("retry", f"{retry(folder)}  (what failed)")] if stats.failed or ending.failed_before else []),
        ("python", f"python {shlex.quote(str(folder / 'run.py'))}  (the same in 20 lines)"),
        ("for real", "export KLING_API_KEY=…"),
        ("", f"kling-async run {shlex.quote(str(folder / 'jobs.jsonl'))} -o kling-real"),
        ("", f"would cost {whole.cost()}"),
        *([("gallery", f"kling-async gallery {quoted} --open  (all of it in a browser)")] if gallery else []),
    ]
    for name, text in lines:
        voice.say(f"  {name:<9} {text}")
