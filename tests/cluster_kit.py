"""A Dask cluster for tests: scheduler and workers as processes of their own on loopback, ended by their ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field

import kling_async

__all__ = ["Cluster", "cluster", "free_port"]

_PACKAGE = Path(kling_async.__file__).parents[1]
_TESTS = Path(__file__).parent


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@define(eq=False)
class Cluster:
    """A scheduler on *port* and its workers; *environment* is added to that of the workers."""

    folder: Path
    environment: Mapping[str, str]
    port: int = field(factory=free_port)
    security: tuple[str, ...] = ()
    scheduler: subprocess.Popen[bytes] = field(init=False)
    workers: list[subprocess.Popen[bytes]] = field(factory=list, init=False)
    logs: list[Path] = field(factory=list, init=False)

    @property
    def address(self) -> str:
        """The address of the scheduler."""
        return f"{'tls' if self.security else 'tcp'}://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        """Start the scheduler."""
        options = ("--host", self.address.rpartition(":")[0], "--port", str(self.port), "--no-dashboard")
        # What only the workers may know, it is not told.
        told = {name: text for name, text in self.environment.items() if name.startswith("DASK_")}
        self.scheduler = self._start("dask_scheduler", *options, *self.security, environment=told)

    def add_worker(self, *, threads: int = 16, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker, with a nanny that starts it again if so wished."""
        options = ["--nthreads", str(threads), "--no-dashboard", "--local-directory", str(self.folder)]
        options += ["--nanny" if nanny else "--no-nanny", "--memory-limit", "1GB", "--death-timeout", "60"]
        worker = self._start(
            "dask_worker", self.address, *options, *self.security, environment=self.environment
        )
        self.workers.append(worker)
        return worker

    def _start(self, program: str, *options: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        path = os.pathsep.join((str(_PACKAGE), str(_TESTS)))
        told = {"DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s", "PYTHONPATH": path}
        log = self.folder / f"{program}-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *options],
                env={**os.environ, **environment, **told},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )

    def close(self) -> None:
        """End all processes, and those that nannies have started."""
        for process in (*self.workers, self.scheduler):
            with suppress(ProcessLookupError):
                # Its own session, so nobody else's.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def cluster(
    environment: Mapping[str, str], *, workers: int = 2, nanny: bool = False, security: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """Run a cluster."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        running = Cluster(Path(folder), environment, security=security)
        running.start_scheduler()
        try:
            for _ in range(workers):
                running.add_worker(nanny=nanny)
            yield running
        finally:
            running.close()
