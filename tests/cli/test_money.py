"""What a run is said to cost, and what it says at its end: no word of it may make somebody pay by mistake."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from cli_kit import COMMAND, Said, call, environment, jobs, manifest, results

from kling_async.cli.earlier import States, open_states
from kling_async.cli.environment import Connection
from kling_async.cli.estimate import estimate
from kling_async.cli.run import run_command
from kling_async.cli.running import Settings
from kling_async.journal.journal import Journal
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import JobRecord, JobState

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and pipes are another thing there")


def last_words(said: Said, name: str) -> list[str]:
    """Return the words of the command that the end of a run offers under *name*; empty if it offers none."""
    lines = [line for line in said.err.splitlines() if line.startswith(f"{name} ")]
    return shlex.split(lines[-1].split("  (")[0])[2:] if lines else []


def test_update_tells_what_it_will_spend(folder: Path, service: Any) -> None:
    """A row that changed since it was done is no longer done: `check` and `run` say so, and name the price of --update."""
    path = manifest(folder / "m.jsonl", jobs(3))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    manifest(path, [*jobs(2, n=2), jobs(3)[2]])

    checked = call("check", path, "-o", "out", "--json", cwd=folder)
    priced = call("check", path, "-o", "out", "--update", "--json", cwd=folder)
    refused = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    updated = call("run", path, "-o", "out", "--yes", "--update", cwd=folder, env=service.env)

    plain, dear = checked.json(), priced.json()
    assert (checked.code, plain["bad"], plain["changed"], plain["done"], plain["todo"]) == (2, 2, 2, 1, 0)
    assert [problem["key"] for problem in plain["problems"]] == ["k0", "k1"]
    assert (priced.code, dear["done"], dear["todo"], dear["anew"], dear["units_todo"]) == (0, 1, 2, 2, 64)
    assert "3 jobs, 1 done, 2 changed since and refused" in refused.err
    assert "cost      up to 0 images" in refused.err
    assert "3 jobs, 1 done, 2 to do, 2 of them anew" in updated.err
    assert "cost      up to 4 images x 16 units = 64 units" in updated.err
    assert service.accepted == 5


def test_the_same_jobs_in_other_words_are_done(folder: Path, service: Any) -> None:
    """Order of fields, other names and another format change no job."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    other = folder / "m.csv"
    other.write_text("n,prompt,subject_image_1,id\n1,x,a.png,k0\n", encoding="utf-8")

    said = call("check", other, "-o", "out", "--json", cwd=folder)

    assert (said.code, said.json()["done"], said.json()["changed"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("state", "same", "changed", "updated"),
    [
        (JobState.PENDING, "todo", "todo", "todo"),
        (JobState.DONE, "done", "changed", "anew"),
        (JobState.FAILED, "failed", "failed", "anew"),
        (JobState.LOST, "failed", "failed", "anew"),
        (JobState.SUBMITTED, "running", "changed", "changed"),
        (JobState.UNKNOWN, "running", "changed", "changed"),
    ],
)
def test_a_row_is_told_as_the_run_will_take_it(
    tmp_path: Path, state: JobState, same: str, changed: str, updated: str
) -> None:
    """By state and content: refused without --update, made anew with it, and never anew while its task runs."""
    job = MultiImage(key="k", subject_images=["a.png"], prompt="x")
    other = MultiImage(key="k", subject_images=["a.png"], prompt="y")

    async def write() -> None:
        journal = await Journal.open(tmp_path / "j.db")
        await journal.record(JobRecord(key="k", state=state, fingerprint=job.fingerprint()))
        await journal.aclose()

    def group(asked: MultiImage, *, update: bool) -> str:
        with open_states(tmp_path / "j.db", update=update) as states:
            return states.of("k", 1, tmp_path, lambda: asked)

    anyio.run(write)

    assert (group(job, update=False), group(other, update=False)) == (same, changed)
    assert (group(job, update=True), group(other, update=True)) == (same, updated)
    assert States().of("k", 1, tmp_path, lambda: job) == "todo"


def test_the_command_that_continues_is_whole(tmp_path: Path) -> None:
    """Every option of `run` that says what to do or spend is in it, in words that a shell takes as they were given."""
    words = {
        "--journal": "my run.db", "--name": "{key}-{index}", "--slots": "4", "--budget": "200", "--split": None,
        "--in-order": None, "--update": None, "--strict": None, "--yes": None, "--emulator": None, "--engine": "dask://h:1",
        "--slots-store": "redis://h", "--scene": "/s p.png", "--style": "/t.png", "--prompt": "it's", "--negative-prompt": "no",
        "-n": "2", "--aspect-ratio": "1:1", "--model": "kling-v2-1", "--fit": "auto", "--verify": "full",
        "--base-url": "http://h:1/v1", "--region": "cn",
    }  # fmt: skip
    settings = Settings(
        manifest=tmp_path / "a folder", out=Path("an out"), journal=Path("my run.db"), name="{key}-{index}", slots=4, budget=200,
        split=True, in_order=True, update=True, strict=True, yes=True, emulator=True, engine="dask://h:1",
        slots_store="redis://h", fit="auto", verify="full", connection=Connection(base_url="http://h:1/v1", region="cn"),
        shared={
            "scene_image": "/s p.png", "style_image": "/t.png", "prompt": "it's", "negative_prompt": "no", "n": 2,
            "aspect_ratio": "1:1", "model_name": "kling-v2-1",
        },
    )  # fmt: skip
    given = [word for pair in words.items() for word in pair if word is not None]
    expected = run_command.make_context("run", [str(tmp_path / "a folder"), "-o", "an out", *given])

    told = shlex.split(settings.again())

    assert told[:2] == ["kling-async", "run"]
    assert run_command.make_context("run", told[2:]).params == expected.params
    left_out = {"--json", "--quiet", "--progress", "--help", "--out"}
    names = {name for param in run_command.params for name in param.opts if name.startswith("--")}
    assert names - left_out <= set(words) | {"--n"}, "a new option must be in the command that continues"
    assert "--yes" not in settings.retry()
    assert "--budget 200" in settings.retry()


@POSIX
def test_an_interrupted_budget_is_neither_spent_nor_forgotten(folder: Path, slow_service: Any) -> None:
    """After Ctrl-C no error blames the budget, and the way to go on has it still."""
    path = manifest(folder / "m.jsonl", jobs(40))
    words = [
        "run",
        str(path),
        "-o",
        "out",
        "--slots",
        "4",
        "--budget",
        "200",
        "--in-order",
        "--progress",
        "plain",
    ]
    run = begin(folder, words, slow_service)

    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=40)

    continued = f"kling-async run {path} -o out --slots 4 --budget 200 --in-order"
    assert run.returncode == 130
    assert f"resume: {continued}\n" in said
    assert f"go on     {continued}\n" in said
    assert "error:" not in said
    assert 0 < slow_service.accepted < 12


