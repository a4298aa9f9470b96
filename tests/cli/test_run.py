"""`run` from outside: exit codes, what is sent, what is told and where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cli_kit import COMMAND, call, environment, jobs, manifest, results

HALF_PAIR = {"KLING_ACCESS_KEY": "an-access-key-of-nobody"}


def test_all_rows_succeed(folder: Path, service: Any) -> None:
    """Exit 0, a picture and a line for each, data on stdout only as JSON."""
    path = manifest(folder / "m.jsonl", jobs(4))

    said = call("run", path, "-o", "out", "--yes", "--json", cwd=folder, env=service.env)

    assert (said.code, said.json()["succeeded"], said.json()["units"]) == (0, 4, 64)
    assert len(list((folder / "out/images").iterdir())) == 4
    assert {line["key"] for line in results(folder / "out")} == {"k0", "k1", "k2", "k3"}
    assert "4 images x 16 units = 64 units" in said.err


def test_without_json_nothing_is_on_stdout(folder: Path, service: Any) -> None:
    """All talk is on stderr, without colours when it is no terminal."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--yes", cwd=folder, env={**service.env, "FORCE_COLOR": "1"})

    assert (said.code, said.out) == (0, "")
    assert "\x1b" not in said.err


def test_bad_rows_are_outcomes_and_the_others_run(folder: Path, service: Any) -> None:
    """Exit 1, each bad row has a line with its place, nothing is sent for it."""
    rows = [
        *jobs(2),
        "nonsense",
        {"key": "ten", "subject_images": ["a.png"], "n": 10},
        {"key": "no", "subject_images": ["no.png"]},
    ]
    path = manifest(folder / "m.jsonl", rows)

    said = call("run", path, "-o", "out", "--yes", "--json", cwd=folder, env=service.env)

    errors = {line["key"]: line["error"]["message"] for line in results(folder / "out") if line["error"]}
    assert (said.code, said.json()["succeeded"], said.json()["failed"]) == (1, 2, 3)
    assert errors["line-3"].startswith("line 3: row: expected JSON")
    assert errors["ten"].startswith("line 4: n: expected 1 to 9, found 10")
    assert "no file" in errors["no"]
    assert service.creates == 2


def test_strict_sends_nothing_if_any_row_is_bad(folder: Path, service: Any) -> None:
    """Exit 2, with every bad row; a bad picture counts."""
    rows = [*jobs(2), {"key": "no", "subject_images": ["no.png"]}, {**jobs(1, n=10)[0], "key": "ten"}]
    path = manifest(folder / "m.jsonl", rows)

    said = call("run", path, "-o", "out", "--yes", "--strict", cwd=folder, env=service.env)

    assert said.code == 2
    assert "no  line 3: subject_images[0]" in said.err
    assert "ten  line 4: n: expected 1 to 9, found 10" in said.err
    assert said.err.splitlines()[-1].endswith("found 2 bad of 4; nothing was sent")
    assert service.emulator.requests == []


def test_running_again_continues(folder: Path, service: Any) -> None:
    """What ended is not sent again, from whatever folder the command is called; `retry` sends what failed."""
    path = manifest(folder / "m.jsonl", [*jobs(3), {"key": "late", "subject_images": ["late.png"]}])
    first = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    (folder / "late.png").write_bytes((folder / "a.png").read_bytes())

    again = call("run", "../m.jsonl", "-o", ".", "--yes", cwd=folder / "out", env=service.env)
    retried = call("retry", "out", "--yes", cwd=folder, env=service.env)
    nothing = call("run", path, "-o", "out", "--yes", "--json", cwd=folder, env=service.env)

    assert (first.code, again.code, retried.code, nothing.code) == (1, 1, 0, 0)
    assert "4 jobs, 3 done, 1 failed before (again: kling-async retry .), 0 to do" in again.err
    assert "kling-async retry" in again.err
    assert nothing.json()["skipped"] == 4
    assert service.creates == 4


def test_a_failed_row_that_was_corrected_is_led_to_retry(folder: Path, service: Any) -> None:
    """`run` refuses it free of charge and names the command, which makes it alone as it is now."""
    bad = {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}
    path = manifest(folder / "m.jsonl", [*jobs(2), bad])
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    manifest(path, [*jobs(2), bad | {"prompt": "mended"}])
    before = service.accepted

    again = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    sent = service.accepted
    command = next(line for line in again.err.splitlines() if line.startswith("failed ")).split("  (")[0]
    words = command.removeprefix("failed    kling-async ").split()
    retried = call(*words, "--yes", "--json", cwd=folder, env=service.env)

    assert (again.code, words) == (1, ["retry", "out"])
    assert "it failed before: 'kling-async retry' runs it as it is now" in again.err
    assert (before, sent, service.accepted) == (2, 2, 3)
    assert (retried.code, retried.json()["succeeded"]) == (0, 1)


