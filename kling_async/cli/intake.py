"""How commands take pictures in: options for making them fit, and for what all pictures of a folder share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from kling_async.batch.manifest import Manifest, manifest_at, raw_records
from kling_async.cli.voice import reading_manifest
from kling_async.errors import ConfigError
from kling_async.protocol.jobs import ASPECT_RATIOS, DEFAULT_MODEL, MOST_IMAGES
from kling_async.protocol.pictures import Fitted
from kling_async.protocol.sources import ImageSource

__all__ = ["open_manifest", "shares", "takes_pictures", "told_row"]

F = TypeVar("F", bound=Callable[..., Any])

_INTAKE = (
    click.option(
        "--fit",
        type=click.Choice(["auto"]),
        help="Bring pictures within the rules (format, size, shape), and tell what was changed.",
    ),
    click.option(
        "--verify",
        type=click.Choice(["header", "full"]),
        default="header",
        show_default=True,
        help="How closely to look at pictures; 'full' decodes each one.",
    ),
)
_SHARED = (
    click.option("--scene", "scene_image", metavar="PICTURE", help="For a folder: the scene of all."),
    click.option("--style", "style_image", metavar="PICTURE", help="For a folder: the style of all."),
    click.option("-p", "--prompt", help="For a folder: the prompt of all."),
    click.option("--negative-prompt", help="For a folder: what to keep out of all."),
    click.option(
        "-n", type=click.IntRange(1, MOST_IMAGES), help="For a folder: images of each.  [default: 1]"
    ),
    click.option("--aspect-ratio", type=click.Choice(ASPECT_RATIOS), help="For a folder: width to height."),
    click.option("--model", "model_name", help=f"For a folder: the model.  [default: {DEFAULT_MODEL}]"),
)
_SHARED_NAMES = ("scene_image", "style_image", "prompt", "negative_prompt", "n", "aspect_ratio", "model_name")


def open_manifest(path: Path, shared: Mapping[str, object]) -> Manifest:
    """Open the manifest that a command was called with; raises `ManifestError` also for one without rows."""
    with reading_manifest():
        manifest = manifest_at(path, shared)
        if next(raw_records(path, shared), None) is None:
            raise ConfigError(
                f"manifest: expected at least one row, found none in {path}; write a job into it, or name another file"
            )
    return manifest


def takes_pictures(command: F) -> F:
    """Give *command* the options *fit* and *verify*."""
    for option in reversed(_INTAKE):
        command = option(command)
    return command


def shares(command: F) -> F:
    """Give *command* the options of what all rows of a folder share; it gets them as *shared*, a mapping of fields."""

    @functools.wraps(command)
    def sharing(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _SHARED_NAMES}
        shared = {name: _absolute(name, value) for name, value in given.items() if value is not None}
        if shared and not options["manifest"].is_dir():
            names = ", ".join(sorted(shared))
            raise click.UsageError(
                f"expected a folder as MANIFEST with {names}, found a file; put those into its rows"
            )
        return command(*args, shared=shared, **options)

    for option in reversed(_SHARED):
        sharing = option(sharing)
    return sharing  # type: ignore[return-value]  # the wrapper takes what the command takes, and more options


def _absolute(name: str, value: Any) -> Any:
    # A path on the command line is relative to where the command is called, one in a row to the manifest's folder.
    if not name.endswith("_image"):
        return value
    source = ImageSource.of(value, name)
    return value if source.path is None else str(Path.cwd() / source.path)


def told_row(number: int, key: str, fitted: Fitted) -> Mapping[str, Any]:
    """Return what would be changed of a picture as data."""
    return {"line": number, "key": key, **fitted.as_json()}
