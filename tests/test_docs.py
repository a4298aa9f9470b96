"""The documentation is true: its code runs, its links lead somewhere, its tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Coroutine
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kling_async
from kling_async import errors
from kling_async.protocol.codes import CODES
from kling_async.testing import RunningEmulator

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# With "images" behind the language, a block needs that extra, and is left out where the core is tested alone.
_BLOCK = re.compile(r"^```python( images)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_HAS_IMAGES = find_spec("PIL") is not None
# Needs a framework or a cluster: not run here.
_MORE = re.compile(r"^```(?:py|python web)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Whole programs, one a page; tests/web runs them behind their servers.
PROGRAMS = [page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs" / "frameworks").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def _blocks(page: str) -> list[tuple[int, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [each for each in _BLOCK.finditer(text) if _HAS_IMAGES or not each[1]]
    return [(text.count("\n", 0, each.start(2)), each[2]) for each in found]


def _execute(page: str, line: int, code: str, names: dict[str, Any]) -> None:
    tree = ast.parse("\n" * line + code, page)
    outcome = eval(compile(tree, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(outcome):
        _finish(outcome)


def _finish(program: Coroutine[Any, Any, None]) -> None:
    asyncio.run(program)


@pytest.mark.parametrize("page", [name for name in NAMES if _blocks(name)])
def test_code_runs(
    page: str, kling_env: RunningEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python blocks of a page run one after another, as they stand, against the emulator."""
    shutil.copytree(ROOT / "examples" / "pictures", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}

    for line, code in _blocks(page):
        _execute(page, line, code, names)

    assert kling_env.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("page", NAMES)
def test_code_that_needs_more_is_sound(page: str) -> None:
    """What is not run here parses at least, and imports from this package only what there is."""
    text = (ROOT / page).read_text(encoding="utf-8")
    trees = [ast.parse(code, page, type_comments=False) for code in _MORE.findall(text)]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]

    missing = [
        f"{node.module}.{each.name}"
        for node in imports
        if (node.module or "").startswith("kling_async")
        for each in node.names
        if not hasattr(import_module(str(node.module)), each.name)
    ]

    assert missing == []


def test_readme_has_a_program_by_line_thirty() -> None:
    """The README is under 120 lines and its first program starts by line 30 and has at most ten lines of code."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start, code = _blocks("README.md")[0]

    assert len(lines) < 120
    assert start <= 30
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", NAMES + PROGRAMS)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link and picture of a page is a file of the project."""
    text = (ROOT / page).read_text(encoding="utf-8")

    missing = [link for link in _LINK.findall(text) if not ((ROOT / page).parent / link).exists()]

    assert missing == []


def test_the_table_of_codes_is_the_codes() -> None:
    """docs/errors.md shows the table of codes as it is in the code."""
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "tables.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_every_error_is_explained() -> None:
    """docs/errors.md names every error that there is, and no others in its tables."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    by_code = {row.error.__name__ for row in CODES.values()}

    assert shown | by_code | {"KlingError"} == set(errors.__all__)
    assert not shown & by_code


def test_the_changelog_knows_the_version() -> None:
    """The newest version in the changelog is the package's, and versions go down from there."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    numbers = [tuple(map(int, version)) for version in versions]

    assert kling_async.__version__ == ".".join(map(str, numbers[0]))
    assert all(newer > older for newer, older in pairwise(numbers))
