"""Pictures that this program made or fetched, in files of their own that go when the picture is no longer used."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from attrs import define

from kling_async.errors import ConfigError

__all__ = ["SpooledFile"]


@define(eq=False)
class SpooledFile:
    """A file in the folder for temporary files, which is removed with this object, and at the latest with the process."""

    path: Path

    @classmethod
    def written(cls, write: Callable[[IO[bytes]], object]) -> SpooledFile:
        """
        Have *write* fill a new file; blocks.

        Raises `ConfigError` where the folder has no room or cannot be written to.
        """
        try:
            number, name = tempfile.mkstemp(prefix="kling-async-", suffix=".picture")
            spooled = cls(Path(name))
            weakref.finalize(spooled, _remove, name)
            with os.fdopen(number, "wb") as file:
                write(file)
        except OSError as error:
            raise ConfigError(
                f"expected room for pictures in {tempfile.gettempdir()}, found: {error.strerror or error}; "
                "free some, or set TMPDIR to another folder"
            ) from error
        return spooled


def _remove(name: str) -> None:
    with suppress(OSError):
        Path(name).unlink()
