"""What the fault tests share: a client with a quick clock, jobs without pictures, and watchers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field
from fault_server import FaultServer
from fault_server.checks import assert_silent, assert_within, no_leaks

from kling_async import Kling, MultiImage
from kling_async.client.clock import Clock
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.events import Event

__all__ = ["PACE", "PATIENT", "QUICK", "FlakyResolver", "Hurried", "Log", "client_of", "job"]

# All pauses of these clients are so many times as short as those of others.
PACE = 20
# Limits of sockets are real seconds: ample, on a machine that is busy with other tests, and short where a server is silent.
PATIENT = Timeouts(connect=5.0, request=20.0, settle=0.1 * PACE)
QUICK = Timeouts(connect=0.5, request=0.6, settle=0.1 * PACE)


class Hurried(Kling):
    """A client whose clock goes fast; `stall_after` and `task_timeout` are by that clock, waits for a handle are not."""

    def __init__(self, **options: Any) -> None:
        self._clock = Clock.hurried(PACE)  # its own, so that a test can set it wrong
        super().__init__(**options)


def job(external_task_id: str | None = None, **fields: Any) -> MultiImage:
    """Return a job whose pictures are the service's business."""
    given = {"subject_images": ["https://example.com/dress.png"], "prompt": "a dress"} | fields
    return MultiImage(external_task_id=external_task_id, **given)


@define(eq=False)
class Log(logging.Handler):
    """Keeps what a client told: its events and its log lines."""

    events: list[Event] = field(factory=list)
    lines: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record as text, its traceback included."""
        self.lines.append(logging.Formatter("%(message)s").format(record))

    def of(self, *kinds: type[Event]) -> list[Any]:
        """Return the events of these *kinds*."""
        return [event for event in self.events if isinstance(event, kinds)]


@asynccontextmanager
async def client_of(
    server: FaultServer, log: Log | None = None, *, connector: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Kling]:
    """
    Open a client of *server*, and check what must hold whatever happened to it (I1, I3, I4, I6).

    Signs tokens by default, so that a secret is there to be leaked. With *connector*, options of aiohttp's, it works
    over a borrowed session.
    """
    log = log or Log()
    gate = server.service.gate
    keys: dict[str, Any] = {"access_key": gate.access_key, "secret_key": gate.secret_key}
    quick = {
        "base_url": server.url,
        "slots": 9,
        "timeout": PATIENT,
        "max_retries": 3,
        "min_poll_interval": 0.01 * PACE,
    }
    quick["on_event"] = log.events.append
    root = logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        async with (
            no_leaks(server),
            _lent(connector) as lent,
            Hurried(**(keys | quick | lent | options)) as kling,
        ):
            yield kling
            shown = repr(kling)
    except BaseException as error:
        assert_silent(server, [error])
        raise
    finally:
        root.removeHandler(log)
        root.setLevel(before)
    assert_silent(server, [shown, *log.lines, *map(repr, log.events)])
    assert_within(server.books)
    assert not server.service.settings.unique or server.books.paid_twice == {}


@define(eq=False)
class FlakyResolver(AbstractResolver):
    """Resolves every host to this machine, after *failures* that look like those of a name server."""

    failures: int
    asked: int = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:  # noqa: ARG002 - the signature is aiohttp's
        """Fail, or answer 127.0.0.1."""
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError(-3, "Temporary failure in name resolution")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def _lent(connector: dict[str, Any] | None) -> AsyncIterator[dict[str, Any]]:
    if connector is None:
        yield {}
        return
    pool = aiohttp.TCPConnector(use_dns_cache=False, **connector)
    async with aiohttp.ClientSession(connector=pool) as session:
        yield {"session": session}
        assert not session.closed, "a borrowed session was closed"
