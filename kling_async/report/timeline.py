"""
A run as one picture: which task held which slot when, and below it how much of the slots' time was used.

Pure text: no library, no file, no clock. It follows the reader's light or dark theme, and says in words what it shows.
Few tasks are drawn one by one with their keys; many as one shape for each kind, in two tints so that neighbours in a
slot can be told apart, or the file would have megabytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from kling_async.report.bars import Bar, Figures, Placed, figures, place

__all__ = ["draw"]

_WIDTH = 1000.0
_LEFT, _RIGHT, _TOP = 56.0, 16.0, 66.0
_PLOT = _WIDTH - _LEFT - _RIGHT
_TALLEST, _HIGHEST_ROW = 460.0, 22.0
_GAP, _USE, _BOTTOM = 34.0, 96.0, 36.0
# So many bars have their own shapes and names.
_MOST_NAMED = 600
_LETTER = 6.4  # of width, at 11 px
_ROLE = 'role="img" aria-labelledby="title desc"'
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #424a53 }
.head { font-size: 17px; font-weight: 600; fill: #1f2328 }
.key { font-size: 11px; fill: #ffffff; pointer-events: none }
.end { text-anchor: end } .mid { text-anchor: middle }
.page { fill: #ffffff } .idle { fill: #eef1f4 } .grid { stroke: #d0d7de; stroke-width: 1 }
.succeeded0 { fill: #1a7f6b } .succeeded1 { fill: #2f9e88 }
.failed0, .failed1 { fill: #c9372c } .running0, .running1 { fill: #b7791f }
.use { fill: #1a7f6b; fill-opacity: 0.35 } .line { fill: none; stroke: #1a7f6b; stroke-width: 1.5 }
.mean { stroke: #424a53; stroke-width: 1; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
text { fill: #b1bac4 } .head { fill: #f0f3f6 } .key { fill: #06110e }
.page { fill: #0d1117 } .idle { fill: #1b222b } .grid { stroke: #30363d }
.succeeded0 { fill: #2fae93 } .succeeded1 { fill: #58c9b0 }
.failed0, .failed1 { fill: #ff7b72 } .running0, .running1 { fill: #e3b341 }
.use { fill: #2fae93 } .line { stroke: #58c9b0 } .mean { stroke: #b1bac4 }
}
"""


def draw(
    bars: Sequence[Bar], *, slots: int | None = None, title: str = "", style: str | None = _STYLE
) -> str:
    """
    Draw *bars* (times from 0, in seconds) as an SVG document.

    *slots* is how many there were, by default as many as were held at once; *title* is said before the figures. Inside
    a page *style* is None: the page has its own, for all of it.
    """
    numbers = figures(bars, slots=slots)
    placed = place(bars)
    rows = max([numbers.slots, *(1 + max(one.rows) for one in placed)])
    step = min(_HIGHEST_ROW, _TALLEST / rows)
    tall, right = step * rows, max(numbers.seconds, 0.001)
    height = _TOP + tall + _GAP + _USE + _BOTTOM
    head = f"{title}: {_headline(numbers)}" if title else _headline(numbers)
    parts = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" {_ROLE}>',
        f'<title id="title">{_text(head)}</title>',
        f'<desc id="desc">{_text(_description(numbers))}</desc>',
        *([f"<style>{style}</style>"] if style is not None else []),
        _rect("page", 0, 0, _WIDTH, height),
        f'<text class="head" x="{_LEFT:.0f}" y="26">{_text(head)}</text>',
        *_legend(numbers),
        *_axis(right, _TOP + tall, _TOP + tall + _GAP + _USE),
        _rect("idle", _LEFT, _TOP, _PLOT, tall),
        *(_named(placed, right, step) if len(placed) <= _MOST_NAMED else _merged(placed, right, step)),
        *_rows(rows, tall),
        *_use(numbers, _TOP + tall + _GAP),
        "</svg>",
    )
    return "\n".join(parts) + "\n"


def _headline(numbers: Figures) -> str:
    tasks = "1 task" if numbers.tasks == 1 else f"{numbers.tasks:,} tasks"
    return f"{tasks} on {numbers.slots:,} slot{'s' * (numbers.slots != 1)} in {_time(numbers.seconds)}"


def _description(numbers: Figures) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(numbers.states.items())) or "none"
    return (
        "A row for each slot, with a bar for each task from its start to its end; below, the share of the slots that was "
        f"held over time. Tasks: {states}. A task took {_time(numbers.typical_seconds)} in the middle. "
        f"{numbers.utilisation_filled:.0%} of the slots' time was used until the last task began, "
        f"{numbers.utilisation:.0%} until the last one ended."
    )


def _legend(numbers: Figures) -> Iterator[str]:
    at = _LEFT
    for state in ("succeeded", "failed", "running"):
        if count := numbers.states.get(state, 0):
            label = f"{count:,} {state}"
            yield _rect(f"{state}0", at, 40, 11, 11)
            yield f'<text x="{at + 17:.0f}" y="50">{label}</text>'
            at += 36 + _LETTER * len(label)
    yield _rect("idle", at, 40, 11, 11)
    yield f'<text x="{at + 17:.0f}" y="50">free</text>'


