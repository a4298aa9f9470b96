"""The pictures of a batch in an object store (`out="s3://bucket/folder"`)."""

from __future__ import annotations

import json
from pathlib import Path

from attrs import define, field

from kling_async.batch.racks import EARLIER, IMAGES, RUN, SHORTEST_STEM, WATERMARKED
from kling_async.errors import ConfigError
from kling_async.protocol.naming import LONGEST_STEM
from kling_async.transport.objects import ObjectShelf, create, first_below, move, present, read, translated
from kling_async.transport.shelves import EXTENSIONS
from kling_async.transport.stores import Place, open_place

__all__ = ["StoreRack"]

# Bytes of the longest path that all stores take, and those that a label and an extension may add to a stem.
_LONGEST_PATH = 1024
_ADDED = 100


@define(eq=False)
class StoreRack:
    """
    Shelves at a *place* in an object store.

    An object `run.json` there says whose pictures they are. A place is given to a run only while it holds no pictures, so
    that nothing can be in the way of its own.
    """

    place: Place
    images: ObjectShelf = field(init=False)
    watermarked: ObjectShelf = field(init=False)
    longest: int = field(default=LONGEST_STEM, init=False)
    clear: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self.images = ObjectShelf(self.place, IMAGES)
        self.watermarked = ObjectShelf(self.place, WATERMARKED)

    @classmethod
    def at(cls, url: str) -> StoreRack:
        """Open the place at *url*; raises `ConfigError` and `MissingExtra`, and asks the store for nothing."""
        return cls(open_place(url))

    def prepare(self) -> None:
        """See that there is room for names; raises `ConfigError`."""
        taken = len(self.watermarked.path(f"{EARLIER}/").encode()) + _ADDED
        self.longest = min(LONGEST_STEM, _LONGEST_PATH - taken)
        if self.longest < SHORTEST_STEM:
            raise ConfigError(
                f"out: expected a path of fewer bytes than that of {self.place.url}; choose another"
            )

    def claim(self, run: str) -> str:
        """Make `run.json` if there is none; see `Rack.claim()`. Raises `ConfigError` for a place that cannot be used."""
        try:
            with translated(self.place.url):
                return self._claim(run, ObjectShelf(self.place, "").path(RUN))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"out: expected the name of a run in {self.place.url}/{RUN}, found something else; choose another place"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"out: expected a place that can be written to, found {self.place.url} ({error.strerror}); "
                "check bucket, region and credentials"
            ) from error

    def _claim(self, run: str, path: str) -> str:
        if not present(self.place, path):
            self._refuse_strangers()
            if create(self.place, path, (json.dumps({"run": run}) + "\n").encode(), kind="application/json"):
                return run
        return str(json.loads(read(self.place, path))["run"])

    def _refuse_strangers(self) -> None:
        for shelf in (self.images, self.watermarked):
            stranger = first_below(self.place, shelf.path(""))
            if stranger is not None:
                raise ConfigError(
                    f"out: expected no pictures at {shelf}, where no run has been, found {stranger}; choose another place"
                )

    def in_the_way(self, stem: str, *, watermarked: bool = False) -> str | None:
        """Return the URL of what is there already under *stem*; see `Rack.in_the_way()`."""
        shelf = self.watermarked if watermarked else self.images
        names = (f"{stem}.{extension}" for extension in EXTENSIONS.values())
        with translated(str(shelf)):
            return next((shelf.url(name) for name in names if present(self.place, shelf.path(name))), None)

    def set_aside(self, name: str, label: str) -> None:
        """Move the object at the URL *name* to `earlier/` beside it; see `Rack.set_aside()`."""
        shelf, plain = self._find(name)
        if shelf is not None:
            with translated(name):
                if present(self.place, shelf.path(plain)):
                    move(self.place, shelf.path(plain), shelf.path(f"{EARLIER}/{label}-{plain}"))

    def sweep(self) -> None:
        """Do nothing: what was not sent whole is no object. (What is left of parts is for a rule of the bucket.)"""

    def is_whole(self, name: str, sha256: str) -> bool | None:  # noqa: ARG002  # the signature is the rack's
        """Tell whether there is an object at the URL *name*; see `Rack.is_whole()`."""
        shelf, plain = self._find(name)
        if shelf is None:
            return None
        with translated(name):
            return True if present(self.place, shelf.path(plain)) else None

    def name(self, location: Path | str) -> str:
        """Return the URL."""
        return str(location)

    def _find(self, name: str) -> tuple[ObjectShelf | None, str]:
        """Tell which shelf the URL *name* is on, and what it is called there."""
        folder, _, plain = name.rpartition("/")
        return next((shelf for shelf in (self.images, self.watermarked) if str(shelf) == folder), None), plain
