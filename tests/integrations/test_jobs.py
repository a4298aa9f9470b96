"""Accepted jobs: nothing promised is lost, nothing is made twice, whatever happens to the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import dedent

import anyio
import anyio.to_thread
import pytest
from socket_kit import client, job, leaves_nothing, logged, png, until
from web_kit import Asgi

from kling_async.emulator import Emulator, Fault
from kling_async.errors import ConfigError, InvalidJob, JournalError
from kling_async.integrations.asgi import progress
from kling_async.integrations.jobs import JobReport, Jobs
from kling_async.integrations.promises import Promises
from kling_async.protocol.sources import ImageSource
from kling_async.testing import RunningEmulator

pytestmark = pytest.mark.anyio


async def ended(jobs: Jobs, *job_ids: str) -> list[JobReport]:
    """Wait until these jobs have ended and return their reports."""
    reports = [await jobs.wait(job_id) for job_id in job_ids]
    return [report for report in reports if report is not None]


async def test_a_job_is_made_and_found(tmp_path: Path) -> None:
    """A job is accepted at once, followed live, and in the end has its pictures; nothing is left behind."""
    async with (
        leaves_nothing(),
        Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path) as jobs,
    ):
        accepted = await jobs.accept(job(subject_images=[png()], n=2))
        async with Asgi(progress(jobs), f"task={accepted.job_id}") as call:
            told = [sent.data async for sent in call.events() if sent.name == "task"]
        report = await jobs.find(accepted.job_id)

    assert accepted == JobReport(job_id=accepted.job_id)
    assert report is not None
    assert [path.read_bytes()[:4] for path in report.pictures] == [b"\x89PNG"] * 2
    assert told[-1] == {
        "id": accepted.job_id,
        "task_id": report.task_id,
        "status": "succeeded",
        "ended": True,
    }
    assert emulator.accepted(accepted.job_id) == 1


def test_a_report_tells_what_a_browser_may_know() -> None:
    """The body has no path and no id of a request; the headers name the address, and when to ask again while it runs."""
    error = {"type": "TaskFailed", "code": None, "message": "no", "request_id": "r-1"}
    running = JobReport(job_id="a", status="processing", task_id="77")
    failed = JobReport(job_id="b", status="failed", error=error)
    done = JobReport(job_id="c", status="succeeded", pictures=(Path("/srv/secret/c_0.png"),))

    assert running.headers("/jobs/a") == {"Location": "/jobs/a", "Retry-After": "2"}
    assert done.headers("/jobs/c") == {"Location": "/jobs/c"}
    assert failed.body() == {
        "id": "b",
        "status": "failed",
        "ended": True,
        "pictures": 0,
        "error": {"type": "TaskFailed", "code": None, "message": "no"},
    }
    assert done.body()["pictures"] == 1
    assert "secret" not in json.dumps(done.body())


async def test_what_breaks_a_rule_is_no_promise(tmp_path: Path) -> None:
    """A picture that the service would refuse is an `InvalidJob` at once, and nothing is kept."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        async with Jobs(kling, tmp_path) as jobs:
            with pytest.raises(InvalidJob, match="at least 300 px"):
                await jobs.accept(job(subject_images=[png(width=100)]))
            kept = await anyio.to_thread.run_sync(
                lambda: [*(tmp_path / "open").iterdir(), *tmp_path.glob("*.new")]
            )

    assert kept == []


async def test_a_failed_task_is_reported(tmp_path: Path) -> None:
    """A job whose task fails ends as failed, with the service's reason, and is told so live."""
    faults = [Fault(action="fail-task", message="the picture is too dark")]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path) as jobs,
    ):
        accepted = await jobs.accept(job())
        (report,) = await ended(jobs, accepted.job_id)
        state = jobs.board.find(accepted.job_id)

    assert (report.status, report.pictures) == ("failed", ())
    assert report.error is not None
    assert "too dark" in report.error["message"]
    assert state is not None
    assert "too dark" in state.reason


async def test_a_name_is_one_job(tmp_path: Path) -> None:
    """Accepting the same external id again, as a browser does that repeats its POST, is no second job."""
    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path) as jobs,
    ):
        first, second = [await jobs.accept(job(external_task_id="order-7")) for _ in range(2)]
        await ended(jobs, "order-7")
        third = await jobs.accept(job(external_task_id="order-7"))
        left = await anyio.to_thread.run_sync(lambda: list((tmp_path / "open").iterdir()))

    assert (first.job_id, second.job_id) == ("order-7", "order-7")
    assert (third.status, left) == ("succeeded", [])
    assert len(emulator.tasks) == 1


@pytest.mark.parametrize("name", ["unknown", "", "../open", "a/b", "a" * 65, "ended"])
async def test_an_unknown_name_is_nobody(name: str, tmp_path: Path) -> None:
    """What is no accepted job has no report, also if it looks like a path."""
    async with Emulator(speed="instant") as emulator, client(emulator) as kling:
        async with Jobs(kling, tmp_path) as jobs:
            found = (await jobs.find(name), await jobs.wait(name), await jobs.recall(name))

    assert found == (None, None, None)


