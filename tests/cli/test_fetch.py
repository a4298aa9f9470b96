"""`fetch`, and what `status` says of pictures that the service will not keep for ever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from cli_kit import call, jobs, manifest

from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import JobRecord, JobState

DAY = 86_400


def unsaved(out: Path, days: float, state: JobState = JobState.SUCCEEDED) -> None:
    """Make a journal with one job whose task succeeded, or was made, *days* ago."""
    out.mkdir()
    storage = Storage.open(out / "journal.db")
    then = time.time() - days * DAY
    record = JobRecord(key="k", state=state, task_id="7", submitted_at=then, ended_at=then)
    storage.write([record])
    storage.close()


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.SUBMITTED])
def test_status_warns_before_pictures_are_deleted(tmp_path: Path, state: JobState) -> None:
    """Within the last week of the thirty days, and after them, with what to do; before that the date is enough."""
    unsaved(tmp_path / "early", 20, state)
    unsaved(tmp_path / "late", 27.5, state)
    unsaved(tmp_path / "over", 31, state)

    early, late, over = (call("status", name, "--json", cwd=tmp_path) for name in ("early", "late", "over"))

    assert early.err == ""
    assert (early.json()["unsaved"], round(early.json()["expires_in_days"])) == (1, 10)
    assert "deletes the first of them in 3 days" in late.err
    assert "kling-async fetch late" in late.err
    assert round(late.json()["expires_in_days"], 1) == 2.5
    assert "which ended on" in over.err
    assert over.json()["expires_in_days"] < 0


def test_what_was_deleted_is_fetched_again(folder: Path, service: Any) -> None:
    """`fetch` brings back what is missing under the names of the run, tells it, and pays for nothing."""
    path = manifest(folder / "m.jsonl", jobs(3))
    run = call("run", path, "-o", "out", "--name", "{index}-{key}", "--yes", cwd=folder, env=service.env)
    (folder / "out/images/0-k1.png").unlink()

    said = call("fetch", "out", "--verify", "full", "--json", cwd=folder, env=service.env)
    again = call("fetch", "out", cwd=folder, env=service.env)

    assert (run.code, said.code, again.code) == (0, 0, 0), said.err
    assert said.json() == {"whole": 2, "fetched": ["images/0-k1.png"], "failed": [], "unfinished": 0}
    assert "3 pictures whole, 0 fetched" in again.err
    assert (folder / "out/images/0-k1.png").is_file()
    assert service.creates == 3


def test_what_cannot_be_fetched_ends_with_one(folder: Path, service: Any) -> None:
    """A picture that the service no longer has is told by the key of its job."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    (folder / "out/images/k0_0.png").unlink()
    other = {**service.env, "KLING_BASE_URL": service.env["KLING_BASE_URL"] + "/nowhere"}

    said = call("fetch", "out", cwd=folder, env=other)
    none = call("fetch", "elsewhere", cwd=folder, env=service.env)

    assert said.code == 1
    assert "k0: " in said.err
    assert none.code == 3
    assert "found none" in none.err


def test_an_emulated_run_has_nothing_to_fetch_from(folder: Path, service: Any) -> None:
    """The service is never asked for tasks of an emulator."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--emulator", cwd=folder)

    said = call("fetch", "out", cwd=folder, env=service.env)

    assert said.code == 3
    assert "emulated" in said.err


def test_a_journal_elsewhere_is_found_again(folder: Path, service: Any) -> None:
    """`status`, `fetch`, `retry` and `recover` know where `run --journal` has put it."""
    rows = [*jobs(1), {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}]
    path = manifest(folder / "m.jsonl", rows)
    call("run", path, "-o", "out", "--journal", "j/run.db", "--yes", cwd=folder, env=service.env)

    status = call("status", "out", "--json", cwd=folder)
    found = call("fetch", "out", "--json", cwd=folder, env=service.env)
    again = call("retry", "out", "--yes", cwd=folder, env=service.env)
    recovered = call("recover", "out", "--json", cwd=folder, env=service.env)

    assert status.json()["totals"] == {"done": 1, "failed": 1}
    assert found.json()["whole"] == 1
    assert "1 failed job to try again" in again.err
    assert recovered.json()["old_journal"].startswith(str(folder / "j" / "run.db.damaged"))
    assert not (folder / "out/journal.db").exists()
