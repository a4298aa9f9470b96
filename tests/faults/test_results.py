"""Fault matrix D01 to D09, and N18 for pictures: what can go wrong between a task that succeeded and its files."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from disk_kit import on_small_disk, reason
from fault_kit import FlakyResolver, client_of, job
from fault_server import FaultServer, Life
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within
from fault_server.pictures import png
from fault_server.replies import prepare

from kling_async import Failed, Kling, MultiImage, Skipped, Succeeded, errors
from kling_async.batch.upkeep import read_status
from kling_async.client import poller
from kling_async.protocol.lifecycle import JobState
from kling_async.protocol.polling import PollBook

pytestmark = pytest.mark.anyio

DAY = 86_400
LOST = go.empty(404, "result", times=None)


def rows(count: int, **fields: Any) -> list[MultiImage]:
    return [job(key=f"row-{number}", prompt=f"row-{number}.", **fields) for number in range(count)]


async def run(kling: Kling, work: list[MultiImage], out: Path, **options: Any) -> list[Any]:
    return [outcome async for outcome in kling.batch(work, out=out, **options)]


async def refused(
    server: FaultServer, out: Path, work: list[MultiImage] | None = None, **options: Any
) -> str:
    """Run a batch that must not begin; return why. Nothing may have been sent."""
    async with client_of(server) as kling:
        with pytest.raises(errors.ConfigError) as caught:
            await run(kling, work or rows(1), out, **options)
    assert_within(server.books, posts=0)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def line(out: Path) -> Any:
    """Return the newest line of the results."""
    return json.loads((out / "results.jsonl").read_text(encoding="utf-8").splitlines()[-1])


@pytest.fixture
def quick(server: FaultServer) -> FaultServer:
    """A server whose tasks are done at once."""
    server.change(life=Life(seconds=0.02))
    return server


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a picture that goes on for ever."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n" + png()[:40])
    with suppress(ConnectionError):
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
    writer.close()


# D01: links that no longer work.


async def test_d01_what_could_not_be_fetched_is_fetched_by_the_next_run(
    quick: FaultServer, tmp_path: Path
) -> None:
    """A link that stays dead is an outcome; the job stays succeeded, and the next run fetches it without paying."""
    quick.break_with(LOST)
    async with client_of(quick) as kling:
        (first,) = await run(kling, rows(1), tmp_path)
        status = await read_status(tmp_path / "journal.db")
        quick.script.clear()
        (second,) = await run(kling, rows(1), tmp_path)

    assert isinstance(first.error, errors.LinkExpired)
    assert not first.error.gone
    assert status.totals == {JobState.SUCCEEDED: 1}
    assert isinstance(second, Succeeded)
    assert_paid_once(quick.books, 1)


async def test_d01_a_job_whose_task_is_gone_ends(
    quick: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the service no longer has the task, the job ends with a remedy; it is neither asked for again nor paid again."""
    # The minute for which a task may be missing, cut short.
    monkeypatch.setattr(poller, "PollBook", partial(PollBook, grace=0.2))
    quick.break_with(LOST)
    async with client_of(quick) as kling:
        await run(kling, rows(1), tmp_path)
        quick.service.tasks.by_id.clear()
        quick.service.tasks.by_external.clear()
        (ended,) = await run(kling, rows(1), tmp_path)
        (after,) = await run(kling, rows(1), tmp_path)
    status = await read_status(tmp_path / "journal.db")

    assert isinstance(ended, Failed)
    assert isinstance(ended.error, errors.LinkExpired)
    assert ended.error.gone
    assert "'retry'" in str(ended.error)
    assert isinstance(after, Skipped)
    assert after.earlier == "failed"
    assert (status.totals, status.failures) == ({JobState.LOST: 1}, {"LinkExpired": 1})
    assert line(tmp_path)["error"]["type"] == "LinkExpired"
    assert_within(quick.books, posts=1)


async def test_d01_a_job_whose_task_vanishes_between_look_and_download_ends(
    quick: FaultServer, tmp_path: Path
) -> None:
    """A dead link whose task cannot be asked for another, because it is gone, ends the job too."""
    quick.change(life=Life(script=("succeed", "vanish")))
    quick.break_with(LOST)
    async with client_of(quick) as kling:
        (ended,) = await run(kling, rows(1), tmp_path)
    status = await read_status(tmp_path / "journal.db")

    assert ended.error.gone
    assert status.totals == {JobState.LOST: 1}


