"""Emulated and real results on the command line: said as soon as it is known, and never in one folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_kit import call, conform, jobs, manifest
from fault_server import Remote


@pytest.fixture
def real() -> Iterator[Remote]:
    """A service that is no emulator of ours, in a process of its own."""
    with Remote.spawn() as running:
        yield running


def env_of(real: Remote) -> dict[str, str]:
    return {"KLING_BASE_URL": real.url, "KLING_API_KEY": real.api_key}


def paid(real: Remote) -> int:
    posts: int = real.books()["posts"]
    return posts


def states(out: Path) -> list[str]:
    with closing(sqlite3.connect(out / "journal.db")) as journal:
        return [state for (state,) in journal.execute("SELECT state FROM jobs")]


def test_an_emulator_by_its_address_is_an_emulator(folder: Path, service: Any) -> None:
    """The banner, the cost, the end, `--json`, `status` and the gallery say so."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--yes", "--json", cwd=folder, env=service.env)
    status = call("status", "out", cwd=folder)
    told = call("status", "out", "--json", cwd=folder)

    assert said.err.startswith(f"EMULATED: a local copy of the Kling API at {service.env['KLING_BASE_URL']}")
    assert "(emulated, nothing is charged)" in said.err
    assert "$0.06 (emulated)" in said.err
    assert said.json()["emulated"] is told.json()["emulated"] is True
    assert status.out.startswith("EMULATED")
    assert "$0.06 (emulated)" in status.out
    assert '"emulated": true' in (folder / "out/gallery.html").read_text("utf-8").replace('":true', '": true')
    conform(told.json(), "status")


def test_a_service_is_none(folder: Path, real: Remote) -> None:
    """Nothing says EMULATED where the service answers, on this machine or not."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--yes", "--json", cwd=folder, env=env_of(real))
    status = call("status", "out", "--json", cwd=folder)

    assert (said.code, paid(real)) == (0, 1)
    assert "emulated" not in said.err.lower()
    assert said.json()["emulated"] is status.json()["emulated"] is False


def test_what_an_emulator_made_is_not_done_for_the_service(folder: Path, service: Any, real: Remote) -> None:
    """The same command with another KLING_BASE_URL is refused before a row counts as done, and changes nothing."""
    path = manifest(
        folder / "m.jsonl", [*jobs(1), {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}]
    )
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    before = {file.name: file.read_bytes() for file in (folder / "out").glob("*.json*")}

    run = call("run", path, "-o", "out", "--yes", cwd=folder, env=env_of(real))
    retry = call("retry", "out", "--yes", cwd=folder, env=env_of(real))
    fetch = call("fetch", "out", cwd=folder, env=env_of(real))
    recover = call("recover", "out", cwd=folder, env=env_of(real))

    for said in (run, retry, fetch, recover):
        assert said.code == 3, said.err
        assert "found emulated ones" in said.err
        assert "done" not in said.err
    assert paid(real) == 0
    assert {file.name: file.read_bytes() for file in (folder / "out").glob("*.json*")} == before
    assert sorted(states(folder / "out")) == ["done", "failed"]


def test_what_the_service_made_is_not_done_for_an_emulator(folder: Path, service: Any, real: Remote) -> None:
    """Nor the other way round, however the emulator is reached."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=env_of(real))

    by_address = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    of_its_own = call("run", path, "-o", "out", "--emulator", cwd=folder)

    assert (by_address.code, of_its_own.code) == (3, 3)
    assert "found real ones" in by_address.err
    assert "found real ones" in of_its_own.err
    assert service.creates == 0


def test_emulators_take_turns(folder: Path, service: Any) -> None:
    """One by its address and those of the command's own continue each other's folders."""
    codes = []
    for count, words, env in (
        (1, ["--yes"], service.env),
        (2, ["--emulator"], None),
        (3, ["--yes"], service.env),
    ):
        path = manifest(folder / "m.jsonl", jobs(count))
        said = call("run", path, "-o", "out", *words, "--json", cwd=folder, env=env)
        codes.append((said.code, said.json()["succeeded"], said.json()["skipped"]))

    assert codes == [(0, 1, 0), (0, 1, 1), (0, 1, 2)]


def test_folders_of_earlier_versions_go_on(folder: Path, service: Any, real: Remote) -> None:
    """What does not say whose it is continues, unless its command had an emulator of its own."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "by-address", "--yes", cwd=folder, env=service.env)
    call("run", path, "-o", "of-its-own", "--emulator", cwd=folder)
    marked = call("run", path, "-o", "of-its-own", "--yes", cwd=folder, env=env_of(real))
    for out in ("by-address", "of-its-own"):
        kept = json.loads((folder / out / "run.json").read_bytes())
        del kept["emulator"]
        (folder / out / "run.json").write_text(json.dumps(kept))

    goes_on = call("run", path, "-o", "by-address", "--yes", cwd=folder, env=service.env)
    refused = call("run", path, "-o", "of-its-own", "--yes", cwd=folder, env=env_of(real))

    assert (marked.code, goes_on.code, refused.code) == (3, 0, 3)
    assert "1 done" in goes_on.err
    assert "found emulated ones" in refused.err
    assert paid(real) == 0


def test_a_service_that_is_not_there_keeps_the_folder_shut(folder: Path, service: Any) -> None:
    """Nothing is done for somebody who does not answer: exit code 5."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)

    said = call(
        "run",
        path,
        "-o",
        "out",
        "--yes",
        "--json",
        cwd=folder,
        env={**service.env, "KLING_BASE_URL": "http://127.0.0.1:9"},
    )

    assert said.code == 5
    assert said.json()["skipped"] == 0
