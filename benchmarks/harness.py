"""
What all benchmarks share: a fresh process for every run, the server in another, CPU time before seconds.

A benchmark module has a table of *variants*: functions that do one piece of work and return figures. Variants are run
in turn, so that what the machine does meanwhile hits all alike, and compared by the medians of their runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

from attrs import frozen

__all__ = [
    "TIMES",
    "Figure",
    "Lag",
    "Run",
    "Server",
    "Variants",
    "at_most",
    "compare",
    "main",
    "measured",
    "median",
    "run_child",
    "spread",
    "table",
]

Variants: TypeAlias = Mapping[str, Callable[[dict[str, Any]], dict[str, float]]]

ROOT = Path(__file__).resolve().parent.parent
# The client on one core and the server on the other, where there are two.
CORES = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = CORES[0], CORES[-1]


TIMES = "\N{MULTIPLICATION SIGN}"

# In the process of a run.


def _status(name: str) -> float:
    """Return a line of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu() -> float:
    """Return the CPU seconds of this process so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> float:
    """Return the MB that this process has in memory."""
    return _status("VmRSS")


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the block: *cpu* and *seconds*, and in MB *grown*, the peak of memory over its beginning."""
    found: dict[str, float] = {}
    gc.collect()
    # Forget the peak so far (proc(5)).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    memory, began, used = resident(), time.perf_counter(), cpu()
    yield found
    found["cpu"] = cpu() - used
    found["seconds"] = time.perf_counter() - began
    found["grown"] = _status("VmHWM") - memory


class Lag:
    """
    Notes how late the loop is, with a tick each 20 ms; figures in milliseconds.

    *lag_* is by the clock on the wall, *own_* without the time in which other programs had the core: how long this
    thread was ready to run and did not (the second number of schedstat, see proc(5)).
    """

    def start(self) -> None:
        """Begin to tick in the running loop."""
        self._late: list[float] = []
        self._own: list[float] = []
        self._waited = self._waiting()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + 0.02
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        waited = self._waiting()
        self._late.append(1000 * (now - self._due))
        self._own.append(max(0.0, self._late[-1] - (waited - self._waited)))
        self._waited = waited
        self._due = now + 0.02
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> dict[str, float]:
        """End ticking and return the figures."""
        self._timer.cancel()
        figures: dict[str, float] = {}
        for name, times in (("lag", self._late), ("own", self._own)):
            late = sorted(times) or [0.0]
            figures |= {f"{name}_p99": late[int(0.99 * (len(late) - 1))], f"{name}_max": late[-1]}
        return figures

    @staticmethod
    def _waiting() -> float:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text(encoding="ascii")
        return int(text.split()[1]) / 1e6


# In the process that compares.


class Server:
    """The benchmark server in its own process: `with Server(slots=9) as server: server.url`."""

    def __init__(self, **options: float) -> None:
        self._options = {"core": SERVER_CORE, **options}

    def __enter__(self) -> Self:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()]
        command = [sys.executable, "-m", "benchmarks.server", *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None, "its stdout is a pipe"
        self.url = self._process.stdout.readline().strip()
        # Without an address of its own a client would go to the vendor's.
        assert self.url.startswith("http://127.0.0.1:"), "the server did not start"
        return self

    def books(self) -> dict[str, Any]:
        """Return the server's books."""
        found: dict[str, Any] = self._ask("books")
        return found

    def spans(self) -> list[tuple[float, float, int]]:
        """Return of every task when it began, when it ended, and how many slots it held."""
        return [(start, end, slots) for start, end, slots in self._ask("tasks")]

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{what}") as reply:
            return json.load(reply)

    def __exit__(self, *exc: object) -> None:
        # It ends with its stdin.
        self._process.communicate()


def run_child(module: str, variant: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Run one variant in a process of its own and return its figures."""
    with tempfile.TemporaryDirectory(prefix="kling-bench-") as folder:
        wanted = json.dumps({**options, "folder": folder})
        command = [sys.executable, "-m", module, "--child", variant, wanted]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@frozen
class Run:
    """The runs of one variant: every figure by name, one number a run."""

    figures: Mapping[str, Sequence[float]]

    def __getitem__(self, name: str) -> float:
        return statistics.median(self.figures[name])


def compare(
    module: str,
    variants: Sequence[str],
    options: Mapping[str, Any],
    *,
    repeat: int,
    server: Mapping[str, float] | None = None,
) -> dict[str, Run]:
    """Run the *variants* in turn, *repeat* times, each with a server of its own if *server* has options for it."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(repeat):
        for name in variants:
            figures = _one(module, name, options, server and {**server, "seed": turn})
            found[name].append(figures)
            shown = " ".join(f"{key}={value:.4g}" for key, value in figures.items())
            print(f"  {module} {name}: {shown}", file=sys.stderr)
    return {name: Run({key: [run[key] for run in runs] for key in runs[0]}) for name, runs in found.items()}


def _one(
    module: str, name: str, options: Mapping[str, Any], server: Mapping[str, float] | None
) -> dict[str, float]:
    if server is None:
        return run_child(module, name, options)
    with Server(**server) as service:
        figures = run_child(module, name, {**options, "url": service.url})
        books = service.books()
    wall = max(figures.get("seconds", 1.0), 1e-9)
    return figures | {
        "requests": books["requests"],
        "refused": books["refused"],
        "utilisation": books["utilisation"],
        "server_load": books["cpu"] / wall,
        "server_rate": books["requests"] / books["cpu"],
    }


# Figures.


@frozen
class Figure:
    """One line of the table: what the goal *goal* says, what was measured, and whether it is met."""

    goal: str
    what: str
    wanted: str
    measured: str
    met: bool


def median(ours: Run, other: Run, name: str) -> float:
    """Return the median over the turns of the ratio of a figure of two variants that ran in turn."""
    return statistics.median(_ratios(ours, other, name))


def spread(ours: Run, other: Run, name: str) -> str:
    """Say the ratio of a figure of two variants: the median, and from which to which it went."""
    found = sorted(_ratios(ours, other, name))
    return f"{statistics.median(found):.3g} {TIMES} ({found[0]:.3g} to {found[-1]:.3g})"


def _ratios(ours: Run, other: Run, name: str) -> list[float]:
    pairs = zip(ours.figures[name], other.figures[name], strict=True)
    return [mine / max(theirs, 1e-12) for mine, theirs in pairs]


def at_most(goal: str, what: str, pair: tuple[Run, Run, str], most: float) -> Figure:
    """Compare a figure of two variants with the ratio that is the goal."""
    return Figure(goal, what, f"≤ {most:g} {TIMES}", spread(*pair), median(*pair) <= most)


def table(figures: Sequence[Figure]) -> str:
    """Write *figures* as a table of Markdown."""
    lines = ["| goal | what | wanted | measured | met |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.goal} | {one.what} | {one.wanted} | {one.measured} | {'yes' if one.met else 'no'} |"
        for one in figures
    ]
    return "\n".join(lines)


def main(variants: Variants, measure: Callable[[int], list[Figure]], *, repeat: int) -> None:
    """Be the command line of a benchmark module: compare and print, or as a child do one variant."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--repeat", type=int, default=repeat, help="runs of each variant")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", nargs=2, metavar=("VARIANT", "OPTIONS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        name, options = chosen.child
        os.sched_setaffinity(0, {CLIENT_CORE})
        print(json.dumps(variants[name](json.loads(options))))
        return
    figures = measure(chosen.repeat)
    if chosen.json:
        from attrs import asdict

        print(json.dumps([asdict(figure) for figure in figures], indent=2, ensure_ascii=False))
    else:
        print(table(figures))