async def test_d01_thirty_days_are_the_end_of_a_dead_link(quick: FaultServer, tmp_path: Path) -> None:
    """A task that is still shown, but whose pictures are no longer kept, ends its job as well."""
    quick.service.clock.skew = -31 * DAY
    quick.break_with(LOST)
    async with client_of(quick) as kling:
        (ended,) = await run(kling, rows(1), tmp_path)
        (after,) = await run(kling, rows(1), tmp_path)

    assert ended.error.gone
    assert isinstance(after, Skipped)


# D03 to D05, N18: what is no picture, or too much of one.


async def test_d03_a_full_check_finds_what_a_header_does_not_tell(quick: FaultServer, tmp_path: Path) -> None:
    """Pixels that are damaged between a good header and a good end are found by decoding, when that is asked for."""
    whole = png()
    at = whole.index(b"IDAT") + 10
    broken = bytearray(whole)
    broken[at : at + 20] = bytes(20)
    quick.change(picture=bytes(broken))

    async with client_of(quick) as kling:
        (plain,) = await run(kling, rows(1), tmp_path / "plain")
        (full,) = await run(kling, rows(1), tmp_path / "full", verify="full")
        quick.change(picture=whole)
        (good,) = await run(kling, rows(1), tmp_path / "full", verify="full")

    assert isinstance(plain, Succeeded)
    assert "cannot be decoded" in str(full.error)
    assert isinstance(good, Succeeded)
    assert files(tmp_path / "full" / "images") == ["row-0_0.png"]


