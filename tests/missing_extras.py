"""
Run where the package is installed alone: whatever needs an extra says which one, and how it is installed.

No test of pytest, which brings packages of its own; the nox sessions `wheel` and `installed` run it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import metadata

from kling_async import Kling
from kling_async.emulator import Emulator
from kling_async.errors import MissingExtra
from kling_async.integrations.otel import Tracing
from kling_async.integrations.prometheus import Metrics
from kling_async.scale import DaskEngine
from kling_async.slots import RedisSlots


def _command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "kling_async"], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done
    raise MissingExtra(done.stderr, "cli")


USES: Mapping[str, Callable[[], object]] = {
    "cli": _command_line,
    "cloud": lambda: Kling(api_key="any").batch([], out="s3://bucket/folder", journal="journal.db"),
    "dask": lambda: DaskEngine("tcp://127.0.0.1:1"),
    "images": lambda: Kling(api_key="any", fit="auto"),
    "otel": Tracing,
    "prometheus": Metrics,
    "redis": lambda: RedisSlots("redis://127.0.0.1:1", limit=1),
}
# An extra that makes something quicker, and one that reads one more kind of file, told where the file is read.
ELSEWHERE = {"heic", "speed"}


def main() -> None:
    """Use what each extra is for, without it."""
    extras = set(metadata("kling-async").get_all("Provides-Extra") or ())
    assert extras == {*USES, *ELSEWHERE}, f"no use is known of {extras ^ {*USES, *ELSEWHERE}}"
    for extra, use in USES.items():
        error = _missing(use)
        assert error.extra == extra, (extra, error)
        assert f"kling-async[{extra}]" in str(error), (extra, error)
        sys.stdout.write(f"{extra:<12} {error.message.strip()}\n")
    assert _missing(lambda: Emulator(paint="composite")).extra == "images"


def _missing(use: Callable[[], object]) -> MissingExtra:
    try:
        use()
    except MissingExtra as error:
        return error
    raise AssertionError(f"expected MissingExtra, found that {use} works without")


if __name__ == "__main__":
    main()
