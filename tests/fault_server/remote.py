"""A server in another process, for tests that kill their client and for benchmarks; plain blocking calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import asdict, define, field

from .script import Fault

__all__ = ["Remote"]

_HERE = Path(__file__).resolve().parent


@define(eq=False)
class Remote:
    """A running server process; dies with this one. `with Remote.spawn(slots=9) as server: server.url`."""

    url: str
    control: str
    access_key: str
    secret_key: str = field(repr=False)
    api_key: str = field(repr=False)
    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    def spawn(cls, *, seed: int = 0, port: int = 0, **settings: Any) -> Self:
        """Start a process; *settings* as in `Settings`, in plain JSON values."""
        options = json.dumps({"settings": settings, "seed": seed, "port": port})
        process = subprocess.Popen(
            [sys.executable, "-m", _HERE.name, options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_HERE.parent)},
        )
        assert process.stdout is not None  # asked for above
        told = json.loads(process.stdout.readline())
        return cls(**told, process=process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.communicate()

    def order(self, path: str, value: Any = None) -> Any:
        """Send one order to the control port; see `control`."""
        request = urllib.request.Request(
            self.control + path, None if value is None else json.dumps(value).encode()
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as reply:
            return json.load(reply)

    def break_with(self, *faults: Fault) -> None:
        """Add *faults* to the script."""
        self.order("/faults", [asdict(fault) for fault in faults])

    def change(self, **settings: Any) -> None:
        """Change settings of the account, in plain JSON values."""
        self.order("/settings", settings)

    def books(self, *, log: bool = True) -> dict[str, Any]:
        """Return the server's books."""
        books: dict[str, Any] = self.order("/books" if log else "/books?log=no")
        return books
