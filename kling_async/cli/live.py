"""The live view: a run on one screen, drawn by rich a few times a second."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kling_async.cli.board import JobLine, Snapshot
from kling_async.cli.money import dollars, duration
from kling_async.cli.view import View
from kling_async.cli.voice import Voice, colours

__all__ = ["Camera", "LiveView", "as_svg", "render"]

_STYLES = {"recovered": "yellow", "processing": "cyan", "saving": "green", "waiting": "dim"}
_BAR = {"full": "━", "half": "╸", "empty": "━"}
_PLAIN_BAR = {"full": "#", "half": "-", "empty": "."}
_WIDEST_BAR = 48
_HEAD_LINES = 3


def render(shot: Snapshot, *, width: int, height: int, emulated: bool = False, plain: bool = False) -> Group:
    """
    Draw *shot* for a screen of *width* by *height*; never more lines than fit, never a line that wraps.

    *plain* draws bars with characters that need no colour to be read.
    """
    lines = [_jobs(shot, width, plain=plain), _slots(shot, plain=plain), _money(shot, emulated=emulated)]
    room = height - _HEAD_LINES - 1
    failures = shot.failures[-max(1, min(8, room // 5)) :] if room > 4 else ()
    room -= len(failures) + (1 if failures else 0) + 2
    told = [job for job in shot.jobs if job.status != "waiting" or job.note]
    if told and room > 0:
        lines += _table(told[:room], shot, width)
    if failures:
        lines.append(Text(" failed", style="bold red"))
        lines += [Text.assemble("   ", (failure.key, "red"), "  ", failure.short) for failure in failures]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _bar(share: float, width: int, *, plain: bool) -> Text:
    marks = _PLAIN_BAR if plain else _BAR
    halves = round(max(0.0, min(1.0, share)) * width * 2)
    bar = Text(marks["full"] * (halves // 2), style="green")
    if halves % 2:
        bar.append(marks["half"], style="green")
    bar.append(marks["empty"] * (width - bar.cell_len), style="bright_black")
    return bar


def _jobs(shot: Snapshot, width: int, *, plain: bool) -> Text:
    total = f"{shot.total:,}" if shot.total is not None else "?"
    counts = Text.assemble(
        f"  {shot.done:,}/{total}   ",
        (f"ok {shot.succeeded:,}", "green"),
        "  ",
        (f"failed {shot.failed:,}", "bold red" if shot.failed else "dim"),
        f"  running {shot.running:,}",
        f"  waiting {shot.waiting:,}" if shot.waiting else "",
    )
    room = max(8, min(_WIDEST_BAR, width - 8 - counts.cell_len))
    share = shot.done / shot.total if shot.total else 0.0
    return Text.assemble((" jobs  ", "bold"), _bar(share, room, plain=plain), counts)


def _slots(shot: Snapshot, *, plain: bool) -> Text:
    places = min(shot.slots, 30)
    held = round(shot.slots_held * places / shot.slots) if shot.slots else 0
    full, empty = ("#", ".") if plain else ("█", "░")
    used = "" if shot.utilisation is None else f"  {shot.utilisation:.0%} used"
    return Text.assemble(
        (" slots ", "bold"),
        (full * held, "cyan"),
        (empty * (places - held), "bright_black"),
        f" {shot.slots_held}/{shot.slots or '?'}{used}   submit {shot.submit_rate:.1f}/s   polls {shot.polls:,}",
        (f"   1303: {shot.refusals:,}", "yellow") if shot.refusals else "",
        (f"   recovered {shot.recovered}", "yellow") if shot.recovered else "",
    )


def _money(shot: Snapshot, *, emulated: bool) -> Text:
    units = f"{shot.units:,.0f}" if shot.units == int(shot.units) else f"{shot.units:,.2f}"
    budget = f"/{shot.budget:,}" if shot.budget is not None else ""
    worth = f"≈ {dollars(shot.units)}{' emulated' if emulated else ''}"
    left = f", about {duration(round(shot.eta))} left" if shot.eta else ""
    return Text.assemble(
        (" spent ", "bold"),
        f"{units}{budget} units {worth}   pictures {shot.images:,}   {duration(shot.seconds)}",
        (left, "bold"),
    )


def _table(jobs: list[JobLine], shot: Snapshot, width: int) -> list[Text]:
    keys = max(3, min(max(cell_len(job.key) for job in jobs), max(12, width // 4)))
    lines = [Text(f"   {'job':<{keys}}  {'status':<10}  n      age  note", style="dim")]
    for job in jobs:
        key = Text(job.key)
        key.truncate(keys, overflow="ellipsis", pad=True)
        status = Text(f"{job.status:<10}", style=_STYLES.get(job.status, ""))
        lines.append(
            Text.assemble("   ", key, "  ", status, f"  {job.slots}  {duration(job.age):>7}  ", job.note)
        )
    hidden = len(shot.jobs) - len(jobs)
    if hidden:
        lines.append(Text(f"   and {hidden:,} more, most of them waiting for a free slot", style="dim"))
    return lines


class LiveView:
    """Shows snapshots on stderr, a terminal; what is said meanwhile goes above."""

    every = 0.15  # seconds

    def __init__(self, voice: Voice, *, emulated: bool) -> None:
        self._voice = voice
        self._emulated = emulated
        self._colour = colours(sys.stderr)
        # The stream decides, and nobody's FORCE_COLOR: a forced terminal in a log is what floods it.
        self._console = Console(file=sys.stderr, no_color=not self._colour, highlight=False, markup=False)
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stderr=False, redirect_stdout=False
        )

    def start(self) -> None:
        """Take the screen's lower part."""
        self._live.start()
        self._voice.through(self._print)

    def show(self, shot: Snapshot) -> None:
        """Draw *shot*."""
        width, height = self._console.size
        drawn = render(shot, width=width, height=height, emulated=self._emulated, plain=not self._colour)
        self._live.update(drawn, refresh=True)

    def note(self, key: str, text: str) -> None:
        """Leave it: notes stand in the table."""

    def stop(self) -> None:
        """Leave the last picture standing and give the terminal back."""
        self._voice.through(None)
        self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(Text.from_ansi(text))


class Camera:
    """A view that shows as *view* does and keeps one picture, taken in the middle of the run."""

    def __init__(self, view: View, path: Path, title: str) -> None:
        self.every = view.every
        self._view = view
        self._path = path
        self._title = title
        self._taken = False
        self.start, self.note, self.stop = view.start, view.note, view.stop

    def show(self, shot: Snapshot) -> None:
        """Show *shot*; write it as SVG if it is the first with half of the jobs done."""
        self._view.show(shot)
        if not self._taken and shot.total and shot.done * 2 >= shot.total:
            self._taken = True
            self._path.write_text(as_svg(shot, title=self._title), encoding="utf-8")


def as_svg(shot: Snapshot, *, title: str, width: int = 100, height: int = 20) -> str:
    """Return the live view of *shot* as an SVG picture, for documents."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True)
    drawn: RenderableType = render(shot, width=width, height=height, emulated=True)
    console.print(drawn)
    return console.export_svg(title=title)
