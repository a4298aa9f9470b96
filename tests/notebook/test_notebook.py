"""Notebooks, executed by a kernel without a browser: the example, and the command line in a cell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from kling_async.testing import RunningEmulator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def execute(notebook: Path) -> list[list[dict[str, Any]]]:
    """Execute *notebook* where it lies and return the outputs of its cells of code."""
    program = "from nbclient.cli import main; main()"
    command = [sys.executable, "-c", program, "--inplace", "--timeout=100", str(notebook)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


def written(outputs: list[dict[str, Any]]) -> str:
    """Return what *outputs* show as text."""
    return "".join("".join(each.get("text", "")) for each in outputs)


def test_the_example(kling_env: RunningEmulator, tmp_path: Path) -> None:
    """The notebook runs as it is: one line that was shown anew until all was done, and four pictures."""
    shutil.copytree(EXAMPLES / "pictures", tmp_path / "pictures")
    notebook = Path(shutil.copy(EXAMPLES / "08_notebook.ipynb", tmp_path))

    cost, progress, pictures = execute(notebook)

    assert "at most 64 units" in str(cost)
    (line,) = progress
    assert "4 of 4 done, 0 failed, 64 units" in "".join(line["data"]["text/markdown"])
    assert sum("image/png" in each["data"] for each in pictures) == 4
    assert kling_env.tasks_created == 4


def test_the_example_is_kept_clean() -> None:
    """No outputs, counts or machine's names are kept with it, and it begins by saying what will be seen."""
    notebook = json.loads((EXAMPLES / "08_notebook.ipynb").read_text(encoding="utf-8"))

    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook["cells"])
    assert "You will see " in "".join(notebook["cells"][0]["source"])
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_a_command_in_a_cell_writes_plain_lines(kling_env: RunningEmulator, tmp_path: Path) -> None:
    """`!kling-async run` has a terminal that cannot move its cursor: it gets lines, and nothing that moves one."""
    row = {"key": "k", "subject_images": ["https://example.com/a.png"]}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "run",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": f"!{sys.executable} -m kling_async run jobs.jsonl -o out --yes",
    }
    notebook = tmp_path / "cell.ipynb"
    notebook.write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8"
    )

    (outputs,) = execute(notebook)

    text = written(outputs)
    assert "1 job done" in text
    assert "\x1b[1A" not in text
    assert "\x1b[2K" not in text
    assert kling_env.tasks_created == 1
