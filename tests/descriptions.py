"""
Run on what was built: no page on an index has a link that leads nowhere.

No test of pytest, since it needs the build backend and the distributions; the nox session `build` runs it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "KLING_ASYNC_REPOSITORY"
SOMEWHERE = "https://forge.example/owner/name"
_TARGET = re.compile(r"\]\(\s*<?([^)>\s]+)|(?:src|href)=[\"']([^\"']+)")


def main() -> None:
    """Look at the description under a made-up address, then at the distributions in dist/."""
    made = _metadata({VARIABLE: f"{SOMEWHERE}/"})
    text, version = made["readme"]["text"], made["version"]
    assert dead(text) == [], f"expected whole addresses, found {dead(text)}"
    assert f"]({SOMEWHERE}/blob/v{version}/docs/emulator.md)" in text
    assert f"]({SOMEWHERE}/raw/v{version}/docs/images/gallery.jpg)" in text
    assert 'pip install "kling-async[cli]"' in text
    assert made["urls"]["Repository"] == SOMEWHERE
    untold = _metadata({})
    assert untold["readme"]["text"] == (ROOT / "README.md").read_text(encoding="utf-8")
    assert "urls" not in untold
    repository = os.environ.get(VARIABLE)
    for path in sorted((ROOT / "dist").iterdir()):
        found = _described(path)
        relative = dead(str(found.get_payload()))
        if repository:
            assert relative == [], f"{path.name}: expected whole addresses, found {relative}"
            assert any(repository.rstrip("/") in each for each in found.get_all("Project-URL") or ()), (
                path.name
            )
        elif relative:
            sys.stdout.write(f"{path.name}: {len(relative)} relative links; set {VARIABLE} for a release\n")


def dead(text: str) -> list[str]:
    """Return the links of *text* that lead nowhere on a page of an index."""
    targets = [one or other for one, other in _TARGET.findall(text)]
    return [target for target in targets if not target.startswith(("https://", "http://", "mailto:", "#"))]


def _metadata(told: dict[str, str]) -> dict[str, dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"],
        cwd=ROOT,
        env=environment | told,
        capture_output=True,
        check=True,
    )
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def _described(path: Path) -> Message:
    """Return the metadata of the distribution at *path*."""
    if path.suffix == ".whl":
        with ZipFile(path) as wheel:
            name = next(each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
            return message_from_bytes(wheel.read(name))
    with tarfile.open(path) as sdist:
        top = path.name.removesuffix(".tar.gz")
        member = sdist.extractfile(f"{top}/PKG-INFO")
        assert member is not None
        return message_from_bytes(member.read())


if __name__ == "__main__":
    main()
