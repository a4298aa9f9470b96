"""Files and names that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["make_folder", "sync_folder", "write_whole"]


def sync_folder(folder: Path) -> None:
    """Have the names in *folder* survive a power cut."""
    if os.name == "nt":  # has no such call; renames are journalled there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make *folder* and those above it that are not there, each to stay."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write *content* to *path*, whole or not at all, replacing what was there."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
