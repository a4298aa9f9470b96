"""Events as log records: their fields, their levels, and nothing secret in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from socket_kit import client, job

from kling_async.emulator import Emulator, Fault
from kling_async.errors import NoFreeSlot, TaskFailed, TransportError
from kling_async.integrations.logs import EventLog, Redacting
from kling_async.protocol import events

pytestmark = pytest.mark.anyio

FIELDS = ("task_id", "external_task_id", "key", "request_id", "code", "account")
JOB = {"account": "main", "key": "row 1", "external_task_id": "ka-1"}
SECRET = "a-key-that-nobody-may-see"


class Records(logging.Handler):
    """Keeps records as they are."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)

    def of(self, name: str) -> list[Any]:
        return [record for record in self.kept if getattr(record, "event", "") == name]


@contextmanager
def kept(level: int = logging.DEBUG) -> Iterator[Records]:
    """Keep what the package logs from *level* up."""
    logger, records = logging.getLogger("kling_async"), Records()
    before = logger.level
    logger.addHandler(records)
    logger.setLevel(level)
    try:
        yield records
    finally:
        logger.removeHandler(records)
        logger.setLevel(before)


async def test_records_have_the_six_fields(tmp_path: Path) -> None:
    """Every record of the package, of a run with trouble, has all fields; a job's records tell its ids and key."""
    faults = [
        Fault(action="refuse", code=1303, times=1),
        Fault(action="html-502", route="get", times=1),
        Fault(action="html-502", route="list", times=1),
    ]

    with kept() as log:
        async with (
            Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
            client(emulator, on_event=EventLog(), slots="auto") as kling,
        ):
            done = await kling.images.multi_image.run(job(key="row-1"))
            await done.images[0].save(tmp_path)

    assert [record for record in log.kept if not all(hasattr(record, name) for name in FIELDS)] == []
    (submitted,), (refused,), (finished,), (saved,) = map(
        log.of, ("Submitted", "Refused", "Finished", "Saved")
    )
    assert (submitted.task_id, submitted.external_task_id, submitted.key) == (
        done.task_id,
        done.external_task_id,
        "row-1",
    )
    assert submitted.request_id
    assert (refused.code, refused.account) == (1303, "default")
    assert done.task_id in finished.getMessage()
    assert (saved.task_id, saved.levelno) == (done.task_id, logging.INFO)


async def test_at_info_a_job_is_some_lines() -> None:
    """At INFO a good job is told in two lines, a failed one with a warning; polls and requests stay silent."""
    with kept(logging.INFO) as log:
        async with (
            Emulator(
                speed="instant", paint="stamp", faults=[Fault(action="fail-task", match_external_id="bad")]
            ) as emulator,
            client(emulator, on_event=EventLog()) as kling,
        ):
            await kling.images.multi_image.run(job())
            with pytest.raises(TaskFailed):
                await kling.images.multi_image.run(job(external_task_id="bad"))

    told = [(record.levelname, getattr(record, "event", "")) for record in log.kept]
    assert told == [
        ("INFO", "Submitted"),
        ("INFO", "Finished"),
        ("INFO", "Submitted"),
        ("WARNING", "Finished"),
    ]


SAYING = {
    "error": TransportError(f"cannot reach https://host.example/a?key={SECRET}"),
    "reason": f"see https://host.example/a?key={SECRET}",
    "path": "out/a.png",
    "account": "main",
    "model": "kling-v2-1",
    "units": Decimal(16),
    "pause": 1.0,
    "lag": 0.5,
}


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_every_event_has_a_line(kind: Any) -> None:
    """Each kind of event becomes one readable record without what a message may have carried."""
    fields = {
        each.name: SAYING.get(each.name, JOB.get(each.name, "x" if each.type in {str, "str"} else 3))
        for each in kind.__attrs_attrs__
    }

    with kept() as log:
        EventLog()(kind(**fields))

    (record,) = log.of(kind.__name__)
    assert SECRET not in record.getMessage()
    assert kind.__name__ not in record.getMessage(), "a line of its own, not a repr"


def test_a_stopped_lane_is_loud() -> None:
    """An account that takes no more jobs is an ERROR with the service's code."""
    with kept(logging.ERROR) as log:
        EventLog()(events.LaneStopped(account="main", model="kling-v2-1", error=NoFreeSlot("full", 1303)))

    (record,) = log.of("LaneStopped")
    assert (record.code, record.account) == (1303, "main")


def test_a_filter_redacts_everybodys_records() -> None:
    """On a handler, `Redacting` blanks what any library logs, its tracebacks included."""
    logger, records = logging.getLogger("some.other.library"), Records()
    records.addFilter(Redacting())
    logger.addHandler(records)
    logger.propagate = False

    try:
        try:
            raise ValueError(f"Authorization: Bearer {SECRET}")
        except ValueError:
            logger.exception("GET %s", f"https://host.example/a.png?signature={SECRET}")
    finally:
        logger.removeHandler(records)

    (record,) = records.kept
    text = logging.Formatter().format(record)
    assert SECRET not in text
    assert "ValueError" in text
    assert "https://host.example/a.png?***" in text