def test_a_row_that_changed_is_an_error_unless_it_is_updated(folder: Path, service: Any) -> None:
    """Nothing is paid for by a slip of the pen."""
    path = manifest(folder / "m.jsonl", jobs(2))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    manifest(path, jobs(2, n=2))

    refused = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    updated = call("run", path, "-o", "out", "--yes", "--update", cwd=folder, env=service.env)

    assert (refused.code, updated.code) == (1, 0)
    assert "--update" in refused.err
    assert service.creates == 4


def test_status_tells_where_a_run_stands(folder: Path, service: Any) -> None:
    """From the journal, by state and by code."""
    rows = [*jobs(2), {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}]
    path = manifest(folder / "m.jsonl", rows)
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)

    said = call("status", "out", "--json", cwd=folder).json()
    none = call("status", "nowhere", cwd=folder)

    assert (said["totals"], said["failures"], said["units"]) == ({"done": 2, "failed": 1}, {"1301": 1}, 32)
    assert none.code == 3


def test_recover_builds_a_new_journal_and_sends_nothing(folder: Path, service: Any) -> None:
    """Then the same command finds everything done for and pays for nothing twice."""
    path = manifest(folder / "m.jsonl", jobs(3))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    (folder / "out/journal.db").write_bytes(b"damaged beyond repair" * 100)

    refused = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    recovered = call("recover", "out", "--json", cwd=folder, env=service.env)
    again = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)

    assert (refused.code, recovered.code, again.code) == (3, 0, 0), recovered.err
    assert "recover" in refused.err
    assert recovered.json()["found"] == 3
    assert service.accepted == 3


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_is_a_mistake(folder: Path, service: Any, content: str) -> None:
    """Exit 2 with one line, from `run` and from `check`; no folder is made, nothing sent."""
    (folder / "m.csv").write_text(content)

    run = call("run", "m.csv", "-o", "out", "--yes", cwd=folder, env=service.env)
    checked = call("check", "m.csv", cwd=folder)

    assert (run.code, checked.code, service.creates) == (2, 2, 0)
    assert run.err == checked.err
    assert run.err.startswith("error: manifest: expected at least one row, found none in ")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", ["none.jsonl", "empty"])
def test_a_manifest_that_cannot_be_read_is_a_mistake_of_the_call(
    folder: Path, service: Any, name: str
) -> None:
    """Exit 2 with one line; no folder is made. A folder without pictures is such a one."""
    (folder / "empty").mkdir()

    said = call("run", name, "-o", "out", "--yes", cwd=folder, env=service.env)

    assert said.code == 2
    assert said.err.startswith("error: manifest: expected a")
    assert said.err.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("env", "words", "told"),
    [
        (HALF_PAIR, [], "KLING_SECRET_KEY"),
        ({}, [], "KLING_API_KEY"),
        ({"KLING_API_KEY": "x" * 20, "KLING_BASE_URL": "api.example"}, [], "https://"),
        ({"KLING_API_KEY": "x" * 20}, ["--base-url", "api.example/v1"], "https://"),
        ({"KLING_API_KEY": "x" * 20, "KLING_SLOTS": "many"}, [], "slots"),
    ],
)
def test_configuration_that_cannot_work(
    folder: Path, env: dict[str, str], words: list[str], told: str
) -> None:
    """Exit 3 with one line that says what is missing, and no secret."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--yes", *words, cwd=folder, env=env)

    assert said.code == 3
    assert told in said.err
    assert "x" * 20 not in said.err
    assert "an-access-key-of-nobody" not in said.err
    assert said.err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="folders are protected in another way there")
def test_an_output_that_cannot_be_written_to(folder: Path, service: Any) -> None:
    """Exit 3 before anything is sent: a file in the way, and a place that is none."""
    path = manifest(folder / "m.jsonl", jobs(1))
    (folder / "file").write_text("")

    in_the_way = call("run", path, "-o", "file", "--yes", cwd=folder, env=service.env)
    nowhere = call("run", path, "-o", "/proc/nowhere/out", "--yes", cwd=folder, env=service.env)

    assert (in_the_way.code, nowhere.code) == (3, 3)
    assert "output folder: expected" in in_the_way.err
    assert service.creates == 0


def test_without_a_terminal_spending_must_be_allowed(folder: Path, service: Any) -> None:
    """Neither --yes nor --budget: exit 2, and nothing was sent. A budget is leave enough."""
    path = manifest(folder / "m.jsonl", jobs(1))

    refused = call("run", path, "-o", "out", cwd=folder, env=service.env)
    allowed = call("run", path, "-o", "out", "--budget", "16", cwd=folder, env=service.env)

    assert (refused.code, allowed.code) == (2, 0)
    assert "--yes or --budget" in refused.err
    assert service.creates == 1


def test_a_spent_budget_ends_the_run(folder: Path, service: Any) -> None:
    """Exit 4 after what fits was done, saying how to go on; never more is sent than the budget allows."""
    path = manifest(folder / "m.jsonl", jobs(5, n=2))

    said = call("run", path, "-o", "out", "--budget", "70", "--json", cwd=folder, env=service.env)

    assert (said.code, said.json()["error"]["type"]) == (4, "BudgetSpent")
    assert service.accepted == said.json()["succeeded"] == 2
    assert "go on     kling-async run" in said.err


def test_an_account_without_units_ends_the_run(folder: Path, service: Any) -> None:
    """Exit 4 with the service's code and its remedy."""
    service.emulator.faults = "1102"
    path = manifest(folder / "m.jsonl", jobs(3))

    said = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)

    assert said.code == 4
    assert "code 1102" in said.err
    assert "request id" in said.err


