"""`demo`: a whole run without a key, on the emulator, with some honest trouble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kling_async.cli.money import dollars, duration, plural
from kling_async.cli.run import banner, summary
from kling_async.cli.voice import SOME_FAILED, Voice, finish, speaks
from kling_async.errors import ContentRefusal

if TYPE_CHECKING:
    from kling_async.batch.outcomes import Failed
    from kling_async.cli.driver import Ending
    from kling_async.cli.estimate import Estimate
    from kling_async.emulator import Emulator

__all__ = ["demo_command"]

SLOTS = 9
BUDGET = 1000
# Emulated seconds a second: the tasks of the real service take about 24 s, these 1.3.
SPEED = 18.0
# Fewer pixels than the real service makes, so that two cores paint 48 pictures in the time.
MEGAPIXELS = 0.36
# The create whose reply is lost once it was accepted.
LOST_REPLY = 12


@click.command(
    name="demo",
    epilog="""\b
Examples:
  kling-async demo
  kling-async demo my-folder --progress plain
""",
)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("kling-demo"), required=False)
@speaks
def demo_command(*, folder: Path, voice: Voice) -> None:
    """
    See a whole run on the local emulator: 24 jobs, 48 images, no key, nothing charged.

    Makes FOLDER (kling-demo) with pictures, manifest and script, which are yours to keep and change. Exits with 0 if
    it ended as planned, the one refusal that is planned included. Running it again continues.
    """
    import anyio

    from kling_async.cli.sample import make_folder

    voice.say("kling-async demo: 24 jobs, two images each; no API key is used", bold=True)
    made = make_folder(folder)
    if made:
        voice.say(f"made {plural(len(made), 'file')} in {folder}: reference pictures, jobs.jsonl, run.py")
    finish(anyio.run(_demo, folder, voice))


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


async def _demo(folder: Path, voice: Voice) -> int:
    from kling_async.batch.manifest import read_manifest
    from kling_async.batch.sinks import RESULTS
    from kling_async.cli.board import Board
    from kling_async.cli.driver import Orders, drive, monotonic
    from kling_async.cli.estimate import estimate
    from kling_async.cli.resume import Earlier, read_earlier
    from kling_async.cli.views import choose_view
    from kling_async.cli.voice import reading_manifest
    from kling_async.client.kling import Kling

    manifest = folder / "jobs.jsonl"
    earlier = read_earlier(folder / RESULTS)
    with reading_manifest():
        rows, planned = read_manifest(manifest), estimate(manifest, earlier)
        whole = estimate(manifest, Earlier())
    board = Board(monotonic, planned.do, planned.images)
    async with (
        emulated_service() as emulator,
        Kling(
            base_url=emulator.url, api_key=emulator.api_key, slots=SLOTS, trust_env=False, on_event=board.see
        ) as kling,
    ):
        for line in banner(emulator.url):
            voice.say(f"┃ {line}", colour="yellow", bold=True)
        voice.say(f"┃ manifest  {manifest}: {planned.work()}")
        voice.say(f"┃ output    {folder / 'images'}   results  {folder / RESULTS}")
        orders = Orders(
            rows=earlier.left_of(rows), out=folder, resume=f"kling-async demo {folder}", budget=BUDGET
        )
        ending = await drive(kling, orders, board, choose_view(voice, emulated=True, every=2.0), voice)
        accepted = len(emulator.tasks)
    code = _code(ending)
    if voice.json:
        voice.emit(summary(ending, folder) | {"exit_code": code})
    _say_end(folder, ending, whole, twice=accepted - _made(ending), earlier=planned.done, voice=voice)
    return code


def _made(ending: Ending) -> int:
    """Count the jobs that have a task at the service: one each, whatever was lost on the way."""
    return ending.statistics.creates


def _code(ending: Ending) -> int:
    usual = ending.exit_code
    as_planned = usual == SOME_FAILED and ending.error is None and all(map(_planned, ending.failed))
    return 0 if as_planned and len(ending.failed) == ending.statistics.failed else usual


def _planned(failed: Failed) -> bool:
    from kling_async.cli.sample import PLANNED_REFUSAL

    marked = failed.job is not None and PLANNED_REFUSAL in (failed.job.prompt or "")
    return marked and isinstance(failed.error, ContentRefusal)


def _say_end(
    folder: Path, ending: Ending, whole: Estimate, *, twice: int, earlier: int, voice: Voice
) -> None:
    stats = ending.statistics
    voice.say()
    voice.say(
        f"{stats.succeeded} of {plural(stats.succeeded + stats.failed, 'job')} done, "
        f"{plural(stats.images, 'image')} in {duration(stats.seconds)}, {stats.failed} failed, {twice} sent twice",
        bold=True,
    )
    voice.say(
        f"{float(stats.units):,.0f} units ≈ {dollars(stats.units)} (emulated), "
        f"slots {stats.slot_utilisation or 0:.0%} used"
    )
    if earlier:
        voice.say(f"{plural(earlier, 'job')} had been done by an earlier run")
    for failed in ending.failed:
        why = "planned refusal: " if _planned(failed) else ""
        voice.say(f"  {failed.key}: {why}{failed.error}")
    lines: list[tuple[str, Any]] = [
        ("pictures", f"{folder / 'images'}"),
        ("results", f"{folder / 'results.jsonl'}  (a line for each job)"),
        ("again", f"kling-async demo {folder}  (only what is not done)"),
        ("python", f"python {folder / 'run.py'}  (the same in 20 lines)"),
        ("for real", "export KLING_API_KEY=…"),
        ("", f"kling-async run {folder / 'jobs.jsonl'} -o kling-real"),
        ("", f"would cost {whole.cost()}"),
    ]
    for name, text in lines:
        voice.say(f"  {name:<9} {text}")