async def test_d04_too_many_bytes_are_never_held(quick: FaultServer, tmp_path: Path) -> None:
    """A result without an end is given up at the cap, and costs neither memory nor a file."""
    host = await asyncio.start_server(endless, "127.0.0.1", 0)
    quick.change(results=f"http://127.0.0.1:{host.sockets[0].getsockname()[1]}")

    async with host, client_of(quick) as kling:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (outcome,) = await run(kling, rows(1), tmp_path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert "at most 67,108,864 bytes" in str(outcome.error)
    assert grown < 20_000, f"{grown} kB"
    assert files(tmp_path / "images") == []


@pytest.mark.parametrize("size", [(14_000, 14_000), (10_000, 9_000)])
async def test_d05_a_bomb_of_pixels_is_refused_from_its_header(
    quick: FaultServer, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Pictures of more pixels than Pillow takes without a warning are never decoded and never kept."""
    head, tail = png(width=1, height=1).split(b"IHDR", 1)
    header = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + tail[8:13]
    checksum = zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    quick.change(picture=head + b"IHDR" + header + checksum + tail[17:])

    async with client_of(quick) as kling:
        (outcome,) = await run(kling, rows(1), tmp_path, verify="full")

    assert f"found {size[0]}x{size[1]}" in str(outcome.error)
    assert files(tmp_path / "images") == []


async def test_n18_a_packed_result_is_never_unpacked(quick: FaultServer, tmp_path: Path) -> None:
    """A result that would unpack to 300 MB is refused by its first bytes."""
    prepare(300_000_000)
    quick.break_with(go.bomb(300_000_000, "result", times=None))

    async with client_of(quick) as kling:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (outcome,) = await run(kling, rows(1), tmp_path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert "gzip" in str(outcome.error)
    assert grown < 20_000, f"{grown} kB"
    assert files(tmp_path / "images") == []


# D06: links to where nobody may go.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"])
async def test_d06_private_hosts_are_never_asked(quick: FaultServer, tmp_path: Path, host: str) -> None:
    """A service on the open internet cannot make the client ask this machine or its network for anything."""
    quick.change(results=f"http://{host}:{quick.port}")
    url = f"http://service.example:{quick.port}"

    async with client_of(quick, connector={"resolver": FlakyResolver(0)}, base_url=url) as kling:
        (outcome,) = await run(kling, rows(1), tmp_path)

    assert "private network" in str(outcome.error)
    assert quick.books.requests["result"] == 0


# D07: no room.


async def test_d07_a_full_disk_stops_the_run_and_loses_nothing(quick: FaultServer, tmp_path: Path) -> None:
    """
    Without room for pictures the run ends with code 1 and leaves whole files only; with room the rest comes.

    No job is paid for twice, and nothing more is paid for once it is known that there is no room.
    """
    quick.change(slots=3, padding=400_000)
    out, manifest = tmp_path / "out", tmp_path / "jobs.jsonl"
    (out / "images").mkdir(parents=True)
    subject = "https://example.com/dress.png"
    lines = [json.dumps({"key": f"k{n}", "subject_images": [subject]}) for n in range(12)]
    manifest.write_text("\n".join(lines), encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "kling_async",
        "run",
        manifest,
        "-o",
        out,
        "--yes",
        "--base-url",
        quick.url,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KLING")}

    ended = await anyio.run_process(
        on_small_disk(out / "images", [*map(str, words), "--slots", "3"]),
        env=environment | {"KLING_API_KEY": quick.service.gate.api_key},
        stderr=subprocess.PIPE,
        check=False,
    )

    said, talk = ended.stdout.decode().split("\n"), ended.stderr.decode()
    first, second = said.index("first 1"), said.index("second 0")
    held = [name.removeprefix("held ") for name in said[first + 1 : second] if name.startswith("held")]
    kept = [name for name in said[second + 1 :] if name.startswith("kept")]
    assert reason() in talk
    assert "\nerror: the picture could not be written" in talk, (
        "the run itself was stopped, not only jobs of it"
    )
    assert len(held) <= 2
    assert all(name.endswith("_0.png") for name in held)
    assert len(kept) == 12
    assert_paid_once(quick.books, 12)


# D08: names and folders.


async def test_d08_folders_that_cannot_be_used_are_found_before_anything_is_paid(
    quick: FaultServer, tmp_path: Path
) -> None:
    """A file, a place where nothing can be written, a link for the pictures, a path with no room for names: all refused at once."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "images").symlink_to(tmp_path / "elsewhere")
    room = 3_950 - len(str(tmp_path))
    deep = tmp_path.joinpath(*["d" * 100] * (room // 101), "e" * (room % 101))

    assert "can be written" in await refused(quick, tmp_path / "file")
    assert "can be written" in await refused(quick, tmp_path / "file" / "out")
    assert "can be written" in await refused(quick, Path("/proc/out"))
    assert "symbolic link" in await refused(quick, tmp_path / "linked")
    assert "shorter path" in await refused(quick, deep, journal=tmp_path / "journal.db")


async def test_d08_a_file_in_the_way_is_found_before_its_job_is_paid(
    quick: FaultServer, tmp_path: Path
) -> None:
    """Files and links under the name of a picture stay as they are; their jobs are not sent, and run once they are gone."""
    images = tmp_path / "out" / "images"
    images.mkdir(parents=True)
    (images / "row-0_0.jpg").write_bytes(b"mine")
    (images / "row-1_0.png").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"secret")

    async with client_of(quick) as kling:
        outcomes = {outcome.key: outcome for outcome in await run(kling, rows(3), tmp_path / "out")}
        sent = quick.books.posts
        for path in (images / "row-0_0.jpg", images / "row-1_0.png"):
            path.unlink()
        again = await run(kling, rows(3), tmp_path / "out")

    assert isinstance(outcomes["row-2"], Succeeded)
    assert "images/row-0_0.jpg" in str(outcomes["row-0"].error)
    assert "images/row-1_0.png" in str(outcomes["row-1"].error)
    assert sent == 1
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert sum(isinstance(outcome, Succeeded) for outcome in again) == 2
    assert_paid_once(quick.books, 3)


async def test_d08_no_key_leads_out_of_the_folder(quick: FaultServer, tmp_path: Path) -> None:
    """Keys that are paths, reserved, very long, or equal but for their case get names of their own inside the folder."""
    keys = ["../up", "/etc/passwd", "..", "nul", "x" * 400, "Dress", "dress", "DRESS", "a\\b", "\u202egnp"]
    work = [job(key=key, prompt=str(number)) for number, key in enumerate(keys)]

    async with client_of(quick) as kling:
        outcomes = await run(kling, work, tmp_path / "out")

    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    names = [Path(file).name for outcome in outcomes for file in outcome.files]
    assert len({name.casefold() for name in names}) == len(keys)
    assert sorted(f"out/images/{name}" for name in names) == [
        name for name in files(tmp_path) if "images" in name
    ]
    assert "Dress_0.png" in names


# D09: watermarks.


async def test_d09_a_missing_watermark_is_told_and_the_picture_kept(
    quick: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the watermarked version was asked for and is not there, the outcome, the results and the log say so."""
    quick.change(life=Life(seconds=0.02, watermark=False))
    async with client_of(quick) as kling:
        (missing,) = await run(kling, rows(1, watermark=True), tmp_path / "missing")
        quick.change(life=Life(seconds=0.02))
        (there,) = await run(kling, rows(1, watermark=True), tmp_path / "there")

    assert isinstance(missing, Succeeded)
    assert missing.warnings == ("picture 0 came without its watermarked version",)
    assert line(tmp_path / "missing")["warnings"] == list(missing.warnings)
    assert "watermarked version" in caplog.text
    assert files(tmp_path / "missing" / "images") == ["row-0_0.png"]
    assert there.warnings == ()
    assert files(tmp_path / "there" / "watermarked") == ["row-0_0.png"]
    assert set(line(tmp_path / "there")["sha256"]) == {"images/row-0_0.png", "watermarked/row-0_0.png"}
