"""The public types, pinned for mypy; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_never, assert_type

import aiohttp
from aiohttp import web

from kling_async import (
    Account,
    AccountStatistics,
    BadRow,
    Batch,
    Failed,
    ImageSource,
    Kling,
    KlingError,
    LaneStatistics,
    MultiImage,
    Pack,
    RawReply,
    ResultImage,
    Row,
    Skipped,
    Statistics,
    Succeeded,
    Task,
    TaskHandle,
    TaskStatus,
    Timeouts,
    read_manifest,
)
from kling_async.emulator import Emulator, EmulatorSettings, Faults
from kling_async.errors import (
    ApiError,
    InvalidJob,
    RequestTimeout,
    SubmissionUnknown,
    TaskFailed,
    TaskTimeout,
)
from kling_async.integrations.aiohttp_web import callback_app
from kling_async.integrations.asgi import callbacks
from kling_async.integrations.logs import EventLog
from kling_async.integrations.otel import Tracing
from kling_async.integrations.prometheus import Metrics
from kling_async.protocol.events import Event, Finished, Missed
from kling_async.testing import RunningEmulator, running_emulator


def client(session: aiohttp.ClientSession) -> None:
    """A client takes its documented options and gives views of its own kind."""
    kling = Kling(
        api_key="key",
        base_url="http://127.0.0.1:1",
        region="cn",
        slots="auto",
        timeout=Timeouts(request=10),
        max_retries=0,
        min_poll_interval=0.5,
        session=session,
        proxy=None,
        trust_env=True,
        callback_url="https://shop.example/hook",
        webhook_secret=None,
        on_event=None,
    )
    assert_type(kling.with_options(timeout=5, max_retries=1), Kling)
    Kling(on_event=print)
    Kling(on_event=[EventLog(), Tracing(), Metrics(namespace="shop"), watch])
    Kling(accounts=[Account("a", api_key="key", slots=5), Account("b", access_key="a", secret_key="s")])


async def watch(event: Event) -> None:
    """Events are matched by their class, and all of them can be."""
    match event:
        case Finished(task_id=task_id, units=units, lag=lag):
            assert_type(task_id, str)
            assert_type(units, Decimal | None)
            assert_type(lag, float | None)
        case Missed(count=count):
            assert_type(count, int)
        case _:
            pass


def receivers(kling: Kling) -> None:
    """Callbacks are taken in by apps, or piece by piece."""
    app: Callable[..., Awaitable[None]] = callbacks(kling, patience=5)
    assert_type(app, Callable[..., Awaitable[None]])
    assert_type(callback_app(kling), web.Application)
    assert_type(kling.callbacks.address, str | None)
    assert_type(kling.callbacks.statistics().heeded, int)
    intake = kling.callbacks.intake("POST", "/hook", [(b"webhook-id", b"1")])
    intake.feed(b"{}")
    assert_type(intake.over, bool)
    assert_type(intake.finish(), int)


async def tasks(kling: Kling, job: MultiImage) -> None:
    """A task is created, waited for, looked up and saved."""
    multi_image = kling.images.multi_image
    handle = await multi_image.create(job)
    fields = await multi_image.create(subject_images=["a.png", b"", Path("b")], n=2)
    handles = [assert_type(handle, TaskHandle), assert_type(fields, TaskHandle)]
    assert_type(handle.task_id, str)
    assert_type(handle.external_task_id, str)
    assert_type(await handle, Task)
    assert_type(await handle.wait(timeout=600), Task)
    assert_type(await handle.refresh(), Task)
    assert_type(handle.events(), AsyncIterator[Task])
    assert_type(await multi_image.run(job, wait_timeout=600), Task)
    assert_type(await multi_image.retrieve("id"), Task)
    assert_type(await multi_image.list(page=1, page_size=30), list[Task])
    assert_type(multi_image.iter(page_size=500), AsyncIterator[Task])
    handles.append(assert_type(multi_image.handle("id"), TaskHandle))
    assert_type(await kling.account.packs(), tuple[Pack, ...])
    raw = await multi_image.with_raw_response.retrieve("id")
    assert_type(raw, RawReply[Task])
    assert_type(raw.parse(), Task)
    assert_type(raw.status, int)
    assert_type(raw.request_id, str)


async def task(done: Task) -> None:
    """A task and its pictures are plain values."""
    assert_type(done.task_id, str)
    assert_type(done.external_task_id, str)
    assert_type(done.status, TaskStatus)
    assert_type(done.status_message, str)
    assert_type(done.images, tuple[ResultImage, ...])
    assert_type(done.units, Decimal | None)
    assert_type(done.created_at, datetime | None)
    assert_type(done.updated_at, datetime | None)
    assert_type(done.raw, Mapping[str, Any])
    for image in done.images:
        assert_type(image.index, int)
        assert_type(image.url, str)
        assert_type(image.watermark_url, str | None)
        assert_type(await image.save("out"), Path)
        assert_type(await image.read(), bytes)


async def batch(kling: Kling, jobs: AsyncIterator[MultiImage], path: Path) -> None:
    """A batch takes any iterable of jobs or rows and yields outcomes that a match can tell apart completely."""
    rows = read_manifest(path)
    assert_type(rows, Iterator[Row | BadRow])
    kling.batch(rows)
    kling.batch([MultiImage(subject_images=["a.png"])], in_order=True, max_failures=3)
    async with kling.batch(jobs, out="out", budget=50_000, errors="raise") as running:
        assert_type(running, Batch)
        async for outcome in running:
            assert_type(outcome, Succeeded | Failed | Skipped)
            assert_type(outcome.unwrap(), Task)
            match outcome:
                case Succeeded(key=key, files=files, units=units, job=job, attempts=attempts):
                    assert_type(key, str)
                    assert_type(files, tuple[Path | str, ...])
                    assert_type(units, Decimal | None)
                    assert_type(job, MultiImage | None)
                    assert_type(attempts, int)
                case Failed(error=error, task=made):
                    assert_type(error, KlingError)
                    assert_type(made, Task | None)
                case Skipped(reason=reason):
                    assert_type(reason, str)
                case _:
                    assert_never(outcome)
        running.stop()
    numbers = running.statistics()
    assert_type(numbers, Statistics)
    assert_type(numbers.units, Decimal)
    assert_type(numbers.slot_utilisation, float | None)
    assert_type(numbers.lanes, tuple[LaneStatistics, ...])
    assert_type(numbers.accounts, tuple[AccountStatistics, ...])
    assert_type(numbers.lag, float | None)
    async for outcome in kling.batch([]):
        assert_type(outcome, Succeeded | Failed | Skipped)


def job() -> None:
    """A job takes every kind of picture and keeps them as sources."""
    made = MultiImage(
        subject_images=["a.png"], scene_image=ImageSource.from_bytes(b""), style_image=Path("b")
    )
    assert_type(made.subject_images, tuple[ImageSource, ...])
    assert_type(made.scene_image, ImageSource | None)
    assert_type(made.n, int)
    assert_type(made.model_name, str)
    assert_type(made.aspect_ratio, str | None)
    assert_type(made.units, int)


def errors(
    refusal: ApiError, invalid: InvalidJob, late: TaskTimeout, lost: SubmissionUnknown, failed: TaskFailed
) -> None:
    """Errors carry what a caller acts on, and are the built-in kinds that they claim to be."""
    assert_type(refusal.code, int)
    assert_type(refusal.http_status, int)
    assert_type(refusal.request_id, str)
    assert_type(refusal.retry_after, float | None)
    assert_type(invalid.field, str)
    assert_type(late.task_id, str)
    assert_type(lost.external_task_id, str)
    assert_type(failed.task, Task)
    built_in: list[TimeoutError | ValueError] = [late, invalid, RequestTimeout("late")]
    roots: list[KlingError] = [refusal, invalid, late, lost, failed]
    del built_in, roots


async def emulators() -> None:
    """Emulators are opened by `async with`, or run in a thread for tests."""
    async with Emulator(EmulatorSettings(slots=3, faults=Faults.of("1303:5%"))) as emulator:
        assert_type(emulator, Emulator)
        assert_type(emulator.url, str)
    with running_emulator(slots=3) as running:
        assert_type(running, RunningEmulator)
        assert_type(running.client(), Kling)