def test_wrong_credentials_end_the_run(folder: Path, service: Any) -> None:
    """Exit 3 when the service does not take the key."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call(
        "run",
        path,
        "-o",
        "out",
        "--yes",
        cwd=folder,
        env={**service.env, "KLING_API_KEY": "another-key-altogether"},
    )

    assert said.code == 3
    assert "another-key-altogether" not in said.err


def test_the_emulator_option_says_so_and_needs_no_key(folder: Path) -> None:
    """EMULATED is on the screen; nothing else is configured."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--emulator", cwd=folder)

    assert said.code == 0, said.err
    assert "EMULATED" in said.err


def test_progress_as_json_lines(folder: Path, service: Any) -> None:
    """Every line on stderr is JSON, also what is told before and after; the last progress has all jobs done."""
    path = manifest(folder / "m.jsonl", [*jobs(2), "nonsense"])

    said = call("run", path, "-o", "out", "--yes", "--progress", "json", cwd=folder, env=service.env)
    mistake = call("run", path, "--progress=json", cwd=folder)

    lines = [json.loads(line) for line in said.err.splitlines()]
    assert (lines[0]["event"], lines[0]["message"].split()[0]) == ("said", "EMULATED:")
    assert json.loads(mistake.err)["message"].startswith("error: expected -o")
    assert [line for line in lines if line["event"] == "progress"][-1]["done"] == 3
    assert [line["key"] for line in lines if line["event"] == "failed"] == ["line-3"]


def test_quiet_says_nothing_when_all_is_well(folder: Path, service: Any) -> None:
    """Neither stream has a word."""
    path = manifest(folder / "m.jsonl", jobs(1))

    said = call("run", path, "-o", "out", "--yes", "--quiet", cwd=folder, env=service.env)

    assert (said.code, said.out, said.err) == (0, "", "")


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_stops_submitting_and_collects(
    folder: Path, slow_service: Any, number: int, code: int
) -> None:
    """What runs is brought home, the rest stays to do, the way to go on is told, and the next run finishes it."""
    path = manifest(folder / "m.jsonl", jobs(40))
    run = begin(folder, path, slow_service)

    run.send_signal(number)
    _, said = run.communicate(timeout=40)
    done = len(results(folder / "out"))

    assert run.returncode == code
    assert f"resume: kling-async run {path} -o out" in said
    assert 0 < done < 40
    assert done == slow_service.accepted


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
def test_the_second_signal_leaves_and_names_what_runs_on(folder: Path, slow_service: Any) -> None:
    """It does not wait for tasks, and tells how to get them."""
    path = manifest(folder / "m.jsonl", jobs(40))
    run = begin(folder, path, slow_service)

    run.send_signal(signal.SIGINT)
    assert run.stderr is not None
    while "stopping" not in run.stderr.readline():
        pass
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=40)

    assert run.returncode == 130
    assert "run on at the service and are in the journal" in said
    assert "Traceback" not in said


def begin(folder: Path, path: Path, service: Any) -> subprocess.Popen[str]:
    """Start a run and return when its first tasks are accepted."""
    words = [*COMMAND, "run", str(path), "-o", "out", "--yes", "--slots", "9", "--progress", "none"]
    run = subprocess.Popen(
        words,
        cwd=folder,
        env=environment(service.env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while service.accepted < 9:
        assert time.monotonic() < deadline, "nothing was sent"
        assert run.poll() is None, run.communicate()
    return run
