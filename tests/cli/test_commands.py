"""The other commands from outside: check, create, get, list, wait, emulator, and what all share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_kit import COMMAND, call, conform, environment, jobs, manifest, picture


def test_a_mistyped_command_gets_the_nearest(tmp_path: Path) -> None:
    """Exit 2 with the name that was meant."""
    said = call("chekc", cwd=tmp_path)

    assert said.code == 2
    assert "did you mean 'check'?" in said.err


def test_version(tmp_path: Path) -> None:
    """It is that of the package."""
    from kling_async import __version__

    assert call("--version", cwd=tmp_path).out == f"kling-async {__version__}\n"


def test_check_finds_every_bad_row_and_picture(folder: Path) -> None:
    """Exit 2, a line for each, the cost of what is good; no key is needed."""
    (folder / "gif.png").write_bytes(b"GIF89a" + b"\0" * 100)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:20])
    (folder / "big.png").write_bytes((folder / "a.png").read_bytes().ljust(10_600_000, b"\0"))
    picture(folder / "small.png", (299, 400))
    picture(folder / "long.png", (300, 780))
    names = ["none.png", "gif.png", "cut.png", "big.png", "small.png", "long.png"]
    rows = [*jobs(2, n=3), *({"key": name, "subject_images": ["a.png", name]} for name in names), "[]"]
    path = manifest(folder / "m.jsonl", rows)

    said = call("check", path, cwd=folder)
    data = call("check", path, "--json", cwd=folder).json()

    assert said.code == 2
    *told, verdict, cost = said.out.splitlines()
    assert [line.split()[0] for line in told] == [*names, "line-9"]
    assert all(f"line {number}: " in line for number, line in enumerate(told, start=3))
    assert (verdict, cost.split(":")[0]) == ("9 rows, 7 bad", "cost of the good rows")
    assert (data["rows"], data["good"], data["bad"], data["units"]) == (9, 2, 7, 96)
    assert [problem["line"] for problem in data["problems"]] == list(range(3, 10))
    assert all(problem["remedy"] for problem in data["problems"])


def test_check_of_a_good_manifest(folder: Path) -> None:
    """Exit 0; pictures given as URL are said to be unchecked."""
    path = manifest(folder / "m.jsonl", [*jobs(1), {"subject_images": ["https://example.com/x.png"]}])

    said = call("check", path, cwd=folder)

    assert said.code == 0
    assert "2 rows, all good" in said.out
    assert "1 picture given as URL not looked at" in said.out


def test_check_tells_an_unknown_column_once(folder: Path) -> None:
    """And what else is wrong with each row; as data every row has its problem."""
    path = folder / "m.csv"
    path.write_text("key,subject_images,promt\na,a.png,x\nb,none.png,x\nc,a.png,x\nd,a.png,\n", "utf-8")

    said = call("check", path, cwd=folder)
    data = call("check", path, "--json", cwd=folder).json()

    assert said.code == 2
    assert said.out.count("promt: expected a known field, found an unknown one; did you mean 'prompt'?") == 1
    assert "b  line 3: subject_images[0]: expected a readable picture file" in said.out
    assert "promt: an unknown field in 3 rows" in said.out
    assert "4 rows, 3 bad" in said.out
    assert [(each["key"], each["field"]) for each in data["problems"]] == [
        ("a", "promt"),
        ("b", "promt"),
        ("b", "subject_images[0]"),
        ("c", "promt"),
    ]


def test_check_of_a_picture(folder: Path) -> None:
    """Exit 2 with one line."""
    said = call("check", "a.png", cwd=folder)

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "found a picture" in said.err


def test_check_tells_what_a_run_has_left(folder: Path, service: Any) -> None:
    """With -o, what was done or failed costs nothing more; the rest is counted and priced; nothing is sent."""
    refused = {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}
    path = manifest(folder / "m.jsonl", [*jobs(2), refused])
    call("run", path, "-o", "out", "--yes", cwd=folder, env=service.env)
    manifest(path, [*jobs(3, n=1), refused, {"key": "late", "subject_images": ["a.png"], "n": 4}])
    sent = service.creates

    said = call("check", path, "-o", "out", cwd=folder)
    data = call("check", path, "-o", "out", "--json", cwd=folder).json()
    whole = call("check", path, "-o", "elsewhere", "--json", cwd=folder).json()

    assert (data["done"], data["failed_before"], data["running"], data["todo"]) == (2, 1, 0, 2)
    assert (data["images_todo"], data["units_todo"], data["units"]) == (5, 80, 128)
    assert "5 jobs, 2 done, 1 failed before (again: kling-async retry out), 2 to do" in said.out
    assert "cost of what is to do: 5 images x 16 units = 80 units" in said.out
    assert (whole["todo"], whole["units_todo"]) == (5, 128)
    assert service.creates == sent
    assert not (folder / "elsewhere").exists()


def test_check_of_a_store_wants_the_journal(folder: Path) -> None:
    """A store keeps pictures only, so that a price without a journal would be a guess."""
    said = call("check", manifest(folder / "m.jsonl", jobs(1)), "-o", "s3://bucket/x", cwd=folder)

    assert said.code == 2
    assert "--journal FILE" in said.err


def test_create_get_list_wait(folder: Path, service: Any) -> None:
    """One task through all commands, by both of its ids, read as JSON."""
    created = call(
        "create", "-s", "a.png", "-p", "x", "-n", "2", "--external-id", "mine-1", cwd=folder, env=service.env
    )
    task_id = created.out.strip()
    got = call("get", "mine-1", "--json", cwd=folder, env=service.env).json()
    listed = call("list", "--json", cwd=folder, env=service.env).json()
    waited = call("wait", task_id, "-o", "out", "--json", cwd=folder, env=service.env).json()
    shown = call("list", "--all", cwd=folder, env=service.env)

    assert created.code == 0
    assert got["task_id"] == task_id == listed[0]["task_id"] == waited["task_id"]
    assert waited["status"] == "succeed"
    assert len(waited["files"]) == 2
    assert all((folder / file).is_file() for file in waited["files"])
    assert task_id in shown.out


def test_create_can_wait_and_save(folder: Path, service: Any) -> None:
    """With -o the pictures are there when the command ends."""
    said = call("create", "-s", "a.png", "-o", "out", "--json", cwd=folder, env=service.env)

    assert said.code == 0
    assert (folder / said.json()["files"][0]).is_file()


def test_create_can_name_what_it_saves(folder: Path, service: Any) -> None:
    """Pictures are called as --name says; a name that is taken, or without a folder, is refused before anything is spent."""
    words = ("create", "-s", "a.png", "-n", "2", "--json", "--name")

    said = call(*words, "dress v1.2", "-o", "out", cwd=folder, env=service.env)
    again = call(*words, "dress v1.2", "-o", "out", cwd=folder, env=service.env)
    nowhere = call(*words, "dress", cwd=folder, env=service.env)

    assert said.code == 0, said.err
    assert sorted(Path(file).name for file in said.json()["files"]) == [
        "dress v1.2_0.png",
        "dress v1.2_1.png",
    ]
    assert (again.code, nowhere.code, service.creates) == (2, 2, 1)
    assert "expected one that is free in out, found dress v1.2_" in again.err


def test_a_dry_run_shows_the_request_without_key_or_picture(folder: Path) -> None:
    """Nothing is sent, and base64 is elided."""
    said = call(
        "create",
        "-s",
        "a.png",
        "--style",
        "https://example.com/s.png",
        "-p",
        "é",
        "--dry-run",
        "--json",
        cwd=folder,
    )

    request = said.json()
    assert said.code == 0
    assert request["url"].endswith("/v1/images/multi-image2image")
    assert request["body"]["prompt"] == "é"
    assert request["body"]["subject_image_list"][0]["subject_image"].startswith(
        "(base64 of a.png: png 320x320"
    )
    assert request["body"]["style_image"] == "https://example.com/s.png"
    assert request["headers"]["Authorization"] == "Bearer (elided)"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create", "-p", "x"], 2, "subject_images"),
        (["create", "-s", "none.png"], 2, "no file"),
        (["create", "-s", "a.png", "-n", "10"], 2, "10"),
        (["create", "-s", "a.png", "--aspect-ratio", "5:4"], 2, "5:4"),
        (["create", "-s", "a.png", "--external-id", "a/b"], 2, "external_task_id"),
        (["create", "-s", "a.png", "--extra", "{"], 2, "extra"),
        (["create", "-s", "a.png", "-p", "[[refuse]]"], 1, "code 1301"),
        (["create", "-s", "a.png", "-p", "[[risk]]", "--wait"], 1, "risk control"),
        (["get", "no-such-task"], 1, "no-such-task"),
        (["wait", "no-such-task"], 1, "no-such-task"),
        (["list", "--page-size", "501"], 2, "501"),
        (["get", "x", "--base-url", "ftp://x"], 3, "https://"),
        (["get", "x", "--base-url", "http://127.0.0.1:9"], 5, "127.0.0.1"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(
    folder: Path, service: Any, words: list[str], code: int, told: str
) -> None:
    """And one plain message, without a traceback."""
    said = call(*words, cwd=folder, env=service.env)

    assert said.code == code, said.err
    assert told in said.err
    assert "Traceback" not in said.err


def test_errors_are_data_too_for_who_reads_json(folder: Path, service: Any) -> None:
    """Type, code, message and request id."""
    said = call("create", "-s", "a.png", "-p", "[[refuse]]", "--json", cwd=folder, env=service.env)

    error = said.json()["error"]
    assert (error["type"], error["code"]) == ("ContentRefusal", 1301)
    assert error["request_id"]


def test_dotenv_fills_in_what_the_environment_does_not_say(folder: Path, service: Any) -> None:
    """The command line reads `.env` here; another key in the real environment keeps its credentials out."""
    lines = [f"{name}='{value}'" for name, value in service.env.items()]
    (folder / ".env").write_text("\n".join([*lines, "PATH=/nowhere"]))

    alone = call("list", "--json", cwd=folder)
    beside = call(
        "list",
        "--json",
        cwd=folder,
        env={"KLING_ACCESS_KEY": "a-key-of-nobody", "KLING_SECRET_KEY": "s" * 32},
    )

    assert alone.code == 0, alone.err
    assert beside.code == 3


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
def test_the_emulator_serves_until_it_is_interrupted(folder: Path) -> None:
    """Its address and keys are data; with chaos it misbehaves as told; Ctrl-C is its natural end."""
    words = [*COMMAND, "emulator", "--json", "--speed", "instant", "--paint", "stamp", "--chaos", "1303:x1"]
    served = subprocess.Popen(
        words, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert served.stdout is not None
    told = json.loads(served.stdout.readline())
    conform(told, "emulator")

    said = call(
        "create",
        "-s",
        "a.png",
        cwd=folder,
        env={"KLING_BASE_URL": told["url"], "KLING_API_KEY": told["api_key"]},
    )
    served.send_signal(signal.SIGINT)
    _, talk = served.communicate(timeout=20)

    assert (said.code, served.returncode) == (0, 0)
    assert "EMULATED" in talk


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--chaos", "nonsense"], "nonsense"),
        (["--speed", "fast"], "fast"),
    ],
)
def test_an_emulator_that_cannot_be_set_up_so(tmp_path: Path, words: list[str], told: str) -> None:
    """Exit 2 naming what is wrong."""
    said = call("emulator", *words, cwd=tmp_path)

    assert said.code == 2
    assert told in said.err
