"""The CI run itself: it must not be green when anything in it is red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[1] / ".ci"
PASSED = 'echo "=== 3 passed in 0.10s ==="'
SKIPPED = 'echo "SKIPPED [1] t.py:1: why"; echo "=== 3 passed, 1 skipped in 0.10s ==="'


def _run(folder: Path, *, tests: str, nox: str = "true", demo: str = "true") -> tuple[int, str]:
    shutil.copytree(CI, folder / ".ci")
    blocks = [
        f"<!-- {name} -->\n```sh\n{command}\n```\n<!-- end of {name} -->\n"
        for name, command in (("tests", tests), ("demo", demo))
    ]
    (folder / "README.md").write_text("".join(blocks), encoding="utf-8")
    _program(folder / ".venv" / "bin" / "nox", f"echo sessions: $*\n{nox}")
    # What it would install where it is missing.
    for name in ("chromium", "chromedriver", "redis-server"):
        _program(folder / "bin" / name, "true")
    env = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [folder / ".ci" / "run"], capture_output=True, text=True, check=False, timeout=60, env=env
    )
    return result.returncode, result.stdout


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_all_is_well(tmp_path: Path) -> None:
    """The README's command is run, then the other sessions, and pytest's closing line is the last one."""
    code, said = _run(tmp_path, tests=PASSED)

    assert code == 0
    assert "sessions: -s lint examples " in said
    assert "sessions: -s coverage proofs " in said
    assert said.splitlines()[-1] == "=== 3 passed in 0.10s ==="


@pytest.mark.parametrize(
    "steps",
    [
        {"tests": f"{PASSED} && false"},
        {"tests": f"false; {PASSED}"},
        {"tests": PASSED, "nox": "false"},
        {"tests": PASSED, "nox": 'case "$*" in *lint*) exit 1;; esac'},
        {"tests": PASSED, "nox": 'case "$*" in *proofs*) exit 1;; esac'},
        {"tests": PASSED, "demo": "false"},
        {"tests": SKIPPED},
        {"tests": "true"},
    ],
    ids=[
        "tests",
        "before the tests",
        "nox",
        "lint",
        "proofs",
        "demo",
        "a skip that is not listed",
        "no tests",
    ],
)
def test_one_thing_is_wrong(tmp_path: Path, steps: dict[str, str]) -> None:
    """Whichever step fails, or if a test is skipped or none was run, the whole fails."""
    code, _ = _run(tmp_path, **steps)

    assert code != 0


def test_a_listed_skip_is_no_failure(tmp_path: Path) -> None:
    """A skip whose line is in the list is allowed."""
    report, listed = tmp_path / "report", tmp_path / "skips.txt"
    report.write_text("SKIPPED [1] t.py:1: why\n=== 3 passed, 1 skipped in 0.10s ===\n", encoding="utf-8")
    listed.write_text("# skips\nt.py:1 # needs a real key\n", encoding="utf-8")

    result = subprocess.run(
        [sys.executable, CI / "skips.py", report, listed], capture_output=True, check=False
    )

    assert result.returncode == 0
