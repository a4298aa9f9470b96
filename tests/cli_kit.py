"""What the command line's tests share: calling it in a process of its own, and small manifests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from jsonschema import Draft202012Validator
from PIL import Image

SCHEMAS = json.loads(
    (Path(__file__).parents[1] / "docs" / "schemas" / "command-line.json").read_text(encoding="utf-8")
)
COMMAND = (sys.executable, "-W", "error", "-m", "kling_async")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that could reach a real account or a terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KLING") and name not in {"NO_COLOR", "CI", "FORCE_COLOR"}
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


@frozen
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def call(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> Said:
    """Run `kling-async` with *words* as a user would, without a terminal."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=cwd,
        env=environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def picture(path: Path, size: tuple[int, int] = (320, 320)) -> Path:
    """Make a picture that the rules allow, unless *size* says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def manifest(path: Path, rows: Sequence[object]) -> Path:
    """Write *rows* as JSONL; texts go in as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def jobs(count: int, **fields: object) -> list[dict[str, object]]:
    """Rows for *count* jobs on `a.png`."""
    return [
        {"key": f"k{number}", "subject_images": ["a.png"], "prompt": "x", **fields} for number in range(count)
    ]


def results(out: Path) -> list[dict[str, Any]]:
    """The lines of `results.jsonl`."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def conform(value: object, name: str) -> None:
    """See that *value* is what the documentation says of *name*, without a field that it does not name."""
    schema = {"$ref": f"#/$defs/{name}", "$defs": _closed(SCHEMAS["$defs"])}
    faults = [
        f"{fault.json_path}: {fault.message}" for fault in Draft202012Validator(schema).iter_errors(value)
    ]
    assert faults == [], f"{name}: {faults}"


def _closed(schema: Any) -> Any:
    """Return *schema* without room for fields that it does not name, which it leaves for later versions."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    further = (
        isinstance(schema.get("description"), str) and "further fields may come" in schema["description"]
    )
    return closed | ({"additionalProperties": False} if "required" in schema and not further else {})
