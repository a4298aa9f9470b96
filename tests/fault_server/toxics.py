"""
The eight toxics of Toxiproxy, on a TCP proxy of our own: latency, down, bandwidth, slow_close, timeout, reset_peer,
slicer, limit_data; each for one direction, and with a probability a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Literal, Self

from attrs import define, field, frozen

__all__ = ["Toxic", "ToxicProxy"]

Kind = Literal["latency", "down", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"]


@frozen(kw_only=True)
class Toxic:
    """
    One toxic. *seconds*: latency, slow_close (wait before closing), timeout and reset_peer (wait before it strikes),
    slicer (between slices). *jitter*: of the latency. *size*: bandwidth (bytes a second), slicer (bytes a slice),
    limit_data (bytes let through). `timeout` drops everything, then closes after *seconds* (0: never).
    """

    kind: Kind
    stream: Literal["upstream", "downstream"] = "downstream"
    toxicity: float = 1.0
    seconds: float = 0.0
    jitter: float = 0.0
    size: int = 0


@define(eq=False)
class ToxicProxy:
    """Stands before *target* (host, port) and spoils what passes; *toxics* can change at any time."""

    target: tuple[str, int]
    toxics: list[Toxic] = field(factory=list)
    seed: int = 0
    connections: int = 0
    _server: asyncio.Server | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)
    _dice: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # only open ones have an address
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The base URL through the proxy."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # opened by __aenter__
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # streams run this as a task
        self._tasks.add(task)
        self.connections += 1
        active = [toxic for toxic in self.toxics if self._dice.random() < toxic.toxicity]
        try:
            await self._link(reader, writer, active)
        except asyncio.CancelledError:
            # Only closing cancels; streams would report it as an error of this callback.
            _reset(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _link(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, active: list[Toxic]
    ) -> None:
        if any(toxic.kind == "down" for toxic in active):
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        up = _Pipe(reader, far_writer, [each for each in active if each.stream == "upstream"], self._dice)
        down = _Pipe(far_reader, writer, [each for each in active if each.stream == "downstream"], self._dice)
        try:
            async with asyncio.TaskGroup() as group:
                strikers = [each for each in active if each.kind in {"reset_peer", "timeout"}]
                running = [group.create_task(pipe.run()) for pipe in (up, down)]
                running += [group.create_task(_strike(each, writer, far_writer)) for each in strikers]
                await running[1]
                for each in running:
                    each.cancel()
        finally:
            far_writer.close()


@define(eq=False)
class _Pipe:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    toxics: list[Toxic]
    dice: random.Random
    passed: int = 0

    async def run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(16_384):
                if not await self._pass(piece):
                    break
            for toxic in self.toxics:
                if toxic.kind == "slow_close":
                    await asyncio.sleep(toxic.seconds)
            if self.writer.can_write_eof():
                self.writer.write_eof()

    async def _pass(self, piece: bytes) -> bool:
        """Send *piece* on as the toxics have it; False when nothing more may pass."""
        step, pause = len(piece), 0.0
        for toxic in self.toxics:
            if toxic.kind == "timeout":
                return True
            if toxic.kind == "latency":
                await asyncio.sleep(max(0.0, toxic.seconds + toxic.jitter * (2 * self.dice.random() - 1)))
            elif toxic.kind == "limit_data":
                piece = piece[: toxic.size - self.passed]
            elif toxic.kind == "slicer":
                step, pause = toxic.size, toxic.seconds
            elif toxic.kind == "bandwidth":
                step = max(1, toxic.size // 50)
                pause = step / toxic.size
        self.passed += len(piece)
        for at in range(0, len(piece), max(1, step)):
            self.writer.write(piece[at : at + step])
            await self.writer.drain()
            if pause:
                await asyncio.sleep(pause)
        limits = [toxic.size for toxic in self.toxics if toxic.kind == "limit_data"]
        return all(self.passed < limit for limit in limits)


async def _strike(toxic: Toxic, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
    if toxic.kind == "timeout" and not toxic.seconds:
        return
    await asyncio.sleep(toxic.seconds)
    if toxic.kind == "reset_peer":
        _reset(near)
        _reset(far)
    else:
        near.close()
        far.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
