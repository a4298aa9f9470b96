"""Pictures made to fit on their way through client and batch."""

from __future__ import annotations

import asyncio
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from socket_kit import client, leaves_nothing, png, until

from kling_async import Failed, ImageSource, MultiImage, Succeeded
from kling_async.emulator import Emulator
from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.events import PicturesFitted

pytestmark = pytest.mark.anyio


def webp(size: tuple[int, int] = (400, 300)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).save(buffer, "WEBP")
    return buffer.getvalue()


def emulator(**options: Any) -> Emulator:
    return Emulator(**{"speed": "instant", "paint": "stamp", "slots": 9, **options})


async def test_outcomes_logs_and_events_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was changed stands in the outcome, in the log and in an event; what was not changed is not spoken of."""
    caplog.set_level(logging.INFO, logger="kling_async")
    events: list[Any] = []
    jobs = [MultiImage(subject_images=[data], key=key) for key, data in (("a", webp()), ("b", png()))]

    async with (
        leaves_nothing(),
        emulator() as service,
        client(service, on_event=events.append) as kling,
        kling.batch(jobs, out=tmp_path, fit="auto") as batch,
    ):
        outcomes = {outcome.key: outcome async for outcome in batch}

    fitted, plain = outcomes["a"], outcomes["b"]
    assert isinstance(fitted, Succeeded)
    assert isinstance(plain, Succeeded)
    assert plain.fitted == ()
    assert [each.changes for each in fitted.fitted] == [("WebP saved as JPEG of quality 95",)]
    assert [event.fitted for event in events if isinstance(event, PicturesFitted)] == [fitted.fitted]
    assert f"job a: made to fit: {fitted.fitted[0]}" in caplog.messages
    assert '"fitted"' in (tmp_path / "results.jsonl").read_text(encoding="utf-8")


async def test_a_client_may_fit_or_not(tmp_path: Path) -> None:
    """The client says it for all calls, a view or a batch for its own; without it a picture is refused."""
    job = MultiImage(subject_images=[webp()], key="k")

    async with emulator() as service, client(service) as kling, client(service, fit="auto") as fitting:
        with pytest.raises(InvalidJob, match="WebP"):
            _ = await kling.images.multi_image.create(job)
        one = await kling.with_options(fit="auto").images.multi_image.create(job)
        other = await fitting.images.multi_image.create(job)
        async with fitting.batch([job], journal=tmp_path / "run.db") as batch:
            (outcome,) = [outcome async for outcome in batch]
        with pytest.raises(ConfigError, match="fit"):
            client(service, fit="sometimes")
        with pytest.raises(ConfigError, match="picture_cache"):
            client(service, picture_cache=-1)

    assert one.fitted == other.fitted
    assert isinstance(outcome, Succeeded)
    assert outcome.fitted == one.fitted


async def test_a_job_is_the_same_whatever_it_takes_to_fit(tmp_path: Path) -> None:
    """A later run knows a job again by what was asked for, so it is not paid twice for being made to fit."""
    path = tmp_path / "a.webp"
    path.write_bytes(webp())
    job = MultiImage(subject_images=[path, webp()])

    kinds: list[str] = []
    async with emulator() as service, client(service) as kling:
        for _ in range(2):
            async with kling.batch([job], out=tmp_path / "out", fit="auto") as batch:
                kinds += [type(outcome).__name__ async for outcome in batch]

    assert kinds == ["Succeeded", "Skipped"]
    assert len(service.tasks) == 1


async def test_a_run_that_is_taken_up_again_tells_too(tmp_path: Path) -> None:
    """What was changed before a crash is in the journal, and in the outcome of the run that collects the task."""
    job = MultiImage(subject_images=[webp()], key="k")

    async with emulator(speed=1, task_seconds=1.0) as service, client(service) as kling:
        async with kling.batch([job], out=tmp_path, fit="auto") as batch:
            waiting = asyncio.ensure_future(anext(aiter(batch)))
            await until(lambda: service.tasks)
            await until(lambda: batch.statistics().in_flight)
            waiting.cancel()
        async with kling.batch([job], out=tmp_path, fit="auto") as batch:
            (outcome,) = [outcome async for outcome in batch]

    assert isinstance(outcome, Succeeded)
    assert [each.changes for each in outcome.fitted] == [("WebP saved as JPEG of quality 95",)]
    assert len(service.tasks) == 1


async def test_the_style_of_many_jobs_is_read_and_encoded_once(tmp_path: Path) -> None:
    """Twenty jobs with one style read, convert and encode it once; each gets the whole of it."""
    path = tmp_path / "style.webp"
    path.write_bytes(webp((900, 700)))
    jobs = [
        MultiImage(subject_images=["https://x.example/a.png"], style_image=path, key=f"{number}")
        for number in range(20)
    ]

    async with emulator() as service, client(service, fit="auto") as kling, kling.batch(jobs) as batch:
        outcomes = [outcome async for outcome in batch]
        larder = kling._engine.stock.larder

    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    (known,) = kling._engine.stock._known.values()
    assert larder.encoded == known.size


async def test_a_file_changed_after_its_check_is_not_sent(tmp_path: Path) -> None:
    """A picture that changes while its job waits for a slot ends that job with the reason, and nothing is paid."""
    path = tmp_path / "a.png"
    path.write_bytes(png())
    jobs = [
        MultiImage(subject_images=["https://x.example/a.png"], key="first"),
        MultiImage(subject_images=[path], key="second"),
    ]

    async with (
        emulator(slots=1, speed=1, task_seconds=2.0) as service,
        client(service, slots=1) as kling,
        kling.batch(jobs, in_order=True) as batch,
    ):
        # A batch begins when it is entered; its second job has been checked once it waits for the slot of the first.
        await until(lambda: any(lane.waiting for lane in batch.statistics().lanes), 10)
        path.write_bytes(png(400, 400))
        outcomes = {outcome.key: outcome async for outcome in batch}

    second = outcomes["second"]
    assert isinstance(second, Failed)
    assert "stays as it is" in str(second.error)
    assert len(service.tasks) == 1


async def test_open_files_and_streams_are_pictures(tmp_path: Path) -> None:
    """An open file, a buffer and a source of base64 are sent like any other picture."""
    import base64

    path = tmp_path / "a.png"
    path.write_bytes(png())
    with path.open("rb") as file:
        job = MultiImage(
            subject_images=[
                file,
                io.BytesIO(png()),
                ImageSource.from_base64(base64.b64encode(png()).decode()),
            ]
        )

    async with emulator() as service, client(service) as kling:
        task = await kling.images.multi_image.run(job)

    assert task.images
