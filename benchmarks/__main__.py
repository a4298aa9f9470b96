"""Measure everything and write the table into docs/performance.md; about five minutes."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable

from benchmarks import callbacks, decode, downloads, imports, jobs, memory, records, slots, uploads, web
from benchmarks.harness import ROOT, Figure, table

_PAGE = ROOT / "docs" / "performance.md"
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"

# What is measured, and how often by default.
_ALL: tuple[tuple[str, Callable[[int], list[Figure]], int], ...] = (
    ("jobs", jobs.measure, 3),
    ("callbacks", callbacks.measure, 3),
    ("web", web.measure, 1),
    ("slots", slots.measure, 1),
    ("memory", memory.measure, 1),
    ("records", records.measure, 3),
    ("imports", imports.measure, 3),
    ("downloads", downloads.measure, 3),
    ("uploads", uploads.measure, 1),
    ("decode", decode.measure, 3),
)


def _order(figure: Figure) -> int:
    return int(figure.goal[1:])


def write(figures: list[Figure], seconds: float) -> None:
    """Put the table between the marks of the page."""
    text = _PAGE.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN, 1)
    _, tail = rest.split(_END, 1)
    how = (
        f"Taken {time.strftime('%Y-%m-%d', time.gmtime())} in {seconds:.0f} s with Python {platform.python_version()}, "
        f"aiohttp {_version('aiohttp')}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}."
    )
    _PAGE.write_text(f"{head}{_BEGIN}\n{how}\n\n{table(figures)}\n{_END}{tail}", encoding="utf-8")


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def main() -> None:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(name for name, _, _ in _ALL))
    parser.add_argument("--repeat", type=int, default=None, help="runs of each variant")
    chosen = parser.parse_args()
    began = time.monotonic()
    figures: list[Figure] = []
    for name, measure, repeat in _ALL:
        if not chosen.names or name in chosen.names:
            figures += measure(chosen.repeat or repeat)
            print(f"{name}: {time.monotonic() - began:.0f} s so far", file=sys.stderr)
    figures.sort(key=_order)
    print(table(figures))
    if not chosen.names:
        write(figures, time.monotonic() - began)


if __name__ == "__main__":
    main()