async def test_pictures_are_kept_as_they_were(tmp_path: Path) -> None:
    """The caller's file may go as soon as the job is accepted; URLs and all fields are kept as given."""
    upload = tmp_path / "upload.png"
    upload.write_bytes(png())

    async with (
        Emulator(speed=1, task_seconds=3600.0, paint="stamp", slots=1) as emulator,
        client(emulator, slots=1) as kling,
    ):
        async with Jobs(kling, tmp_path / "jobs") as jobs:
            given = job(
                subject_images=[upload, "https://pictures.example/a.png"],
                scene_image=png(400, 400),
                style_image="https://pictures.example/style.png",
                prompt="été",
                negative_prompt="rain",
                n=1,
                aspect_ratio="1:1",
                watermark=False,
                extra={"seed": 7},
            )
            accepted = await jobs.accept(given)
            upload.unlink()
            kept = jobs._promises.job(accepted.job_id)

    assert kept is not None
    assert [source.url for source in kept.subject_images] == [None, "https://pictures.example/a.png"]
    assert kept.subject_images[0].path is not None
    assert kept.subject_images[0].path.read_bytes() == png()
    plain = {
        "prompt",
        "negative_prompt",
        "n",
        "aspect_ratio",
        "watermark",
        "extra",
        "style_image",
        "model_name",
    }
    assert {name: getattr(kept, name) for name in plain} == {name: getattr(given, name) for name in plain}


async def test_pictures_are_made_to_fit_before_they_are_kept(tmp_path: Path) -> None:
    """With `fit="auto"` a picture that is too small is promised as it will be sent, and it is said what was changed."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator, fit="auto") as kling:
        async with Jobs(kling, tmp_path) as jobs:
            with logged() as log:
                accepted = await jobs.accept(job(subject_images=[png(width=200, height=200)]))
            (report,) = await ended(jobs, accepted.job_id)

    assert report.status == "succeeded"
    assert any("made to fit" in line for line in log.lines)


async def test_trouble_of_the_account_only_delays(tmp_path: Path) -> None:
    """While the account cannot pay jobs are accepted and wait; when it can again they are made."""
    async with (
        Emulator(speed="instant", paint="stamp", faults="1102:100%") as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path, retry_after=0.05) as jobs,
    ):
        first = await jobs.accept(job())
        await until(lambda: jobs.trouble)
        trouble = jobs.trouble
        second = await jobs.accept(job())
        emulator.faults = []
        reports = await ended(jobs, first.job_id, second.job_id)

    assert "1102" in str(trouble)
    assert jobs.trouble is None
    assert [report.status for report in reports] == ["succeeded", "succeeded"]
    assert emulator.accepted(first.job_id) == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who has nothing to do look around at once, instead of after some seconds."""
    monkeypatch.setattr("kling_async.integrations.jobs._LOOK_AROUND", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_picture_that_cannot_be_fetched_now_is_fetched_later(tmp_path: Path) -> None:
    """A broken download leaves the job open; it is taken up again without a second task."""
    faults = [Fault(action="expired-link")]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path, retry_after=0.05) as jobs,
    ):
        accepted = await jobs.accept(job())
        await until(lambda: jobs._leftover)
        open_still = await jobs.find(accepted.job_id)
        emulator.faults = []
        (report,) = await ended(jobs, accepted.job_id)

    assert open_still is not None
    assert not open_still.ended
    assert len(report.pictures) == 1
    assert emulator.accepted(accepted.job_id) == 1


@pytest.mark.usefixtures("impatient")
async def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    """What one accepts that is not at work, the one at work makes; when that one is gone the other takes its place."""
    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as first,
        client(emulator) as second,
    ):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Jobs(first, tmp_path))
            await until((tmp_path / "journal.db").exists)
            async with Jobs(second, tmp_path, retry_after=0.05) as idle:
                await until(lambda: idle.trouble)
                trouble = idle.trouble
                early = await idle.accept(job())
                reports = await ended(idle, early.job_id)
                await stack.aclose()
                late = await idle.accept(job())
                reports += await ended(idle, late.job_id)

    assert isinstance(trouble, JournalError)
    assert [report.status for report in reports] == ["succeeded", "succeeded"]
    assert len(emulator.tasks) == 2


async def test_what_another_process_left_is_taken_up(tmp_path: Path) -> None:
    """Jobs accepted and not made are made by whoever opens the folder next, those of other processes too."""
    async with Emulator(speed=1, task_seconds=3600.0, paint="stamp") as emulator, client(emulator) as kling:
        async with Jobs(kling, tmp_path) as jobs:
            accepted = [await jobs.accept(job()) for _ in range(3)]
            await until(lambda: len(emulator.tasks) == 3)
        async with Jobs(kling, tmp_path) as jobs:
            await emulator.advance(4000)
            reports = await ended(jobs, *(each.job_id for each in accepted))
            known = await jobs.recall(accepted[0].job_id)

    assert {report.status for report in reports} == {"succeeded"}
    assert len(emulator.tasks) == 3
    assert known is not None
    assert known.ended


