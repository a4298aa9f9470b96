"""Pictures as people have them, a hundred at once, through the command line on the emulator, which checks every rule itself."""

from __future__ import annotations

from pathlib import Path

from cli_kit import call, results
from mixed_kit import make_folder


def test_a_hundred_mixed_pictures_without_surprise(tmp_path: Path) -> None:
    """Of a hundred pictures of all kinds each runs or is refused with its reason, and each change was shown before and is told after."""
    told = make_folder(tmp_path / "photos", 100)
    words = ("photos", "--fit", "auto")

    checked = call("check", *words, "--json", cwd=tmp_path).json()
    said = call(
        "run", *words, "-o", "out", "--prompt", "x", "--emulator", "--slots", "90", "--json", cwd=tmp_path
    )

    rows = {row["key"]: row for row in results(tmp_path / "out")}
    shown = {row["key"]: row["changes"] for row in checked["fitted"]}
    refused = {name for name, words in told.items() if words.startswith("!")}
    assert said.code == 1
    assert len(rows) == len(told) == 100
    assert 100 - len(refused) == said.json()["succeeded"]
    for name, wanted in told.items():
        row = rows[Path(name).stem]
        changes = [each["changes"] for each in row.get("fitted", [])]
        if name in refused:
            assert wanted[1:] in row["error"]["message"], name
            assert name in row["error"]["message"]
        else:
            assert row["status"] == "succeeded", (name, row)
            assert bool(changes) == bool(wanted), (name, changes)
            assert wanted in ", ".join(changes[0] if changes else []), name
            assert shown.get(Path(name).stem) == (changes[0] if changes else None)
            assert not changes or f"({name}): {changes[0][0]}" in said.err
    assert said.json()["fitted"] == len(shown) == sum(bool(w) and w[0] != "!" for w in told.values())
