"""M02: inputs and journals far larger than what is under way."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from crash_kit import Work, Zygote
from fault_server import Remote

from kling_async import MultiImage
from kling_async.batch.manifest import digest_of
from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import JobRecord, JobState

# A nox session asks for a million.
ROWS = int(os.environ.get("KLING_TEST_ROWS", "20000"))


def test_m02_a_million_rows_are_read_as_they_are_needed(zygote: Zygote, service: Remote, work: Work) -> None:
    """The first outcome comes when a few hundred rows are read, and memory has not grown by the input."""
    end = zygote.live(work.order(service, many=1_000_000, leave=1))

    assert end.code == 0, end.report
    assert end.report["drawn"] < 500
    assert end.report["grown"] < 50_000_000


@pytest.mark.timeout(900)
def test_m02_what_is_done_is_passed_over_in_flat_memory(zygote: Zygote, service: Remote, work: Work) -> None:
    """A run of many rows that are done sends nothing and holds none of them; the one that is not done is done."""
    job = MultiImage(subject_images=["https://example.com/dress.png"], prompt="many.", n=1)
    fingerprint = job.fingerprint()
    _fill(work.out, fingerprint, ROWS - 1)

    end = zygote.live(work.order(service, many=ROWS))

    assert end.report["outcomes"] == {"Skipped": ROWS - 1, "Succeeded": 1}
    assert service.books()["requests"]["create"] == 1
    # The keys of a whole run are remembered as hashes, to tell a key that comes twice.
    assert end.report["grown"] < 30_000_000 + 150 * ROWS


@pytest.mark.timeout(900)
def test_m02_the_rows_of_a_manifest_that_are_done_are_passed_over(
    zygote: Zygote, service: Remote, work: Work, tmp_path: Path
) -> None:
    """A manifest is continued behind the many rows of it that are done, in flat memory too."""
    row = {"subject_images": ["https://example.com/dress.png"], "prompt": "many.", "n": 1}
    lines = [json.dumps({"key": f"row-{number:07d}"} | row) for number in range(ROWS)]
    manifest = tmp_path / "jobs.jsonl"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    fingerprint = MultiImage(**row).fingerprint()  # type: ignore[arg-type]  # of many types
    _fill(work.out, fingerprint, ROWS - 1, lines)

    end = zygote.live(work.order(service, manifest=str(manifest), many=ROWS))

    assert end.report["outcomes"] == {"Skipped": ROWS - 1, "Succeeded": 1}
    assert service.books()["requests"]["create"] == 1
    assert end.report["grown"] < 30_000_000 + 100 * ROWS


def _fill(out: Path, fingerprint: str, count: int, lines: Sequence[str] = ()) -> None:
    out.mkdir()
    storage = Storage.open(out / "journal.db")
    storage.set_meta({"run": "run-of-many", "clean": "yes", "rebuilt": "no", "pictures": ""})
    storage.write(
        JobRecord(
            key=f"row-{number:07d}",
            fingerprint=fingerprint,
            task_id=f"t-{number}",
            row=digest_of(lines[number].encode()) if lines else 0,
        )
        .moved(JobState.SUBMITTED)
        .moved(JobState.DONE)
        for number in range(count)
    )
    storage.close()
