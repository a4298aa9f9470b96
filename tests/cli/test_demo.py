"""`demo`: what it makes, what it shows, how it ends, and that it can be run again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_kit import call, conform, environment, results

from kling_async.cli.drawings import PICTURES, draw_picture
from kling_async.cli.sample import PLANNED_REFUSAL, make_folder, sample_jobs
from kling_async.errors import ConfigError


def test_the_demo_ends_as_planned_and_can_be_run_again(tmp_path: Path) -> None:
    """Exit 0 with one planned refusal and one lost reply included; the second run has nothing to do."""
    first = call("demo", cwd=tmp_path)
    again = call("demo", "--json", cwd=tmp_path)

    lines = results(tmp_path / "kling-demo")
    files = [tmp_path / "kling-demo" / file for line in lines for file in line["files"]]
    assert (first.code, again.code) == (0, 0), first.err
    assert "EMULATED: a local copy of the Kling API at http://127.0.0.1:" in first.err
    assert "23 of 24 jobs done, 46 images" in first.err
    assert "0 sent twice" in first.err
    assert "reply lost after sending; found by its external id, not sent twice" in first.err
    assert "planned refusal" in first.err
    assert "48 images x 16 units = 768 units ≈ $2.69" in first.err
    assert len(files) == 46
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert again.json()["skipped"] == 24
    assert "only what is left" not in first.err + again.err  # nothing is
    assert "kling-async retry kling-demo" in again.err
    assert "slots 0/?" not in again.err
    assert Path(again.json()["gallery"]) == Path("kling-demo/gallery.html")
    assert first.err.splitlines()[-1].split("  (")[0] == "  gallery   kling-async gallery kling-demo --open"
    conform(again.json(), "demo")


def test_the_script_of_the_demo_runs(tmp_path: Path) -> None:
    """The same jobs in Python, in twenty lines or so, from any folder."""
    make_folder(tmp_path / "d")
    path = tmp_path / "d/jobs.jsonl"
    path.write_text(
        "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[13:16]), encoding="utf-8"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "d/run.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    said = sorted(done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert said[0] == "demo-0014 demo-0014_0.png demo-0014_1.png 32"
    assert said[1].startswith("demo-0015 ")
    assert "1301" in said[1]


def test_the_jobs_are_varied_and_one_is_to_be_refused() -> None:
    """24 different jobs of two images; every picture is used."""
    rows = list(sample_jobs())
    used = {name for row in rows for name in [*row["subject_images"], row["scene_image"], row["style_image"]]}  # type: ignore[misc]  # rows are plain objects

    assert len(rows) == len({json.dumps(row) for row in rows}) == 24
    assert {row["n"] for row in rows} == {2}
    assert sum(PLANNED_REFUSAL in str(row["prompt"]) for row in rows) == 1
    assert used == {f"references/{name}" for name in PICTURES}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_keep_the_rules_and_are_always_the_same(name: str) -> None:
    """At least 512 px, not one colour, equal to the pixel each time."""
    first, second = draw_picture(name), draw_picture(name)

    assert min(first.size) >= 512
    assert first.tobytes() == second.tobytes()
    assert len(first.getcolors(1 << 24) or ()) > 50


def test_subjects_stand_on_a_plain_ground() -> None:
    """So that they can be cut out: all corners have one colour."""
    for name in list(PICTURES)[:4]:
        image = draw_picture(name)
        right, bottom = image.width - 1, image.height - 1

        assert (
            len({image.getpixel(corner) for corner in ((0, 0), (right, 0), (0, bottom), (right, bottom))})
            == 1
        )


def test_what_the_user_changed_stays(tmp_path: Path) -> None:
    """Files that are there are not written to; what is missing comes back."""
    make_folder(tmp_path / "d")
    (tmp_path / "d/jobs.jsonl").write_text("mine")
    (tmp_path / "d/run.py").unlink()

    made = make_folder(tmp_path / "d")

    assert made == [tmp_path / "d/run.py"]
    assert (tmp_path / "d/jobs.jsonl").read_text() == "mine"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """Also one with an about.txt of its own, and a file in the way; an empty folder will do."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/about.txt").write_text("My thesis")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()

    for name in ("other", "file"):
        with pytest.raises(ConfigError, match="choose another"):
            make_folder(tmp_path / name)

    assert [path.name for path in (tmp_path / "other").iterdir()] == ["about.txt"]
    assert make_folder(tmp_path / "empty")


def test_the_gallery_opens_where_there_is_a_browser(tmp_path: Path) -> None:
    """Only when asked; without a browser the page is named instead, and the demo has still succeeded."""
    asked = tmp_path / "asked"
    for name in ("xdg-open", "open"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$1" >> {asked}\n', encoding="utf-8")
        program.chmod(0o755)
    seeing = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}

    first = call("demo", "d", "--progress", "none", cwd=tmp_path, env=seeing)
    before = asked.exists()
    opened = call("demo", "d", "--open", "--progress", "none", cwd=tmp_path, env=seeing)
    until = time.monotonic() + 30
    while not (asked.exists() and asked.read_text(encoding="utf-8")) and time.monotonic() < until:
        time.sleep(0.01)  # nobody waits for the browser
    blind = call("gallery", "d", "--open", cwd=tmp_path, env={"PATH": str(tmp_path / "empty"), "BROWSER": ""})

    assert (first.code, opened.code, blind.code, before) == (0, 0, 0, False)
    assert asked.read_text(encoding="utf-8") == f"{tmp_path / 'd' / 'gallery.html'}\n"
    assert "found none; open it yourself: " in blind.err
