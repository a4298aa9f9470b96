"""Pictures on the command line: folders as manifests, `--fit auto`, `--verify full`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_kit import call, manifest, picture, results
from PIL import Image


@pytest.fixture
def photos(folder: Path) -> Path:
    """A folder of three pictures beside a style, one of which must be made to fit."""
    for name in ("b.png", "a.JPG"):
        picture(folder / "photos" / name)
    Image.new("RGB", (400, 400), "red").save(folder / "photos" / "c.webp")
    (folder / "photos" / "list.txt").write_text("not a picture", encoding="utf-8")
    return folder / "photos"


@pytest.mark.usefixtures("photos")
def test_a_folder_is_a_manifest(folder: Path, service: Any) -> None:
    """Each picture is a row named by its file, with the shared fields; the run continues, and so does `retry`."""
    words = (
        "run",
        "photos",
        "-o",
        "out",
        "--style",
        "a.png",
        "--prompt",
        "as a painting",
        "-n",
        "2",
        "--yes",
    )

    first = call(*words, "--json", cwd=folder, env=service.env)
    refused = call("retry", "out", "--yes", cwd=folder, env=service.env)
    again = call(*words, "--json", cwd=folder, env=service.env)

    rows = {row["key"]: row["status"] for row in results(folder / "out")}
    assert (first.code, first.json()["succeeded"], first.json()["images"]) == (1, 2, 4)
    assert rows == {"a": "succeeded", "b": "succeeded", "c": "failed"}
    assert refused.code == 1
    assert (again.json()["skipped"], again.json()["failed_before"]) == (3, 1)
    assert "WebP" in next(row["error"]["message"] for row in results(folder / "out") if row["key"] == "c")
    saved = json.loads((folder / "out/command.json").read_text(encoding="utf-8"))
    assert saved["shared"] == {"style_image": str(folder / "a.png"), "prompt": "as a painting", "n": 2}


def test_check_shows_what_would_be_changed(photos: Path, folder: Path) -> None:
    """Without --fit a row is bad, with it the change is a line on stdout; a style used by all is told once."""
    Image.new("RGB", (200, 200), "red").save(folder / "small.png")

    plain = call("check", photos, cwd=folder)
    fitted = call("check", photos, "--fit", "auto", "--style", "small.png", cwd=folder)

    assert plain.code == 2
    assert "c.webp" in plain.out
    assert fitted.code == 0
    assert fitted.out.splitlines()[:2] == [
        "a  style_image (small.png): enlarged from 200x200 to 300x300",
        "c  subject_images[0] (c.webp): WebP saved as JPEG of quality 95",
    ]
    assert "2 pictures to be changed" in fitted.out


def test_retry_makes_pictures_fit_as_the_run_did(photos: Path, folder: Path, service: Any) -> None:
    """How pictures were taken in is kept with the run."""
    (photos / "d.png").write_bytes(b"")
    first = call("run", photos, "-o", "out", "--fit", "auto", "--yes", "--json", cwd=folder, env=service.env)
    Image.new("RGBA", (400, 400), "red").save(photos / "d.png")

    again = call("retry", "out", "--yes", "--json", cwd=folder, env=service.env)

    assert (first.json()["succeeded"], first.json()["failed"]) == (3, 1)
    assert (again.code, again.json()["fitted"]) == (0, 1)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("check", "m.jsonl", "--prompt", "x"), "folder"),
        (("check", "empty"), "found none"),
        (("check", "m.jsonl", "--fit", "never"), "auto"),
    ],
)
def test_slips_are_told(folder: Path, words: tuple[str, ...], found: str) -> None:
    """Shared fields for a file of rows, a folder without pictures and unknown words end with exit 2."""
    manifest(folder / "m.jsonl", [])
    (folder / "empty").mkdir()

    said = call(*words, cwd=folder)

    assert said.code == 2
    assert found in said.err


def test_two_files_of_one_name_are_told_apart(photos: Path, folder: Path) -> None:
    """Two pictures that differ in their ending only would have one key, so the second is refused with what to do."""
    picture(photos / "a.png")

    said = call("check", photos, "--fit", "auto", cwd=folder)

    assert said.code == 2
    assert "a.png beside a.JPG" in said.out
    assert "rename one of the two" in said.out


def test_a_full_look_is_offered(folder: Path) -> None:
    """Damage that the header does not show is found with --verify full."""
    data = bytearray(b"\x89PNG")
    Image.effect_noise((600, 500), 90).save(folder / "noise.png")
    data = bytearray((folder / "noise.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    (folder / "noise.png").write_bytes(data)
    path = manifest(folder / "m.jsonl", [{"key": "k", "subject_images": ["noise.png"]}])

    assert call("check", path, cwd=folder).code == 0
    full = call("check", path, "--verify", "full", cwd=folder)

    assert full.code == 2
    assert "decoded" in full.out


def test_a_dry_run_shows_what_is_sent(folder: Path) -> None:
    """`create --fit auto --dry-run` shows each picture as it would be sent, with what was changed."""
    Image.new("RGB", (400, 400), "red").save(folder / "a.webp")

    said = call("create", "-s", "a.webp", "-p", "x", "--fit", "auto", "--dry-run", cwd=folder)

    assert said.code == 0
    assert "jpeg 400x400" in said.out
    assert "WebP saved as JPEG of quality 95" in said.out


def test_create_tells_what_it_changed(folder: Path, service: Any) -> None:
    """A single create says on stderr what it changed."""
    Image.new("RGB", (400, 400), "red").save(folder / "a.webp")

    said = call("create", "-s", "a.webp", "-p", "x", "--fit", "auto", cwd=folder, env=service.env)

    assert said.code == 0
    assert "made to fit: subject_images[0] (a.webp): WebP saved as JPEG" in said.err
    assert service.accepted == 1
