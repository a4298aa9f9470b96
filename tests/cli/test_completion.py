"""`completion`: the scripts, and what a real bash makes of one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import call, environment


@pytest.fixture
def bash(tmp_path: Path) -> list[str]:
    """A bash that finds `kling-async` and has read its script."""
    command = tmp_path / "bin" / "kling-async"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kling_async "$@"\n', encoding="utf-8"
    )
    command.chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(call("completion", "bash", cwd=tmp_path).out, encoding="utf-8")
    return [
        "bash",
        "--norc",
        "--noprofile",
        "-c",
        f"PATH={command.parent}:$PATH; . {script}; " + '"$@"',
        "bash",
    ]


def complete(bash: list[str], *words: str) -> list[str]:
    """What bash offers after *words*, the last of which is being typed."""
    typed = shlex.join(["kling-async", *words[:-1]]) + f" {words[-1]}"
    asked = (
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; COMP_LINE={shlex.quote(typed)}; COMP_POINT={len(typed)}; "
        '_kling_async_completion kling-async; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [*bash, "eval", asked], capture_output=True, text=True, check=False, timeout=60, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(os.name == "nt", reason="bash is another thing there")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("re",), ["retry", "recover"]),
        (("comp",), ["completion"]),
        (("webhook", ""), ["listen"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("run", "m.jsonl", "--bud"), ["--budget"]),
        (("run", "m.jsonl", "--progress", "p"), ["plain"]),
    ],
)
def test_bash_completes(bash: list[str], words: tuple[str, ...], offered: list[str]) -> None:
    """Commands, options and what may be chosen."""
    assert complete(bash, *words) == offered


def test_completing_a_command_imports_none(tmp_path: Path) -> None:
    """A key pressed is not to wait for a client to be loaded."""
    script = (
        "import sys\nfrom kling_async.__main__ import main\nsys.argv = ['kling-async']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('aiohttp' in sys.modules or 'attrs' in sys.modules)\n"
    )
    asked = {"_KLING_ASYNC_COMPLETE": "bash_complete", "COMP_WORDS": "kling-async st", "COMP_CWORD": "1"}

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment(asked),
        cwd=tmp_path,
    )

    assert (done.returncode, done.stdout) == (0, "plain,status\n")


@pytest.mark.parametrize(
    ("shell", "told"), [("zsh", "#compdef kling-async"), ("fish", "complete --no-files")]
)
def test_the_other_shells(tmp_path: Path, shell: str, told: str) -> None:
    """Their scripts are click's, for this command."""
    said = call("completion", shell, cwd=tmp_path)

    assert said.code == 0
    assert told in said.out
    assert "_KLING_ASYNC_COMPLETE" in said.out
