"""
Where the pictures of a batch go: what is tried before anything is spent, what is in the way, what is still there.

That is `images/`, with `watermarked/` beside it for the pictures that carry the service's watermark, in a folder or in an
object store. Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

from attrs import define, field

from kling_async._disk import make_folder, sync_folder
from kling_async.errors import ConfigError
from kling_async.protocol.naming import LONGEST_STEM, RUN
from kling_async.transport.files import PART, FolderShelf
from kling_async.transport.shelves import EXTENSIONS, Shelf

__all__ = ["EARLIER", "IMAGES", "RUN", "SHORTEST_STEM", "WATERMARKED", "FolderRack", "Rack"]

IMAGES = "images"
WATERMARKED = "watermarked"
# In a folder of pictures: those of attempts before the last, and what was found damaged.
EARLIER = "earlier"

# What a download in progress adds to a name; longer than any extension.
_ADDED = len(".12345678.part")
# A template's text, the number and a key's hash need so much.
SHORTEST_STEM = 120


class Rack(Protocol):
    """The shelves of one batch. A picture's *name* is what results call it: relative to a folder, or a URL."""

    @property
    def images(self) -> Shelf:
        """Where the pictures go."""

    @property
    def watermarked(self) -> Shelf:
        """Where those with the service's watermark go."""

    @property
    def longest(self) -> int:
        """How many bytes a stem may have."""

    @property
    def clear(self) -> bool:
        """Whether it is certain that there is nothing but what this run has put there."""

    def prepare(self) -> None:
        """Make the shelves and try to write; raises OSError and `ConfigError`."""

    def claim(self, run: str) -> str:
        """Say that the pictures are those of *run*; returns the run whose pictures they are already, if there is one."""

    def in_the_way(self, stem: str, *, watermarked: bool = False) -> str | None:
        """Return the name of what is there already under *stem*, whatever its extension."""

    def set_aside(self, name: str, label: str) -> None:
        """Move *name*, if it is there, to `earlier/`, marked with *label*."""

    def sweep(self) -> None:
        """Take away what a run that was cut short left of pictures half fetched."""

    def is_whole(self, name: str, sha256: str) -> bool | None:
        """
        Tell whether *name* has the content of that digest; None if it is not there.

        What an object store has counts as whole: it is never read back.
        """

    def name(self, location: Path | str) -> str:
        """Return what results call the picture at *location*."""


@define(eq=False)
class FolderRack:
    """Shelves in the folder *root*."""

    root: Path
    images: FolderShelf = field(init=False)
    watermarked: FolderShelf = field(init=False)
    longest: int = field(default=LONGEST_STEM, init=False)
    clear: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.images = FolderShelf(self.root / IMAGES)
        self.watermarked = FolderShelf(self.root / WATERMARKED)

    def prepare(self) -> None:
        """Make the folder and try to write into it; raises OSError and `ConfigError`."""
        shelves = (self.images.path, self.watermarked.path)
        for path in shelves:
            if path.is_symlink():
                raise ConfigError(f"out: expected a folder at {path}, found a symbolic link; remove it")
        make_folder(self.images.path)
        # Without a name where the system can do that, so that nothing is left of it whatever happens.
        with tempfile.TemporaryFile(dir=self.images.path) as trial:
            trial.write(b"trial")
        self.longest = _longest_stem(self.watermarked.path)
        self.clear = not any(entry for path in shelves if path.exists() for entry in path.iterdir())

    def claim(self, run: str) -> str:
        """Return *run*: a folder is known by the name that lies in it."""
        return run

    def in_the_way(self, stem: str, *, watermarked: bool = False) -> str | None:
        """Return the name of what is there already under *stem*; see `Rack.in_the_way()`."""
        folder = (self.watermarked if watermarked else self.images).path
        paths = (folder / f"{stem}.{extension}" for extension in EXTENSIONS.values())
        return next((self.name(path) for path in paths if os.path.lexists(path)), None)

    def set_aside(self, name: str, label: str) -> None:
        """Move the file *name* to `earlier/` beside it; see `Rack.set_aside()`."""
        path = self.root / name
        if not os.path.lexists(path) or not self._is_ours(path):
            return
        earlier = path.parent / EARLIER
        make_folder(earlier)
        names = (f"{label}-{path.name}", *(f"{label}-{number}-{path.name}" for number in range(2, 1000)))
        free = next(earlier / each for each in names if not os.path.lexists(earlier / each))
        path.rename(free)
        sync_folder(earlier)

    def _is_ours(self, path: Path) -> bool:
        # A journal that somebody has edited must not make files move that are no pictures of this run.
        return path.parent in {self.images.path, self.watermarked.path} and path.name not in {
            "",
            "..",
            EARLIER,
        }

    def sweep(self) -> None:
        """Take away half-written files."""
        for folder in (self.images.path, self.watermarked.path):
            for path in folder.iterdir() if folder.exists() else ():
                if PART.search(path.name):
                    path.unlink(missing_ok=True)

    def is_whole(self, name: str, sha256: str) -> bool | None:
        """Read the file *name* and compare; see `Rack.is_whole()`."""
        path = self.root / name
        if not self._is_ours(path) or not os.path.lexists(path):
            return None
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return not sha256 or hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def name(self, location: Path | str) -> str:
        """Return the path relative to the folder, with slashes."""
        return Path(location).relative_to(self.root).as_posix()


def _longest_stem(folder: Path) -> int:
    """Say how long a stem in *folder* may be; raises `ConfigError` where there is too little room."""
    where = len(os.fsencode(folder.absolute())) + 2
    if os.name == "nt":
        name, path = 255, 259
    else:
        name, path = os.pathconf(folder.parent, "PC_NAME_MAX"), os.pathconf(folder.parent, "PC_PATH_MAX")
    longest = min(LONGEST_STEM, name - _ADDED, path - where - _ADDED)
    if longest < SHORTEST_STEM:
        raise ConfigError(
            f"out: expected room for names of {SHORTEST_STEM} bytes, found {max(0, longest)} in {folder}; "
            "choose a folder with a shorter path"
        )
    return longest