def _axis(right: float, upper: float, lower: float) -> Iterator[str]:
    every = next((step for step in _STEPS if right / step <= 10), right / 10)
    for number in range(int(right / every + 1e-9) + 1):
        at = _LEFT + _PLOT * number * every / right
        yield f'<path class="grid" d="M{at:.1f} {_TOP:.0f}V{lower:.1f}"/>'
        if at <= _WIDTH - _RIGHT - 12:
            yield f'<text class="mid" x="{at:.1f}" y="{upper + 17:.1f}">{_time(number * every, minutes=right >= 120)}</text>'


def _rows(rows: int, tall: float) -> Iterator[str]:
    middle = f"{_TOP + tall / 2:.0f}"
    yield f'<text class="mid" transform="translate(16 {middle}) rotate(-90)">slots</text>'
    yield f'<text class="end" x="{_LEFT - 8:.0f}" y="{_TOP + 11:.0f}">1</text>'
    if tall > 30:
        yield f'<text class="end" x="{_LEFT - 8:.0f}" y="{_TOP + tall - 2:.1f}">{rows:,}</text>'


def _named(placed: Sequence[Placed], right: float, step: float) -> Iterator[str]:
    for one in placed:
        bar, runs = one.bar, _runs(one.rows)
        x, width = _span(bar, right)
        yield f'<g data-key="{_text(bar.key)}"><title>{_text(_tooltip(bar))}</title>'
        for first, count in runs:
            high = step * count - (1.5 if step >= 4 else 0.0)
            yield _rect(
                f"{bar.state}{one.turn % 2}", x, _TOP + step * first, width, high, round_by=min(3.0, high / 4)
            )
        first, count = runs[0]
        if step >= 11 and width > _LETTER * len(bar.key) + 8:
            y = _TOP + step * (first + count / 2) + 3.5
            yield f'<text class="key" x="{x + 5:.1f}" y="{y:.1f}">{_text(bar.key)}</text>'
        yield "</g>"


def _merged(placed: Sequence[Placed], right: float, step: float) -> Iterator[str]:
    shapes: defaultdict[str, list[str]] = defaultdict(list)
    for one in placed:
        x, width = _span(one.bar, right)
        for first, count in _runs(one.rows):
            y, high = _TOP + step * first, step * count - (0.5 if step >= 3 else 0.0)
            shapes[f"{one.bar.state}{one.turn % 2}"].append(
                f"M{x:.1f} {y:.2f}h{width:.1f}v{high:.2f}h-{width:.1f}z"
            )
    for name, paths in sorted(shapes.items()):
        yield f'<path class="{name}" d="{"".join(paths)}"/>'


def _use(numbers: Figures, top: float) -> Iterator[str]:
    yield f'<text class="mid" transform="translate(16 {top + _USE / 2:.0f}) rotate(-90)">in use</text>'
    for share in (0.0, 0.5, 1.0):
        y = top + _USE * (1 - share)
        yield f'<path class="grid" d="M{_LEFT:.0f} {y:.1f}h{_PLOT:.0f}"/>'
        yield f'<text class="end" x="{_LEFT - 8:.0f}" y="{y + 4:.1f}">{share:.0%}</text>'
    if not numbers.held:
        return
    wide = _PLOT / len(numbers.held)
    levels = [top + _USE * (1 - min(1.0, held / numbers.slots)) for held in numbers.held]
    line = "".join(f"V{level:.1f}h{wide:.2f}" for level in levels)
    yield f'<path class="use" d="M{_LEFT:.0f} {top + _USE:.1f}{line}V{top + _USE:.1f}z"/>'
    yield f'<path class="line" d="M{_LEFT:.0f} {top + _USE:.1f}{line}"/>'
    mean = top + _USE * (1 - min(1.0, numbers.utilisation))
    yield f'<path class="mean" d="M{_LEFT:.0f} {mean:.1f}h{_PLOT:.0f}"/>'
    note = (
        f"{numbers.utilisation_filled:.1%} used until the last task began, "
        f"{numbers.utilisation:.1%} over all (dashed)"
    )
    yield f'<text class="end" x="{_WIDTH - _RIGHT:.0f}" y="{top + _USE + 22:.1f}">{note}</text>'


def _span(bar: Bar, right: float) -> tuple[float, float]:
    """Return where *bar* begins and how wide it is; one pixel at least, or it could not be seen."""
    return _LEFT + _PLOT * bar.start / right, max(1.0, _PLOT * (bar.end - bar.start) / right - 0.6)


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Join *rows* that lie side by side: first row and number of rows of each block."""
    runs: list[tuple[int, int]] = []
    for row in sorted(rows):
        if runs and row == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    return runs


def _rect(name: str, x: float, y: float, width: float, height: float, *, round_by: float = 0.0) -> str:
    corners = f' rx="{round_by:.1f}"' if round_by else ""
    return (
        f'<rect class="{name}" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{height:.2f}"{corners}/>'
    )


def _tooltip(bar: Bar) -> str:
    slots = f"{bar.slots} slot{'s' * (bar.slots != 1)}"
    return f"{bar.key}: {bar.state}, {slots}, {_time(bar.start)} to {_time(bar.end)}"


def _time(seconds: float, *, minutes: bool = False) -> str:
    if seconds < (60 if minutes else 120):
        return f"{seconds:.3g} s"
    whole, rest = divmod(round(seconds), 60)
    if whole < 120:
        return f"{whole} min {rest} s" if rest else f"{whole} min"
    hours, whole = divmod(whole, 60)
    return f"{hours} h {whole} min" if whole else f"{hours} h"


def _text(text: str) -> str:
    """Make *text* safe in XML, which cannot carry control characters at all."""
    return escape(
        "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text), {'"': "&quot;"}
    )
