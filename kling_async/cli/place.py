"""Where results go, as it is named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[Path | str]
else:
    _ParamType = click.ParamType  # it takes no type before click 8.2

__all__ = ["Place"]


class Place(_ParamType):
    """A folder, as a path, or the URL of a place in an object store, as text."""

    name = "place"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002 - click's signature
    ) -> Path | str:
        """Tell them apart by the scheme; a file URL is a folder, and what is neither is told by the run."""
        text = str(value)
        if text.lower().startswith("file://"):
            return Path(url2pathname(urlsplit(text).path))
        return text if "://" in text else Path(text)
