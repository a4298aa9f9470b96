"""A folder of pictures as a manifest: a row for each, named by its file, with the same other fields for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kling_async.batch.raws import Raw
from kling_async.errors import ConfigError, InvalidJob

__all__ = ["folder_rows", "is_picture_name"]

# What is a picture by its name. Some of these must be made to fit: a row that is refused says so, one left out would not.
_ENDINGS = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".ico",
    ]
)


def is_picture_name(name: str) -> bool:
    """Tell whether a file called *name* is taken for a picture."""
    return Path(name).suffix.lower() in _ENDINGS and not name.startswith(".")


def folder_rows(folder: Path, shared: Mapping[str, object]) -> Iterator[tuple[int, Raw]]:
    """
    Return a number and the fields of a row for each picture in *folder*, sorted by name; *shared* is in all of them.

    The key of a row is the name of its file without the ending. Folders inside and other files are left out. Raises
    ConfigError at once for a folder that cannot be read or has no picture.
    """
    try:
        names = sorted(
            each.name for each in folder.iterdir() if is_picture_name(each.name) and each.is_file()
        )
    except OSError as error:
        raise ConfigError(
            f"manifest: expected a readable folder, found {folder}: {error.strerror}; check its permissions"
        ) from error
    if not names:
        raise ConfigError(
            f"manifest: expected a folder with pictures, found none in {folder}; name another one, or a file of rows"
        )
    return _rows(names, shared)


def _rows(names: list[str], shared: Mapping[str, object]) -> Iterator[tuple[int, Raw]]:
    first: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        key = Path(name).stem
        if first.setdefault(key, name) == name:
            yield number, {"key": key, "subject_images": [name], **shared}
        else:
            # A longer name for both would be another key for a picture that may have been paid for under the short one.
            found = f"{name} beside {first[key]}"
            rule = "files whose names differ before the ending"
            yield number, InvalidJob.because("key", rule, found, "rename one of the two")
