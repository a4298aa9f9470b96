"""The live view: a run on one screen, drawn by rich a few times a second."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from kling_async.cli.board import Failure, JobLine, Snapshot
from kling_async.cli.money import dollars, duration
from kling_async.cli.view import View, printable
from kling_async.cli.voice import Voice, colours

__all__ = ["Camera", "LiveView", "as_svg", "as_text", "render"]

_STYLES = {"recovered": "yellow", "processing": "cyan", "saving": "green", "waiting": "dim"}
_BAR = {"full": "━", "half": "╸", "empty": "━"}
_PLAIN_BAR = {"full": "#", "half": "-", "empty": "."}
_WIDEST_BAR = 48
_MOST_PLACES = 30
_HEAD_LINES = 4
_MOST_FAILURES = 8


def render(shot: Snapshot, *, width: int, height: int, emulated: bool = False, plain: bool = False) -> Group:
    """
    Draw *shot* for a screen of *width* by *height*; never more lines than fit, never a line that wraps.

    *plain* draws bars with characters that need no colour to be read.
    """
    # The last column stays free: terminals disagree on how wide some characters are.
    width -= 1
    lines = [
        _jobs(shot, width, plain=plain),
        _slots(shot, width, plain=plain),
        _money(shot, width, emulated=emulated, plain=plain),
        _time(shot, width),
    ]
    for why in shot.stopped:
        lines += _told("stopped", why, width)
    if shot.trouble:
        lines += _told("trouble", shot.trouble, width)
    room = height - 1 - len(lines)
    failures = shot.failures[-max(1, min(_MOST_FAILURES, room // 4)) :] if room > 3 else ()
    room -= len(failures) + bool(failures)
    told = [job for job in shot.jobs if job.status != "waiting" or job.note]
    if told and room > 2:
        lines += _table(told[: room - 2], shot, width)
    if failures:
        lines += _failed(failures, shot, width)
    del lines[max(_HEAD_LINES - 1, height - 1) :]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _bar(share: float, width: int, *, plain: bool, style: str = "green") -> Text:
    marks = _PLAIN_BAR if plain else _BAR
    halves = round(max(0.0, min(1.0, share)) * width * 2)
    bar = Text(marks["full"] * (halves // 2), style=style)
    if halves % 2:
        bar.append(marks["half"], style=style)
    bar.append(marks["empty"] * (width - bar.cell_len), style="bright_black")
    return bar


def _line(name: str, width: int, *parts: Text | str | tuple[str, str]) -> Text:
    """Put *parts* after *name*, the most important first, as far as there is room for them whole."""
    line = Text(f" {name:<7}", style="")
    line.stylize("bold")
    for number, part in enumerate(part for part in parts if part):
        piece = Text.assemble(part)
        if number and line.cell_len + 3 + piece.cell_len > width:
            break
        line.append("   " if number else "").append(piece)
    return line


def _told(name: str, text: str, width: int) -> list[Text]:
    """Tell *text* in as many lines as it takes, three at most."""
    first, *rest = wrap(printable(text), max(20, width - 9), max_lines=3, placeholder="…") or [""]
    lines = [Text.assemble((f" {name:<7} ", "bold yellow"), first)]
    return lines + [Text(f"{'':9}{line}") for line in rest]


def _jobs(shot: Snapshot, width: int, *, plain: bool) -> Text:
    total = f"{shot.total:,}" if shot.total is not None else "?"
    share = shot.done / shot.total if shot.total else 0.0
    counts = Text.assemble(
        f"{shot.done:,}/{total}  ",
        (f"ok {shot.succeeded:,}", "green"),
        "  ",
        (f"failed {shot.failed:,}", "bold red" if shot.failed else "dim"),
        f"  running {shot.running:,}",
        f"  saving {shot.saving:,}" if shot.saving else "",
        f"  waiting {shot.waiting:,}" if shot.waiting else "",
    )
    room = max(8, min(_WIDEST_BAR, width - 11 - counts.cell_len))
    return _line("jobs", width, Text.assemble(_bar(share, room, plain=plain), "  ", counts))


def _slots(shot: Snapshot, width: int, *, plain: bool) -> Text:
    places = min(shot.slots, _MOST_PLACES, max(8, width // 3))
    held = min(places, round(shot.slots_held * places / shot.slots)) if shot.slots else 0
    full, empty = ("#", ".") if plain else ("█", "░")
    bar = Text.assemble(
        (full * held, "cyan"),
        (empty * (places - held), "bright_black"),
        f" {shot.slots_held:,}/{shot.slots or '?'}",
    )
    return _line(
        "slots",
        width,
        bar,
        f"{shot.utilisation:.0%} used" if shot.utilisation is not None else "",
        (f"no free slot: {shot.refusals:,} x 1303", "yellow") if shot.refusals else "",
        (f"recovered {shot.recovered:,}", "yellow") if shot.recovered else "",
    )


def _money(shot: Snapshot, width: int, *, emulated: bool, plain: bool) -> Text:
    units = f"{shot.units:,.0f}" if shot.units == int(shot.units) else f"{shot.units:,.2f}"
    spent = Text(f"{units} units")
    if shot.budget:
        share = shot.units / shot.budget
        bar = _bar(share, max(8, width // 8), plain=plain, style="yellow" if share > 0.9 else "green")
        spent = Text.assemble(bar, f"  {units}/{shot.budget:,} units")
    worth = f"≈ {dollars(shot.units)}{' emulated' if emulated else ''}"
    return _line("spent", width, Text.assemble(spent, f" {worth}"), f"pictures {shot.images:,}")


def _time(shot: Snapshot, width: int) -> Text:
    left = f", about {duration(round(shot.eta, 1))} left" if shot.eta is not None else ""
    if shot.eta is None and shot.usual is None and shot.running:
        left = ", time left not known before the first task ends"
    return _line(
        "time",
        width,
        Text.assemble(duration(shot.seconds), (left, "bold")),
        f"submit {shot.submit_rate:.1f}/s",
        f"polls {shot.polls:,}",
        f"usual task {duration(shot.usual)}" if shot.usual else "",
    )


def _table(jobs: Sequence[JobLine], shot: Snapshot, width: int) -> list[Text]:
    keys = max(3, min(max(cell_len(printable(job.key)) for job in jobs), max(12, width // 4)))
    lines = [Text(f"   {'job':<{keys}}  {'status':<10}  n       age  note", style="dim")]
    for job in jobs:
        key = Text(_shortened(printable(job.key), keys))
        key.truncate(keys, pad=True)
        status = Text(f"{job.status:<10}", style=_STYLES.get(job.status, ""))
        note = printable(job.note)
        slots = job.slots or " "
        lines.append(Text.assemble("   ", key, "  ", status, f"  {slots}  {duration(job.age):>8}  ", note))
    if more := _untold(jobs, shot):
        lines.append(Text(f"   and {more}", style="dim"))
    return lines


def _shortened(key: str, width: int) -> str:
    """Leave out the middle of a *key* that is too long: keys often differ in their end."""
    if cell_len(key) <= width:
        return key
    half = width // 2
    end = next(key[at:] for at in range(len(key) - half, len(key) + 1) if cell_len(key[at:]) <= half)
    start = chop_cells(key, width - 1 - cell_len(end))[0]
    return f"{start}…{end}"


def _untold(jobs: Sequence[JobLine], shot: Snapshot) -> str:
    """Say how many jobs are not in the table, and why they wait."""
    waiting = shot.waiting - sum(job.status == "waiting" for job in jobs)
    others = sum(job.status != "waiting" for job in shot.jobs) - sum(job.status != "waiting" for job in jobs)
    why = next((job.note for job in shot.jobs if job.status == "waiting" and job.note), "for a free slot")
    parts = [
        f"{others:,} more run or are saved" if others > 0 else "",
        f"{waiting:,} wait: {printable(why)}" if waiting > 0 and why != "for a free slot" else "",
        f"{waiting:,} wait {why}" if waiting > 0 and why == "for a free slot" else "",
    ]
    return ", ".join(filter(None, parts))


def _failed(failures: Sequence[Failure], shot: Snapshot, width: int) -> list[Text]:
    more = shot.failed - len(failures)
    last = f", the last of {shot.failed:,}" if more > 0 else ""
    lines = [Text(f" failed{last}", style="bold red")]
    for failure in failures:
        key = _shortened(printable(failure.key), max(12, width // 4))
        lines.append(Text.assemble("   ", (key, "red"), "  ", printable(failure.short)))
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
        # The lengths of the lines on the screen, and its width when they were drawn.
        self._lengths: list[int] = []
        self._width = 0

    def start(self) -> None:
        """Take the screen's lower part."""
        self._live.start()
        self._voice.through(self._print)

    def show(self, shot: Snapshot) -> None:
        """Draw *shot*."""
        width, height = self._console.size
        drawn = render(shot, width=width, height=height, emulated=self._emulated, plain=not self._colour)
        if width < self._width:
            self._gather(width)
        self._live.update(drawn, refresh=True)
        self._width = width
        self._lengths = [line.cell_len for line in drawn.renderables if isinstance(line, Text)]

    def _gather(self, width: int) -> None:
        """Go up over what a terminal that became narrower has wrapped; rich goes over the lines as it drew them."""
        wrapped = sum(max(1, ceil(length / width)) - 1 for length in self._lengths)
        step = (ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        self._console.control(Control(*step * wrapped))

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


def as_text(shot: Snapshot, *, width: int = 80, height: int = 24) -> str:
    """Return the live view of *shot* as it is without colour, for documents."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height)
    console.print(render(shot, width=width, height=height, emulated=True, plain=True))
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())
