"""What a start costs (S9): CPU of processes that only import."""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from typing import Any

from benchmarks.harness import Figure, Variants, at_most, compare, main

_NAME = "benchmarks.imports"

_FIRST = "from kling_async import Kling, MultiImage; Kling(api_key='k' * 40, base_url='http://127.0.0.1:9')"
_COMMANDS = {
    "nothing": ["-c", "pass"],
    "package": ["-c", "import kling_async"],
    "aiohttp": ["-c", "import aiohttp"],
    "client": ["-c", _FIRST],
    "help": ["-m", "kling_async", "--help"],
}


@cache
def _environment() -> dict[str, str]:
    """
    Return the environment in which bytecode is kept, as it is beside every installed package.

    Without it each start of a checkout compiles all of this package and nothing of those it is compared with.
    """
    folder = tempfile.mkdtemp(prefix="kling-bytecode-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
        "PYTHONPYCACHEPREFIX": folder
    }


def _run(name: str) -> None:
    command = [sys.executable, *_COMMANDS[name]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_environment())


def _start(name: str) -> dict[str, float]:
    _run(name)  # writes the bytecode
    before = _children()
    for _ in range(5):
        _run(name)
    return {"cpu": (_children() - before) / 5}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _variant(name: str) -> Any:
    return lambda _options: _start(name)


VARIANTS: Variants = {name: _variant(name) for name in _COMMANDS}


def measure(repeat: int) -> list[Figure]:
    """Start each a few times, in turn."""
    runs = compare(_NAME, tuple(_COMMANDS), {}, repeat=repeat)
    bare, used = runs["nothing"], "cpu"
    return [
        at_most("S9", "import kling_async, to a bare interpreter", (runs["package"], bare, used), 1.5),
        at_most("S9", "kling-async --help, to a bare interpreter", (runs["help"], bare, used), 2.5),
        at_most(
            "S9",
            "all for the first request, to import aiohttp",
            (runs["client"], runs["aiohttp"], used),
            1.12,
        ),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=3)
