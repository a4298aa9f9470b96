"""What the tests of client and batch share: jobs, clients of an emulator, plain servers, and what must be left over."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import struct
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from attrs import define, field, frozen

from kling_async import Kling, MultiImage, Outcome
from kling_async.emulator import Emulator
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Event

__all__ = [
    "PATH",
    "QUICK",
    "Asked",
    "Log",
    "Plain",
    "answer",
    "client",
    "collect",
    "creates",
    "job",
    "leaves_nothing",
    "logged",
    "open_files",
    "png",
    "reply",
    "task",
    "until",
]

PATH = "/v1/images/multi-image2image"

# Short enough for tests, long enough for a machine that is busy with other tests.
QUICK = Timeouts(connect=2.0, request=5.0, settle=0.05)


def job(**fields: Any) -> MultiImage:
    """Return a job whose picture is the service's business."""
    given = {"subject_images": ["https://pictures.example/woman.png"], "prompt": "a red dress"}
    return MultiImage(**{**given, **fields})


def client(server: Emulator | Plain, **options: Any) -> Kling:
    """Make a client of *server* with nine slots that asks often."""
    usual = {
        "api_key": server.api_key,
        "base_url": server.url,
        "slots": 9,
        "timeout": QUICK,
        "min_poll_interval": 0.01,
        "trust_env": False,
    }
    if {"accounts", "access_key"} & set(options):
        del usual["api_key"]
    return Kling(**{**usual, **options})


def creates(emulator: Emulator) -> int:
    """Count the creates that reached *emulator*, accepted or not."""
    return sum(record.route == "create" for record in emulator.requests)


async def collect(batch: AsyncIterable[Outcome], into: list[Outcome]) -> None:
    """Take everything that comes, also what came before an error."""
    async for outcome in batch:
        into.append(outcome)  # noqa: PERF401 - an error in the middle must not lose what came before


async def until(true: Callable[[], object], patience: float = 30.0) -> None:
    """Wait until *true* says so; for what another party does, of which nothing here is told."""
    async with asyncio.timeout(patience):
        while not true():  # noqa: ASYNC110 - the books of a server announce nothing
            await asyncio.sleep(0.002)


def png(width: int = 320, height: int = 320) -> bytes:
    """Return a grey picture, made by hand."""
    rows = (b"\0" + b"\x80" * width) * height
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


# Plain servers.


@frozen(kw_only=True)
class Asked:
    """One request as a plain server read it."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@define(eq=False)
class Plain:
    """
    A hand-written server: *say* makes the whole reply to each request, as bytes.

    A reply that ends in `HANG` is followed by silence until the server closes.
    """

    say: Callable[[Asked], bytes]
    api_key: str = "plain-api-key"
    port: int = 0
    url: str = ""
    asked: list[Asked] = field(factory=list)
    open: int = 0
    _writers: set[asyncio.StreamWriter] = field(factory=set)
    _server: asyncio.Server = field(init=False)

    HANG: ClassVar[bytes] = b"<hang>"

    def of(self, method: str) -> list[Asked]:
        """Return the requests with *method*."""
        return [asked for asked in self.asked if asked.method == method]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        await until(lambda: not self.open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                said = self.say(asked)
                writer.write(said.removesuffix(self.HANG))
                await writer.drain()
                if said.endswith(self.HANG):
                    await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.rstrip().split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = first.split(" ")
    return Asked(method=method, target=target, headers=headers, body=body)


def reply(status: int, body: bytes, *, kind: str = "application/json", **headers: str) -> bytes:
    """Return a whole HTTP reply."""
    lines = {"Content-Type": kind, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


def answer(data: object, *, code: object = 0, status: int = 200, **headers: str) -> bytes:
    """Return a reply with the service's envelope around *data*."""
    envelope = {"code": code, "message": "SUCCEED", "request_id": "plain-1", "data": data}
    return reply(status, json.dumps(envelope).encode(), **headers)


def task(task_id: str = "t-1", status: str = "submitted", **fields: Any) -> dict[str, Any]:
    """Return a task as the service shows it."""
    return {
        "task_id": task_id,
        "task_status": status,
        "task_info": {},
        "created_at": 1722769557708,
        "updated_at": 1722769557708,
        **fields,
    }


# What is told, and what is left.


@define(eq=False)
class Log(logging.Handler):
    """Keeps events, and log lines as text with their tracebacks."""

    events: list[Event] = field(factory=list)
    lines: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record, with whatever hangs on it."""
        self.lines.append(
            logging.Formatter("%(levelname)s %(message)s").format(record) + str(record.__dict__)
        )

    def of(self, *kinds: type[Event]) -> list[Any]:
        """Return the events of these *kinds*."""
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def errors(self) -> list[str]:
        """The lines that speak of defects."""
        return [line for line in self.lines if line.startswith(("ERROR", "CRITICAL"))]


@contextmanager
def logged() -> Iterator[Log]:
    """Keep everything that is logged anywhere, from DEBUG up."""
    log, root = Log(), logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.removeHandler(log)
        root.setLevel(before)


def open_files() -> dict[str, str]:
    """Name what this process has open, by descriptor."""
    folder = "/proc/self/fd"
    found = {}
    for name in os.listdir(folder) if Path(folder).is_dir() else ():  # noqa: PTH208 - names are enough
        with suppress(OSError):
            found[name] = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - a link to a socket is no path
    return {name: target for name, target in found.items() if not target.endswith("/fd")}


@asynccontextmanager
async def leaves_nothing() -> AsyncIterator[None]:
    """What runs inside leaves no asyncio task and no open file or socket, and logs no defect."""
    tasks, files = asyncio.all_tasks(), open_files()
    with logged() as log:
        yield

    async with asyncio.timeout(30):
        # Ends of connections are events of the kernel; nothing in this process announces them.
        while _left(tasks, files):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
    assert log.errors == []


def _left(tasks: set[asyncio.Task[Any]], files: Mapping[str, str]) -> list[object]:
    gc.collect()
    running: Iterable[asyncio.Task[Any]] = asyncio.all_tasks() - tasks
    return [task for task in running if not task.done()] + [
        (name, target) for name, target in open_files().items() if name not in files
    ]
