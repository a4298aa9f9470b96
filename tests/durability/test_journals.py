"""J12 to J15: journals that are held, locked, without room, damaged or of another version."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from crash_kit import Order, Work, Zygote, assert_kept, states
from fault_server import Remote

from kling_async.batch.upkeep import read_status
from kling_async.errors import JournalError
from kling_async.journal.journal import Journal
from kling_async.journal.storage import SCHEMA_VERSION, Storage
from kling_async.protocol.lifecycle import JobRecord, JobState

_TESTS = Path(__file__).resolve().parents[1]
_V1 = Path(__file__).with_name("journal_v1.sql")


@contextmanager
def client_at_work(order: Order, server: Remote, creates: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a client as users do; inside, at least *creates* of its creates have been accepted."""
    path = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-m", "crash_kit", order.text()], env={**os.environ, "PYTHONPATH": path}
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while len(server.books()["charges"]) < creates:
                assert process.poll() is None, "the client ended too early"
                assert time.monotonic() < deadline, "the client made no creates"
                time.sleep(0.01)  # another process's doing, which nothing announces
            yield process
        finally:
            process.kill()


def contents(out: Path) -> dict[str, bytes]:
    """Return every byte of the journal in *out*; the file that only names its holder is none of it."""
    return {path.name: path.read_bytes() for path in out.glob("journal.db*") if path.suffix != ".lock"}


# J12: two runners.


