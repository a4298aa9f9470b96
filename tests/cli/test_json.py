"""What `--json` gives is what docs/schemas/command-line.json says, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_kit import SCHEMAS, call, conform, jobs, manifest, results
from jsonschema import Draft202012Validator, ValidationError


def test_the_schema_is_one() -> None:
    """By draft 2020-12, with a description of every definition."""
    Draft202012Validator.check_schema(SCHEMAS)

    assert all(schema["description"] for schema in SCHEMAS["$defs"].values())


@pytest.mark.parametrize("value", [{}, {"found": 1, "absent": -1, "old_journal": None}])
def test_what_is_missing_or_wrong_is_found(value: object) -> None:
    """The tests below can fail."""
    with pytest.raises(AssertionError):
        conform(value, "recover")


def test_what_is_not_documented_is_found() -> None:
    """A field that users may come to rely on must be told."""
    value = {"found": 1, "absent": 0, "old_journal": None}
    conform(value, "recover")

    with pytest.raises(AssertionError, match="extra"):
        conform(value | {"extra": 1}, "recover")
    Draft202012Validator({"$ref": "#/$defs/recover", "$defs": SCHEMAS["$defs"]}).validate(
        value | {"extra": 1}
    )
    with pytest.raises(ValidationError):
        Draft202012Validator({"$ref": "#/$defs/recover", "$defs": SCHEMAS["$defs"]}).validate({"found": 1})


def test_single_tasks(folder: Path, service: Any) -> None:
    """create, get, list, wait, in each of their shapes."""

    def said(*words: str) -> list[Any]:
        out = call(*words, "--json", cwd=folder, env=service.env).out
        return [json.loads(line) for line in out.splitlines()]

    (created,) = said("create", "-s", "a.png", "--external-id", "mine")
    (saved,) = said("create", "-s", "a.png", "-n", "2", "-o", "out")
    (got,) = said("get", "mine")
    (listed,) = said("list")
    listed_all = said("list", "--all")
    waited, failed = sorted(said("wait", "mine", "nobody"), key=lambda line: "error" in line)
    (dry,) = said("create", "-s", "a.png", "--dry-run")
    (refused,) = said("create", "-s", "a.png", "-p", "[[refuse]]")

    conform(created, "created")
    for task in (saved, got, *listed_all, waited):
        conform(task, "task")
    conform(listed, "tasks")
    conform(failed, "wait_failure")
    conform(dry, "request")
    conform(refused, "failure")
    assert failed["task_id"] == "nobody"
    assert len(listed_all) == len(listed) == 2


def test_a_run_from_check_to_recovery(folder: Path, service: Any) -> None:
    """check, run, status, gallery, timeline, retry, fetch, recover, and the lines of results.jsonl."""
    rows = [*jobs(2), {"key": "no", "subject_images": ["a.png"], "prompt": "[[refuse]]"}, "nonsense"]
    path = manifest(folder / "m.jsonl", rows)

    def said(*words: str | Path) -> Any:
        return call(*words, "--json", cwd=folder, env=service.env).json()

    conform(said("check", path), "check")
    run = call("run", path, "-o", "out", "--yes", "--json", "--progress", "json", cwd=folder, env=service.env)
    conform(run.json(), "run")
    for text in run.err.splitlines():
        event = json.loads(text)
        conform(event, "progress" if event["event"] == "progress" else f"progress_{event['event']}")
    conform(said("status", "out"), "status")
    conform(said("gallery", "out"), "gallery")
    conform(said("timeline", "out"), "timeline")
    conform(said("retry", "out", "--yes"), "run")
    conform(said("fetch", "out"), "fetch")
    conform(said("recover", "out"), "recover")
    conform(said("status", "nowhere"), "failure")
    for line in results(folder / "out"):
        conform(line, "result")


def test_account_doctor_completion(folder: Path, service: Any) -> None:
    """And their shapes without a service."""
    conform(call("account", "--json", cwd=folder, env=service.env).json(), "account")
    conform(call("doctor", "-o", "out", "--json", cwd=folder, env=service.env).json(), "doctor")
    conform(call("completion", "fish", "--json", cwd=folder).json(), "completion")
    conform(call("account", "--json", cwd=folder).json(), "failure")
