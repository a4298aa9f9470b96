"""
A process that has everything imported and forks a client for each order.

A client that is started afresh spends most of its life on imports; forked from here it is at work at once, and there
can be thousands of them. It is a process as any other: it is killed by the kernel, and its locks with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import asdict, define, field, frozen

from .victim import Order, play

__all__ = ["Death", "Zygote", "serve"]

_HERE = Path(__file__).resolve().parent
# Seconds after which a client is taken to hang (I8).
_TOO_LONG = 60.0


@frozen
class Death:
    """How a client ended: its exit *code* (negative: the signal), after how many *seconds*, and its *report*."""

    code: int
    seconds: float
    report: dict[str, Any]

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


@define(eq=False)
class Zygote:
    """A running process; dies with this one."""

    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    def spawn(cls) -> Self:
        """Start the process."""
        path = os.pathsep.join(filter(None, (str(_HERE.parent), os.environ.get("PYTHONPATH"))))
        return cls(
            subprocess.Popen(
                [sys.executable, "-m", _HERE.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def live(self, order: Order, *, kill_after: float | None = None) -> Death:
        """Have *order* carried out by a new client, killed after *kill_after* seconds if it still lives then."""
        assert self._process.stdin is not None, "asked for above"
        assert self._process.stdout is not None, "asked for above"
        self._process.stdin.write(json.dumps({"order": asdict(order), "kill_after": kill_after}) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert not told["hung"], f"the client hung\n{_log(order)}"
        report = Path(f"{order.out}.report")
        death = Death(
            told["code"], told["seconds"], json.loads(report.read_bytes()) if report.exists() else {}
        )
        assert death.code in {0, 3, -signal.SIGKILL}, f"the client ended with {death.code}\n{_log(order)}"
        assert death.report.get("error") != "defect", death.report["message"]
        return death


def _log(order: Order) -> str:
    return Path(f"{order.out}.log").read_text(encoding="utf-8", errors="replace")[-3000:]


def serve() -> None:
    """Fork a client for each order that comes in."""
    for line in sys.stdin:
        told = json.loads(line)
        order = Order(**told["order"])
        Path(f"{order.out}.report").unlink(missing_ok=True)
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_client(order)
        patience = _TOO_LONG + order.many / 5000
        hung, code = _await(child, begun, told["kill_after"], patience)
        answer = {"code": code, "seconds": time.monotonic() - begun, "hung": hung}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _await(child: int, begun: float, kill_after: float | None, patience: float) -> tuple[bool, int]:
    """Wait for the end of *child*, killing it in time; tells whether it hung, and its exit code."""
    limit = begun + (patience if kill_after is None else kill_after)
    late = not _ends_before(child, limit)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return late and kill_after is None, os.waitstatus_to_exitcode(status)


def _ends_before(child: int, limit: float) -> bool:
    """Wait for the end of *child* until the moment *limit*; tells whether it came."""
    if hasattr(os, "pidfd_open"):
        pidfd = os.pidfd_open(child)
        try:
            return bool(select.select([pidfd], [], [], max(0.0, limit - time.monotonic()))[0])
        finally:
            os.close(pidfd)
    while time.monotonic() < limit:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.001)
    return False


def _be_client(order: Order) -> None:
    """Be a client and end; never returns."""
    null, log = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(f"{order.out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    )
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    try:
        code = play(order)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