async def test_a_crash_between_the_result_and_the_report(tmp_path: Path) -> None:
    """A job that the journal has as done and that has no report gets it from the results."""
    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        async with Jobs(kling, tmp_path) as jobs:
            accepted = await jobs.accept(job())
            await ended(jobs, accepted.job_id)
        folder = tmp_path / "ended" / accepted.job_id
        (folder / "report.json").unlink()
        folder.rename(tmp_path / "open" / accepted.job_id)
        async with Jobs(kling, tmp_path) as jobs:
            (report,) = await ended(jobs, accepted.job_id)

    assert (report.status, len(report.pictures)) == ("succeeded", 1)
    assert len(emulator.tasks) == 1


async def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """Where the folder cannot be written to nothing is promised, and the error says why."""
    async with Emulator(speed="instant") as emulator, client(emulator) as kling:
        async with Jobs(kling, tmp_path / "jobs") as jobs:
            await anyio.to_thread.run_sync(lambda: (tmp_path / "jobs").rename(tmp_path / "gone"))
            with pytest.raises(JournalError, match="could not be written"):
                await jobs.accept(job())


async def test_a_report_that_cannot_be_written_comes_later(tmp_path: Path) -> None:
    """Where a disk fails under a report, the job stays open, the trouble is said, and then the report is written."""
    async with (
        Emulator(speed=1, task_seconds=0.3, paint="stamp") as emulator,
        client(emulator) as kling,
        Jobs(kling, tmp_path, retry_after=0.05) as jobs,
    ):
        accepted = await jobs.accept(job())
        await until(lambda: emulator.tasks)
        ended_folder = tmp_path / "ended"
        await anyio.to_thread.run_sync(ended_folder.rmdir)
        await until(lambda: jobs.trouble)
        trouble = jobs.trouble
        await anyio.to_thread.run_sync(ended_folder.mkdir)
        (report,) = await ended(jobs, accepted.job_id)

    assert "cannot be used" in str(trouble)
    assert (report.status, len(report.pictures), len(emulator.tasks)) == ("succeeded", 1, 1)


def test_what_is_signed_when_it_is_sent_is_kept_unsigned(tmp_path: Path) -> None:
    """A picture in a store whose URL is to be signed is promised as it stands, since a signature does not last."""
    promises = Promises(tmp_path)
    promises.prepare()
    source = ImageSource(stored="s3://bucket/robot.png", presign=True)

    promises.keep("a", job(), {"subject_images[0]": source})
    kept = promises.job("a")

    assert kept is not None
    assert kept.subject_images == (source,)


async def test_a_closed_client_makes_no_jobs(tmp_path: Path) -> None:
    """`Jobs` of a closed client are a `ConfigError`."""
    async with Emulator(speed="instant") as emulator:
        async with client(emulator) as kling:
            pass
        with pytest.raises(ConfigError, match="closed"):
            await Jobs(kling, tmp_path).__aenter__()


APP = """
    import asyncio, sys
    from kling_async import Kling, MultiImage
    from kling_async.integrations.jobs import Jobs

    async def main():
        async with Kling(slots=3, min_poll_interval=0.05) as kling, Jobs(kling, "jobs", retry_after=0.1) as jobs:
            for number in range(int(sys.argv[1])):
                report = await jobs.accept(MultiImage(subject_images=["robot.png"], prompt=f"number {number}"))
                print(report.job_id, flush=True)
            await asyncio.sleep(3600)

    asyncio.run(main())
"""


@pytest.mark.kling_emulator(speed=20, task_seconds=20, slots=3)
async def test_a_killed_process_loses_no_promise(kling_env: RunningEmulator, tmp_path: Path) -> None:
    """Killed with -9 again and again while it accepts and makes jobs, a process leaves all to its successors, each made once."""
    (tmp_path / "robot.png").write_bytes(png())
    promised: list[str] = []

    for number, patience in enumerate((0.0, 0.3, 1.0)):
        with _app(tmp_path, 4) as process:
            promised += await anyio.to_thread.run_sync(_read_some, process, 4 - number)
            await anyio.sleep(patience)
            process.send_signal(signal.SIGKILL)
    async with kling_env.client(slots=3) as kling, Jobs(kling, tmp_path / "jobs", retry_after=0.1) as jobs:
        async with asyncio.timeout(60):
            reports = await ended(jobs, *promised)

    assert len(promised) == 9
    assert {report.status for report in reports} == {"succeeded"}
    assert {kling_env.accepted(job_id) for job_id in promised} == {1}


def _app(folder: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", dedent(APP), str(count)],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read_some(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]
