"""One run of a client, in a process that may be killed at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, define, field
from fault_kit import PACE, Hurried

from kling_async import Failed, Kling, MultiImage, Skipped, _crash, read_manifest
from kling_async.batch.upkeep import retry_failed
from kling_async.errors import KlingError
from kling_async.journal import storage
from kling_async.protocol.endpoints import Timeouts

from .power import Disk

__all__ = ["Order", "play"]

# Short, since the service is on this machine; the settle window still spans three look-ups.
_LIMITS = Timeouts(connect=2.0, request=2.0, settle=0.03 * PACE)


@define(kw_only=True)
class Order:
    """
    What the process does.

    *rows* are key, prompt and n of each job. The process kills itself when it passes the place *crash* for the *nth*
    time. *action* is `run` (a batch), `recover`, `retry` or `create` (single creates with a client's journal);
    *options* are those of `Kling.batch()`. On SIGTERM a batch is stopped if *drain* says so; *leave* is how many outcomes
    it is left after (None: all). Instead of *rows* there can be *many* jobs that differ in their keys alone, or those of
    a *manifest*.

    What may be wrong on its machine: at the place *hold* another program locks the journal and keeps it locked, for
    which writers wait *busy* milliseconds; a database has room for *pages* pages; a file has room for *file_size* bytes;
    the power is cut when the *cut*-th place is passed (or first the one called *cut_at*), and what is left of the folder
    is put into `out.left`.
    """

    url: str
    api_key: str
    out: str
    rows: list[tuple[str, str, int]]
    action: str = "run"
    crash: str = ""
    nth: int = 1
    slots: int = 4
    options: dict[str, Any] = field(factory=dict)
    client: dict[str, Any] = field(factory=dict)
    drain: bool = False
    leave: int | None = None
    many: int = 0
    manifest: str = ""
    hold: str = ""
    busy: int = 5000
    pages: int = 0
    file_size: int = 0
    cut: int = 0
    cut_at: str = ""

    def text(self) -> str:
        """Return the order as JSON."""
        return json.dumps(asdict(self))


def play(order: Order) -> int:
    """Carry out *order* and write what came of it beside the folder; 0 if nothing went wrong."""
    before = _most_memory()
    _spoil(order)
    report: dict[str, Any] = {"error": "", "message": "", "outcomes": {}}
    try:
        asyncio.run(_ACTIONS[order.action](order, report))
    except KlingError as error:
        report["error"], report["message"] = type(error).__name__, str(error)
    except KeyboardInterrupt:
        report["error"] = "KeyboardInterrupt"
    except BaseException:  # noqa: BLE001  # whatever it was, the parent must hear of it
        report["error"], report["message"] = "defect", traceback.format_exc()
    finally:
        _crash.arm(None)
    report["grown"] = _most_memory() - before
    Path(f"{order.out}.report").write_text(json.dumps(report), encoding="utf-8")
    return 3 if report["error"] else 0


def _most_memory() -> int:
    """Return the most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _spoil(order: Order) -> None:
    """Make the machine as *order* has it."""
    storage._BUSY_MILLISECONDS = order.busy
    if order.cut or order.cut_at:
        disk = Disk(Path(order.out))
        disk.install()
        _crash.arm(_Cut(disk, order.cut, order.cut_at))
    elif order.crash:
        _crash.arm(_Trigger(order.crash, order.nth, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    elif order.hold:
        _crash.arm(_Trigger(order.hold, order.nth, partial(_lock, Path(order.out) / "journal.db")))
    if order.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_size, order.file_size))
    if order.pages:
        sqlite3.connect = partial(_connect_small, sqlite3.connect, order.pages)  # type: ignore[assignment]  # one overload is all that is used


@define
class _Trigger:
    point: str
    left: int
    act: Callable[[], object]

    def __call__(self, name: str) -> None:
        if name == self.point:
            self.left -= 1
            if self.left == 0:
                self.act()


@define
class _Cut:
    disk: Disk
    left: int
    place: str

    def __call__(self, name: str) -> None:
        with self.disk._lock:
            self.disk.note("place", name)
            self.left -= 1
            if self.left == 0 or name == self.place:
                self.disk.cut_power(Path(f"{self.disk.out}.left"))
                os.kill(os.getpid(), signal.SIGKILL)


# Kept open, and so the lock held, until the process ends.
_other_programs: list[sqlite3.Connection] = []


def _lock(journal: Path) -> None:
    db = sqlite3.connect(journal, isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    _other_programs.append(db)


def _connect_small(
    connect: Callable[..., sqlite3.Connection], pages: int, *args: Any, **options: Any
) -> sqlite3.Connection:
    db = connect(*args, **options)
    db.execute(f"PRAGMA max_page_count = {pages}")
    return db


def _jobs(order: Order, report: dict[str, Any]) -> Iterable[Any]:
    return read_manifest(Path(order.manifest)) if order.manifest else _made(order, report)


def _made(order: Order, report: dict[str, Any]) -> Iterator[MultiImage]:
    picture = "https://example.com/dress.png"
    many = ((f"row-{number:07d}", "many.", 1) for number in range(order.many))
    for drawn, (key, prompt, n) in enumerate(many if order.many else order.rows, 1):
        report["drawn"] = drawn
        yield MultiImage(subject_images=[picture], prompt=prompt, n=n, key=key)


def _client(order: Order) -> Kling:
    options = {
        "api_key": order.api_key,
        "base_url": order.url,
        "slots": order.slots,
        "timeout": _LIMITS,
        "min_poll_interval": 0.01 * PACE,
        "trust_env": False,
    }
    return Hurried(**(options | order.client))


async def _run(order: Order, report: dict[str, Any]) -> None:
    async with (
        _client(order) as kling,
        kling.batch(_jobs(order, report), out=order.out, **order.options) as batch,
    ):
        if order.drain:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, batch.stop)
        try:
            async for outcome in batch:
                if order.many:
                    kind = type(outcome).__name__
                    report["outcomes"][kind] = report["outcomes"].get(kind, 0) + 1
                else:
                    report["outcomes"][outcome.key] = _told(outcome)
                if len(report["outcomes"]) == order.leave:
                    break
        finally:
            report["committed"] = batch.statistics().units_committed


def _told(outcome: object) -> list[str]:
    if isinstance(outcome, Failed):
        return ["Failed", type(outcome.error).__name__, str(outcome.error)]
    return [type(outcome).__name__, outcome.reason if isinstance(outcome, Skipped) else "", ""]


async def _recover(order: Order, report: dict[str, Any]) -> None:
    async with _client(order) as kling:
        recovered = await kling.recover(_jobs(order, report), out=order.out)
    report["found"], report["absent"] = recovered.found, recovered.absent
    report["old"] = str(recovered.old_journal or "")


async def _retry(order: Order, report: dict[str, Any]) -> None:
    report["reopened"] = await retry_failed(Path(order.out) / "journal.db")


async def _create(order: Order, report: dict[str, Any]) -> None:
    """Take up what is pending, then create what was not, as a web application would at its start."""
    async with _client(order) as kling:
        images = kling.images.multi_image
        for handle in await images.pending():
            try:
                task = await handle.wait(timeout=10)
            except KlingError as error:
                report["outcomes"][handle.external_task_id] = ["Failed", type(error).__name__, str(error)]
            else:
                report["outcomes"][handle.external_task_id] = ["Succeeded", task.task_id, ""]
        for _, prompt, n in order.rows:
            handle = await images.create(subject_images=["https://example.com/dress.png"], prompt=prompt, n=n)
            task = await handle.wait(timeout=10)
            report["outcomes"][handle.external_task_id] = ["Succeeded", task.task_id, ""]


_ACTIONS = {"run": _run, "recover": _recover, "retry": _retry, "create": _create}