@POSIX
def test_a_signal_that_changed_nothing_is_no_interruption(folder: Path, slow_service: Any) -> None:
    """Where all was sent already and gets done, the run ends as any other: 0, and nothing to go on with."""
    path = manifest(folder / "m.jsonl", jobs(3))
    run = begin(folder, ["run", str(path), "-o", "out", "--yes", "--json"], slow_service)
    while slow_service.accepted < 3:
        assert run.poll() is None

    run.send_signal(signal.SIGTERM)
    out, said = run.communicate(timeout=40)

    assert run.returncode == 0, said
    assert "go on" not in said
    assert (json.loads(out)["succeeded"], json.loads(out)["interrupted"]) == (3, False)


@POSIX
def test_a_run_goes_on_when_nobody_reads_what_it_says(folder: Path, slow_service: Any) -> None:
    """`2>&1 | head -1` ends neither the run nor its exit code; its page is written."""
    path = manifest(folder / "m.jsonl", jobs(2))
    run = begin(folder, ["run", str(path), "-o", "out", "--yes"], slow_service)
    assert run.stderr is not None

    run.stderr.close()
    run.communicate(timeout=40)

    assert run.returncode == 0
    assert len(results(folder / "out")) == 2
    assert (folder / "out/gallery.html").exists()


@POSIX
def test_data_that_nobody_reads_ends_as_in_any_pipe(folder: Path) -> None:
    """141 for who closed stdout, and no complaint of the interpreter."""
    path = manifest(folder / "m.jsonl", [{"key": f"k{number}"} for number in range(20_000)])
    run = subprocess.Popen(
        [*COMMAND, "check", str(path)], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stderr is not None

    run.stdout.close()

    assert run.wait(40) == 141
    assert run.stderr.read() == b""
    run.stderr.close()


def test_a_done_row_that_changed_is_not_sent_round_in_circles(folder: Path, service: Any) -> None:
    """What is offered at the end helps: not `retry`, which finds nothing, but --update; the key stands there once."""
    path = manifest(folder / "m.jsonl", jobs(2))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    manifest(path, jobs(2, n=2))

    refused = call("run", path, "-o", "out", "--budget", "500", cwd=folder, env=service.env)
    anew = call(*last_words(refused, "changed"), "--json", cwd=folder, env=service.env)

    assert (refused.code, last_words(refused, "failed")) == (1, [])
    assert last_words(refused, "changed") == ["run", str(path), "-o", "out", "--update", "--budget", "500"]
    assert "failed k0: key: expected the same job as before under this key" in refused.err
    assert (anew.code, anew.json()["succeeded"]) == (0, 2)


def test_run_status_retry_and_check_count_alike(folder: Path, service: Any) -> None:
    """Rows that are no jobs are told apart from jobs that failed, by the same number everywhere."""
    refused = {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}
    rows = [*jobs(3), refused, "nonsense", {"key": "ten", "subject_images": ["a.png"], "n": 10}]
    path = manifest(folder / "m.jsonl", rows)

    checked = call("check", path, "--json", cwd=folder).json()
    run = call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    told = call("status", "out", cwd=folder)
    status = call("status", "out", "--json", cwd=folder).json()
    retried = call("retry", "out", "--yes", cwd=folder, env=service.env)

    assert (checked["good"], checked["bad"], checked["units"]) == (4, 2, 64)
    assert "6 jobs, 2 bad and refused (which: kling-async check), 4 to do" in run.err
    assert "up to 4 images x 16 units = 64 units" in run.err
    assert "3 failed (2 bad rows, nothing sent), 48 units spent" in run.err
    assert (status["rows"], status["bad"], status["todo"], status["totals"]) == (
        6,
        2,
        0,
        {"done": 3, "failed": 1},
    )
    assert told.out.splitlines()[1] == (
        "manifest   m.jsonl: 6 jobs, 3 done, 1 failed before (again: kling-async retry out), "
        "2 bad and refused (which: kling-async check), 0 to do"
    )
    assert "committed         48  units" in told.out
    assert "1 failed job to try again" in retried.err
    assert "6 jobs, 3 done, 2 bad and refused (which: kling-async check), 1 to do" in retried.err


def test_status_without_its_manifest(folder: Path, service: Any) -> None:
    """The journal alone still tells where the jobs stand."""
    path = manifest(folder / "m.jsonl", jobs(1))
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    path.unlink()

    said = call("status", "out", cwd=folder)
    data = call("status", "out", "--json", cwd=folder).json()

    assert said.out.splitlines()[1] == "done               1  made and saved"
    assert (data["rows"], data["todo"], data["totals"]) == (None, None, {"done": 1})


def test_an_estimate_counts_a_key_once(tmp_path: Path) -> None:
    """The second row of a key is refused by the run, so it costs nothing."""
    path = manifest(tmp_path / "m.jsonl", [*jobs(2), *jobs(1, n=9)])

    found = estimate(path)

    assert (found.todo, found.bad, found.images) == (2, 1, 2)


def begin(folder: Path, words: list[str], service: Any) -> subprocess.Popen[str]:
    """Start a run and return when its first task is accepted."""
    run = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=environment(service.env), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not service.accepted:
        assert run.poll() is None, run.communicate()[1]
    return run