def test_j12_a_second_runner_is_told_who_the_first_is(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """While one process runs a journal a second one sends nothing; killed, the first one's lock is gone at once."""
    service.change(life={"seconds": 1000.0})

    with client_at_work(work.order(service), service, 3) as first:
        requests = service.books()["requests"]["create"]
        second = zygote.live(work.order(service))
        recovering = zygote.live(work.order(service, action="recover"))
        after = service.books()["requests"]["create"]
        first.send_signal(signal.SIGKILL)
        first.wait()
        service.change(life={"seconds": 0.02})
        service.order("/end-all", {})
        third = zygote.live(work.order(service))

    assert second.report["error"] == recovering.report["error"] == "JournalError"
    assert f"process {first.pid} on {socket.gethostname()}" in second.report["message"]
    assert after == requests == 3
    assert third.code == 0, third.report
    assert_kept(service, work, undisturbed)


def test_j12_two_journals_are_not_two_runs_of_one_folder(
    zygote: Zygote, service: Remote, work: Work, tmp_path: Path
) -> None:
    """A folder is held too, so a second run or a rebuilding with another journal is refused and sends nothing."""
    service.change(life={"seconds": 1000.0})
    journals = [tmp_path / name for name in ("a.db", "b.db")]
    orders = [work.order(service, options={"journal": str(journal)}) for journal in journals]

    with client_at_work(orders[0], service, 3) as first:
        second = zygote.live(orders[1])
        recovering = zygote.live(work.order(service, action="recover"))
        requests = service.books()["requests"]["create"]

    for refused in (second, recovering):
        assert refused.report["error"] == "JournalError"
        assert refused.report["message"].startswith(
            f"the folder {work.out} is in use by process {first.pid} "
        )
    assert requests == 3
    assert not journals[1].exists()
    assert not (work.out / "journal.db").exists()


@pytest.mark.anyio
async def test_j12_a_journal_of_two_names_is_one(tmp_path: Path) -> None:
    """The lock belongs to the file, also where a link leads to it."""
    (tmp_path / "link.db").symlink_to(tmp_path / "journal.db")
    journal = await Journal.open(tmp_path / "journal.db")

    with pytest.raises(JournalError, match="in use by process"):
        await Journal.open(tmp_path / "link.db")
    await journal.aclose()


# J13: another program locks the file.


@pytest.mark.parametrize("point", ["after-row", "after-intent", "submitted", "succeeded"])
def test_j13_a_locked_journal_stops_the_run_before_anything_is_sent(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], point: str
) -> None:
    """When the journal cannot be written the run ends; no create left whose intent was not on the disk."""
    locked = zygote.live(work.order(service, hold=point, nth=2, busy=50))
    noted = set(states(work.out))
    sent = {entry["label"] for entry in service.books()["log"] if entry["route"] == "create"}

    again = zygote.live(work.order(service))

    assert locked.report["error"] == "JournalError"
    assert "locked by another program" in locked.report["message"]
    assert sent <= {prompt for key, prompt, _ in work.rows if key in noted}
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_j13_a_journal_that_is_locked_from_the_start(zygote: Zygote, service: Remote, work: Work) -> None:
    """A journal that another program has locked is not opened, and nothing is sent."""
    zygote.live(work.order(service, crash="submitted"))
    requests = service.books()["requests"]["create"]

    with closing(sqlite3.connect(work.out / "journal.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        locked = zygote.live(work.order(service, busy=50))

    assert locked.report["error"] == "JournalError"
    assert "locked by another program" in locked.report["message"]
    assert service.books()["requests"]["create"] == requests


# J14: no room.

NO_ROOM: dict[str, dict[str, Any]] = {
    "the database is full": {"pages": 5},
    "the file may not grow": {"file_size": 60_000},
    "the file may hardly grow": {"file_size": 45_000},
}
# Many, so that they need room.
_MANY = (1,) * 60


@pytest.mark.parametrize("room", NO_ROOM.values(), ids=NO_ROOM)
def test_j14_without_room_for_the_intent_nothing_is_sent(
    zygote: Zygote, service: Remote, tmp_path: Path, room: dict[str, Any]
) -> None:
    """A journal without room ends the run; what is in it stays true, and with room again the run goes on."""
    work = Work(out=tmp_path / "out", weights=_MANY)

    full = zygote.live(work.order(service, **room))
    noted = set(states(work.out))
    sent = {entry["label"] for entry in service.books()["log"] if entry["route"] == "create"}
    again = zygote.live(work.order(service))

    assert full.report["error"] == "JournalError"
    assert len(sent) < len(_MANY)
    assert sent <= {prompt for key, prompt, _ in work.rows if key in noted}
    assert again.code == 0, again.report
    assert {charge["label"] for charge in service.books()["charges"]} == {
        prompt for _, prompt, _ in work.rows
    }
    assert len(service.books()["charges"]) == len(_MANY)


# J15: damage.


def _overwrite(path: Path, start: int, size: int, seed: int) -> None:
    noise = random.Random(seed).randbytes(size)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(noise)


DAMAGE = {
    "header": lambda path: _overwrite(path, 0, 16, 1),
    "first page": lambda path: _overwrite(path, 100, 900, 2),
    "second page": lambda path: _overwrite(path, 4096, 4096, 3),
    "third page": lambda path: _overwrite(path, 2 * 4096, 4096, 4),
    "all but the header": lambda path: _overwrite(path, 100, path.stat().st_size - 100, 5),
    "half is missing": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one page is left": lambda path: os.truncate(path, 4096),
    "half a page is left": lambda path: os.truncate(path, 2000),
    "another kind of file": lambda path: path.write_text("this is no journal\n" * 500),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_j15_a_damaged_journal_is_refused_left_alone_and_built_anew(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], damage: Any
) -> None:
    """A damaged journal is never written to; `recover()` finds the tasks and sends nothing; the next run pays once."""
    part = evolve(work.order(service), rows=work.rows[1:5])
    zygote.live(part)
    damage(work.out / "journal.db")
    before, requests = contents(work.out), service.books()["requests"]["create"]

    refused = zygote.live(work.order(service))
    untouched = contents(work.out)
    recovered = zygote.live(work.order(service, action="recover"))
    sent = service.books()["requests"]["create"]
    again = zygote.live(work.order(service))

    assert refused.report["error"] == "JournalError"
    assert "recover" in refused.report["message"]
    assert untouched == before
    assert Path(recovered.report["old"]).read_bytes() == before["journal.db"]
    assert (recovered.report["found"], recovered.report["absent"]) == (4, 2)
    assert sent == requests == 4
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_j15_recover_killed_in_the_middle(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """A `recover()` that was cut short leaves a journal that asks before it sends."""
    service.change(unique=False)
    zygote.live(work.order(service))
    _overwrite(work.out / "journal.db", 4096, 4096, 3)

    killed = zygote.live(work.order(service, action="recover", crash="before-commit"))
    again = zygote.live(work.order(service))

    assert killed.killed
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


@pytest.mark.parametrize("unique", [True, False])
def test_j15_a_list_that_misses_tasks_costs_nothing(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], *, unique: bool
) -> None:
    """Tasks that the list did not show are found when their rows come, before anything is sent."""
    service.change(unique=unique)
    zygote.live(work.order(service))
    service.change(listing={"miss": 1.0})
    (work.out / "journal.db").write_bytes(b"rubbish" * 1000)

    recovered = zygote.live(work.order(service, action="recover"))
    again = zygote.live(work.order(service))

    assert recovered.report["found"] == 0
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_an_emptied_journal_is_one_that_was_lost(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """A journal of no bytes, as a full disk may leave it, makes the run ask before it sends."""
    service.change(unique=False)
    zygote.live(work.order(service))
    os.truncate(work.out / "journal.db", 0)

    again = zygote.live(work.order(service))

    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


# Other versions, other programs.


def journal_of_version_1(path: Path) -> None:
    """Make a journal as the first version of its schema had it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_V1.read_text(encoding="utf-8"))


@pytest.mark.anyio
async def test_a_journal_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Every job of an old journal is there afterwards, as it was; what is new has its default."""
    path = tmp_path / "journal.db"
    journal_of_version_1(path)

    journal = await Journal.open(path)
    records = {record.key: record for record in await journal.ask(lambda storage: list(storage.all()))}
    await journal.aclose()

    assert journal.run == "run-of-old"
    assert {key: record.state for key, record in records.items()} == {
        "row-0": JobState.DONE,
        "row-1": JobState.SUBMITTED,
        "row-2": JobState.SUBMITTING,
        "row-3": JobState.FAILED,
    }
    assert records["row-0"] == JobRecord(
        key="row-0",
        state=JobState.DONE,
        fingerprint="f0",
        external_task_id="ka-0",
        account="default",
        model="kling-v2-1",
        slots=2,
        units=32,
        task_id="t0",
        submitted_at=1790000000.5,
        ended_at=1790000060.25,
        result={"key": "row-0", "status": "succeeded", "task_id": "t0", "files": ["images/row-0_0.png"]},
        stored=True,
    )
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_journal_of_the_second_version_keeps_what_was_spent(tmp_path: Path) -> None:
    """What earlier attempts cost, new in the second version, is there after the next migration."""
    path = tmp_path / "journal.db"
    journal_of_version_1(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE jobs ADD COLUMN spent INTEGER NOT NULL DEFAULT 0")
        db.execute("UPDATE jobs SET spent = 48 WHERE key = 'row-1'")
        db.execute("PRAGMA user_version = 2")
        db.commit()

    storage = Storage.open(path)
    spent = {record.key: record.spent for record in storage.all()}
    units = storage.committed_units()
    storage.close()

    assert spent == {"row-0": 0, "row-1": 48, "row-2": 0, "row-3": 0}
    assert units == 80 + 48


@pytest.mark.anyio
async def test_who_only_looks_at_an_old_journal_changes_nothing(tmp_path: Path) -> None:
    """The status of an old journal can be read, and not a byte of it is written."""
    path = tmp_path / "journal.db"
    journal_of_version_1(path)
    before = path.read_bytes()

    status = await read_status(path)

    assert status.run == "run-of-old"
    assert status.units == 80
    assert status.failures == {"1301": 1}
    assert path.read_bytes() == before


def test_an_old_and_a_new_journal_have_the_same_schema(tmp_path: Path) -> None:
    """What migrations lead to is what a new journal is made with."""
    journal_of_version_1(tmp_path / "old.db")
    schemas = []

    for name in ("old.db", "new.db"):
        Storage.open(tmp_path / name).close()
        with closing(sqlite3.connect(tmp_path / name)) as db:
            columns = db.execute(
                "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('jobs')"
            )
            indexes = db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"
            ).fetchall()
            schemas.append((columns.fetchall(), indexes))

    assert schemas[0] == schemas[1]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "newer version"),
        ("PRAGMA application_id = 77", "another program"),
    ],
)
def test_a_journal_of_tomorrow_or_of_others_is_left_alone(tmp_path: Path, change: str, found: str) -> None:
    """A file of a newer version, and one of another program, is refused and not written to."""
    path = tmp_path / "journal.db"
    journal_of_version_1(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(change)
    before = path.read_bytes()

    for opening in (Storage.open, Storage.read_only):
        with pytest.raises(JournalError, match=found):
            opening(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    """A database without the mark of a journal, but with tables, is somebody else's."""
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE songs (name TEXT)")
    before = path.read_bytes()

    with pytest.raises(JournalError, match="another program"):
        Storage.open(path)

    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_a_journal_that_is_closed_says_so(tmp_path: Path) -> None:
    """Asking a closed journal, or writing to it, is an error at once and no endless wait."""
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.aclose()
    await journal.aclose()

    with pytest.raises(JournalError, match="closed"):
        await journal.ask(Storage.totals)
    with pytest.raises(JournalError, match="closed"):
        await journal.record(JobRecord(key="row-0").moved(JobState.PENDING))
    with pytest.raises(JournalError, match="closed"):
        await journal.flush()
    journal.note(JobRecord(key="row-0").moved(JobState.PENDING))


@pytest.mark.anyio
async def test_only_who_was_killed_leaves_a_journal_unclean(tmp_path: Path) -> None:
    """What the owner says at the end is what the next one finds."""
    seen = []
    for clean in (True, False, True):
        journal = await Journal.open(tmp_path / "journal.db")
        seen.append((journal.is_new, journal.clean))
        journal.clean = clean
        await journal.aclose()

    assert seen == [(True, False), (False, True), (False, False)]
