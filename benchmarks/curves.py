"""
Draw how much memory uploads take over time, ours beside `json=`, into docs/images/upload-memory.svg.

Eight creates at once, with six pictures of 10 MB each: more would need gigabytes for `json=`. The memory of each process is
read from outside, a hundred times a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.harness import ROOT, Server

_PICTURE = ROOT / "docs" / "images" / "upload-memory.svg"
_OPTIONS = {"creates": 8, "pictures": 6, "size": 10_000_000}
_PAGE = 4096 / 1e6

Curve: TypeAlias = list[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 770, 300, 76, 50, 140, 40
_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #424a53 }
.head { font-size: 15px; font-weight: 600; fill: #1f2328 } .end { text-anchor: end } .mid { text-anchor: middle }
.page { fill: #ffffff } .grid { stroke: #d0d7de } .curve { fill: none; stroke-width: 2 }
.json { stroke: #c9372c } .ours { stroke: #1a7f6b } text.json { fill: #c9372c; stroke: none } text.ours { fill: #1a7f6b; stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #b1bac4 } .head { fill: #f0f3f6 } .page { fill: #0d1117 } .grid { stroke: #30363d }
.json { stroke: #ff7b72 } .ours { stroke: #58c9b0 } text.json { fill: #ff7b72 } text.ours { fill: #58c9b0 }
}
"""


def watch(variant: str) -> Curve:
    """Run *variant* in a process of its own and return its memory in MB by the seconds since it began."""
    with Server(slots=1_000_000, shortest=200.0, longest=300.0) as service, _folder() as folder:
        options: dict[str, Any] = {**_OPTIONS, "folder": folder, "url": service.url}
        words = [sys.executable, "-m", "benchmarks.uploads", "--child", variant, json.dumps(options)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=ROOT)
        began, curve = time.monotonic(), []
        while process.poll() is None:
            curve.append((time.monotonic() - began, _resident(process.pid)))
            time.sleep(0.01)
    return [point for point in curve if point[1] > 0]


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kling-bench-")


def _resident(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0.0  # it has just ended


def draw(ours: Curve, whole: Curve) -> str:
    """Draw both as an SVG document that follows the reader's light or dark theme."""
    right, top = max(curve[-1][0] for curve in (ours, whole)), max(size for _, size in whole) * 1.08
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(seconds: float, size: float) -> tuple[float, float]:
        return _LEFT + wide * seconds / right, _TOP + tall * (1 - size / top)

    def line(name: str, curve: Curve) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in _thinned(curve)))
        x, y = place(*curve[-1])
        peak = max(size for _, size in curve)
        label = {"ours": "kling_async", "json": "json="}[name]
        return (
            f'<polyline class="curve {name}" points="{points}"/>'
            f'<text class="{name}" x="{min(x, _WIDTH - _RIGHT) + 8:.1f}" y="{max(y, _TOP):.1f}">{label}, {peak:,.0f} MB</text>'
        )

    steps = [(size, place(0, size)[1]) for size in range(0, int(top), 500 if top > 1200 else 250)]
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{size:,} MB</text>'
        for size, y in steps
    )
    seconds = "".join(
        f'<text class="mid" x="{place(at, 0)[0]:.1f}" y="{_HEIGHT - _BOTTOM + 20}">{at} s</text>'
        for at in range(0, int(right) + 1, max(1, int(right) // 8))
    )
    head = "Memory of a process that sends eight creates of 6 x 10 MB at once"
    what = "The memory of json= rises with the bodies that it builds; that of kling_async stays flat."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title desc">'
        f'<title id="title">{head}</title><desc id="desc">{what}</desc><style>{_STYLE}</style>'
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}"/><text class="head" x="{_LEFT}" y="26">{head}</text>'
        f"{grid}{seconds}{line('json', whole)}{line('ours', ours)}</svg>\n"
    )


def _thinned(curve: Curve) -> Sequence[tuple[float, float]]:
    step = max(1, len(curve) // 300)
    return [*curve[::step], curve[-1]]


def main() -> None:
    """Measure both and write the picture."""
    _PICTURE.write_text(draw(watch("ours"), watch("json")), encoding="utf-8")
    print(_PICTURE)


if __name__ == "__main__":
    main()
