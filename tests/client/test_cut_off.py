"""What was cut off is free again: journals, folders, ids and connections, whatever their threads had got to."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cancel_kit import WAYS, Moment, cut_by, parts_in
from socket_kit import PATH, Asked, Plain, answer, client, job, leaves_nothing, task, until

from kling_async.batch.racks import FolderRack
from kling_async.batch.sinks import Folder
from kling_async.emulator import Emulator
from kling_async.errors import ConfigError, JournalError, SubmissionUnknown, TaskNotFound
from kling_async.journal.journal import Journal
from kling_async.journal.locks import OwnerLock

pytestmark = pytest.mark.anyio


async def _open_and_close(path: Path) -> None:
    await (await Journal.open(path)).aclose()


@pytest.mark.parametrize("moment", ["waiting", "answered"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_opening_gives_the_journal_back(way: str, moment: Moment, tmp_path: Path) -> None:
    """Whoever leaves while a journal is opened or closed has given its lock back when the cancellation is over."""
    path = tmp_path / "journal.db"

    async with leaves_nothing():
        for at in range(1, 20):
            cut = await cut_by(way, _open_and_close(path), at, moment)
            await until(lambda: not any(each.name == "kling-journal" for each in threading.enumerate()))
            await _open_and_close(path)
            if not cut.done:
                break

    assert at > 2


async def test_a_slow_opening_that_was_cancelled_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a lock that the thread takes only after the cancellation is given back before the caller has left."""
    path, taking = tmp_path / "journal.db", threading.Event()
    take = OwnerLock.take

    def slowly(lock: OwnerLock) -> None:
        taking.set()
        time.sleep(0.2)  # in the journal's opening thread, as a slow disk would
        take(lock)

    monkeypatch.setattr(OwnerLock, "take", slowly)
    async with leaves_nothing():
        opening = asyncio.ensure_future(Journal.open(path))
        await until(taking.is_set)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await _open_and_close(path)


async def test_nobody_takes_over_what_is_still_being_opened(tmp_path: Path) -> None:
    """While a journal is open a second opening is refused, and cancelling the second does not free the first."""
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)

    second = asyncio.ensure_future(Journal.open(path))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    with pytest.raises(JournalError, match="in use"):
        await Journal.open(path)
    await journal.aclose()


async def test_a_folder_that_was_closed_opens_nothing_any_more(tmp_path: Path) -> None:
    """What a folder's thread opens after the folder was closed is closed again; lines come to no closed file."""
    async with leaves_nothing():
        folder = Folder(tmp_path / "out", FolderRack(tmp_path / "out"))
        await folder.open()
        journal = await Journal.open(tmp_path / "journal.db")
        folder.close()
        await folder.mend(journal)
        await folder.write([{"key": "a"}])
        await journal.aclose()

    assert not (tmp_path / "out" / "results.jsonl").exists()


async def test_a_client_closed_under_a_batch_frees_everything(tmp_path: Path) -> None:
    """A batch whose client is closed at any moment, also while its journal opens, leaves nothing and can be run again."""
    async with Emulator(speed="instant", paint="stamp") as emulator:
        for pause in (0.0, 0.001, 0.005, 0.02, 0.05, 0.1):
            out = tmp_path / str(pause)
            async with leaves_nothing():
                kling = client(emulator)
                batch = kling.batch([job(key=str(number)) for number in range(3)], out=out)
                taking = asyncio.ensure_future(_take_all(batch))
                await asyncio.sleep(pause)
                await kling._engine.aclose(grace=0.0)
                await kling.aclose()
                ended = await asyncio.wait_for(taking, 10)
            assert isinstance(ended, ConfigError) or ended is None
            assert parts_in(out) == []
            async with (
                client(emulator) as kling,
                kling.batch([job(key=str(n)) for n in range(3)], out=out) as again,
            ):
                assert len([outcome async for outcome in again]) == 3

    names = [each.external_task_id for each in emulator.tasks]
    assert len(names) == len(set(names)) == 18


async def test_an_id_that_made_no_task_is_free_at_once(tmp_path: Path) -> None:
    """Once a left-over create turns out to have made no task, the next line of the program may use its id again."""
    silent = [True]

    def say(asked: Asked) -> bytes:
        if asked.method == "POST":
            return Plain.HANG if silent[0] else answer(task(external_task_id="order-1"))
        return answer(None, code=1203, status=404)

    async with Plain(say) as server:
        kling = client(server, journal=tmp_path / "journal.db")
        work = asyncio.ensure_future(kling.images.multi_image.create(job(external_task_id="order-1")))
        await until(lambda: server.of("POST"))
        await kling._engine.aclose(grace=0.0)
        await kling.aclose()
        with pytest.raises(SubmissionUnknown):
            _ = await work
        silent[0] = False
        async with client(server, journal=tmp_path / "journal.db") as kling:
            (left,) = await kling.images.multi_image.pending()
            with pytest.raises(TaskNotFound):
                await left
            again = await kling.images.multi_image.create(job(external_task_id="order-1"))

    assert again.task_id == "t-1"


async def test_an_emulator_takes_a_client_that_goes_away() -> None:
    """A client that leaves in the middle of a body is no defect of the emulator, and logs none."""
    async with leaves_nothing(), Emulator(speed="instant", paint="stamp") as emulator:
        port = int(emulator.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {emulator.api_key}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 99999\r\n\r\n{{".encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)


async def _take_all(batch: Any) -> Exception | None:
    try:
        async for _ in batch:
            pass
    except ConfigError as error:
        return error
    return None
