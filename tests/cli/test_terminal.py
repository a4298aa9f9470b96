"""A run as a terminal gets it: live where it can be, plain elsewhere, without colour where nobody wants any."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_kit import COMMAND, environment, jobs, manifest

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")

_MOVES = re.compile(r"\x1b\[\d*[AK]|\x1b\[2K|\x1b\[\?25")
# Bold is no colour.
_COLOURS = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3|4|9|10)[0-7](?:;[0-9;]*)?m")


def seen(folder: Path, env: Mapping[str, str], *words: str) -> str:
    """What a run of two emulated jobs shows on a terminal as its stderr."""
    path = manifest(folder / "m.jsonl", jobs(2))
    master, slave = pty.openpty()
    command = [*COMMAND, "run", str(path), "-o", "out", "--emulator", "--yes", *words]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment(), "TERM": "xterm-256color", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    chunks = []
    # A terminal whose last writer has gone ends with an error on Linux and with nothing elsewhere.
    while True:
        try:
            chunk = os.read(master, 65_536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    assert process.wait(60) == 0, chunks
    return b"".join(chunks).decode()


@pytest.mark.parametrize(
    ("env", "words", "moves", "colours"),
    [
        ({}, [], True, True),
        ({"NO_COLOR": "1"}, [], True, False),
        ({"TERM": "dumb"}, [], False, False),
        ({"TERM": "dumb"}, ["--progress", "live"], False, False),
        ({"CI": "true", "NO_COLOR": "1"}, [], False, False),
        ({}, ["--progress", "plain"], False, False),
        ({"NO_COLOR": "1"}, ["--progress", "none"], False, False),
    ],
)
def test_what_a_terminal_is_sent(
    folder: Path, env: dict[str, str], words: list[str], *, moves: bool, colours: bool
) -> None:
    """The cursor moves and colours show only where they are wanted and understood; the end is told in all cases."""
    said = seen(folder, env, *words)

    assert bool(_MOVES.search(said)) == moves
    assert bool(_COLOURS.search(said)) == colours
    assert "2 jobs done" in said


def test_a_quiet_run_leaves_the_terminal_alone(folder: Path) -> None:
    """Not a byte."""
    assert seen(folder, {}, "--quiet") == ""
