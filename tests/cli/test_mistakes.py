"""Mistakes in the call: one line that says what was expected, what was found and what to do; exit 2; JSON where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import call, conform

CALLS = [
    ("--vresion", "expected an option of kling-async, found --vresion; did you mean '--version'?"),
    ("frobnicate", "expected a command, found 'frobnicate'; see kling-async --help"),
    ("chekc", "expected a command, found 'chekc'; did you mean 'check'?"),
    ("webhook lisen", "expected a command, found 'lisen'; did you mean 'listen'?"),
    (
        "webhook listen --prot 1",
        "expected an option of kling-async webhook listen, found --prot; did you mean '--port'?",
    ),
    ("check a b c", "expected no further word, found 'b' 'c'; see kling-async check --help"),
    ("check", "expected MANIFEST, found none; for example: kling-async check jobs.jsonl"),
    ("run m", "expected -o/--out, found none; for example: kling-async run jobs.jsonl -o out --emulator"),
    (
        "run m -o x --bugdet 3",
        "expected an option of kling-async run, found --bugdet; did you mean '--budget'?",
    ),
    ("run m -o x -%", "expected an option of kling-async run, found -%; see kling-async run --help"),
    ("run m -o x --budget", "--budget: expected a value, found none; see kling-async run --help"),
    ("run m -o x --yes=3", "--yes: expected no value, found '3'; see kling-async run --help"),
    (
        "run m -o x --budget ten",
        "--budget: expected a whole number of at least 0, found 'ten'; see kling-async run --help",
    ),
    ("run m -o x", "expected --yes or --budget UNITS, since there is no terminal to ask on, found neither"),
    (
        "create -s a -n 77",
        "-n: expected a whole number from 1 to 9, found '77'; see kling-async create --help",
    ),
    ("wait --timeout 0 x", "--timeout: expected a number over 0, found '0'; see kling-async wait --help"),
    ("emulator --seed x", "--seed: expected a whole number, found 'x'; see kling-async emulator --help"),
    ("emulator --speed -1", "expected a speed such as 20 or '20x', 'instant' or 'manual', found '-1'"),
    ("completion bsh", "SHELL: expected one of bash, zsh, fish, found 'bsh'; did you mean 'bash'?"),
    (
        "list --progress x",
        "--progress: expected one of auto, live, plain, json, none, found 'x'; see kling-async list --help",
    ),
    (
        "webhook listen --forward-to x",
        "--forward-to: expected an http(s) URL, found 'x'; write the whole address",
    ),
]


@pytest.mark.parametrize(("words", "told"), CALLS, ids=[words for words, _ in CALLS])
def test_a_mistake_is_told_in_one_voice(tmp_path: Path, words: str, told: str) -> None:
    """As a line on stderr, and with --json, though nobody has read it yet, as a document on stdout beside it."""
    *before, last = words.split(" -", 1)
    asking = [*before[0].split(), "--json", *f"-{last}".split()] if before else [*last.split(), "--json"]
    plain = call(*words.split(), cwd=tmp_path)
    data = call(*asking, cwd=tmp_path)

    assert (plain.code, plain.out, plain.err) == (2, "", f"error: {told}\n")
    assert (data.code, data.err) == (2, plain.err)
    conform(data.json(), "failure")
    assert data.json()["error"] == {"type": "UsageError", "code": None, "message": told, "request_id": None}


def test_a_value_of_an_option_asks_for_no_json(tmp_path: Path) -> None:
    """What stands behind `--` is no option."""
    said = call("check", "a", "--", "--json", cwd=tmp_path)

    assert (said.code, said.out) == (2, "")
    assert "found '--json'" in said.err


@pytest.mark.parametrize("words", [[], ["webhook"]])
def test_a_call_without_a_command_shows_the_help(tmp_path: Path, words: list[str]) -> None:
    """There is nothing wrong yet."""
    said = call(*words, cwd=tmp_path)

    assert f"Usage: {' '.join(['kling-async', *words])} " in said.out + said.err
    assert "error:" not in said.err
