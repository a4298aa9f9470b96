"""
A command on a disk that is nearly full, without any right but to start programs.

A tmpfs of 1 MB is mounted where nobody else sees it: by root in a mount namespace, by others in a user namespace too.
Where the system allows neither (some containers), a limit on the size of files takes its place; it fails writes in the
same way with another reason. Nothing is skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["on_small_disk", "reason"]

_MOUNT = 'mount -t tmpfs -o size=1m,mode=0777 small "$0"'
# The command twice: on the small disk, and again when there is room.
_TWICE = (
    'set -u; disk=$0; {small}; "$@"; echo "first $?"; ls "$disk" | sed "s/^/held /"; {large}; "$@"; echo "second $?"; '
    'ls "$disk" | sed "s/^/kept /"'
)


@cache
def _namespace() -> tuple[str, ...] | None:
    """Return the words in front of a command that may mount, None where nothing may."""
    for words in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        trial = subprocess.run([*words, "sh", "-c", _MOUNT, "/mnt"], capture_output=True, check=False)
        if trial.returncode == 0:
            return words
    return None


def reason() -> str:
    """Return what a write that finds no room is told."""
    return "No space left on device" if _namespace() is not None else "File too large"


def on_small_disk(folder: Path, command: Sequence[str]) -> list[str]:
    """Return words for a program that runs *command* with no room in *folder*, then with room, and tells how it went."""
    namespace = _namespace()
    if namespace is None:
        script = _TWICE.format(small="ulimit -S -f 512", large="ulimit -S -f unlimited")
    else:
        script = _TWICE.format(small=_MOUNT, large='mount -o remount,size=64m "$disk"')
    return [*(namespace or ()), "sh", "-c", script, str(folder), *command]
