"""
What a row of the manifest asked for, as a page may show it.

Pure. What could be a secret stays out: the queries of URLs, which may be signed, callback addresses, and the bytes of
pictures that stand in the row itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.sources import ImageSource, megabytes

__all__ = ["Asked", "asked_of", "without_query"]

_PLAIN = ("prompt", "negative_prompt", "model_name", "n", "aspect_ratio", "watermark")


@frozen(kw_only=True)
class Asked:
    """
    One row of a manifest: its *number*, its *digest*, and its *job* with pictures as texts.

    *files* says where those texts lead that name a file.
    """

    number: int
    digest: int
    job: Mapping[str, Any]
    files: Mapping[str, Path]


def asked_of(number: int, digest: int, job: MultiImage) -> Asked:
    """Take *job*, which stands in row *number*, apart."""
    files: dict[str, Path] = {}

    def name(source: ImageSource) -> str:
        text = _text_of(source)
        if source.path is not None:
            files[text] = source.path
        return text

    shown: dict[str, Any] = {"subject_images": [name(source) for source in job.subject_images]}
    if job.scene_image is not None:
        shown["scene_image"] = name(job.scene_image)
    if job.style_image is not None:
        shown["style_image"] = name(job.style_image)
    shown |= {field: value for field in _PLAIN if (value := getattr(job, field)) is not None}
    if job.extra:
        shown["extra"] = _plain(job.extra)
    return Asked(number=number, digest=digest, job=shown, files=files)


def _text_of(source: ImageSource) -> str:
    """Return what names *source* on the page: a path as it was written, an address without its query, or words."""
    if source.path is not None:
        return (source.written or source.path).as_posix()
    address = source.url or source.stored
    if address is not None:
        return without_query(address)
    return f"<base64 of {megabytes(len(source.data or b''))}>"


def _plain(value: Any) -> Any:
    """Return a JSON value with all addresses in it as they may be shown."""
    if isinstance(value, str):
        return without_query(value) if re.match(r"\w+://", value) else value
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def without_query(address: str) -> str:
    """Return *address* without user, query and fragment; an ellipsis stands for a query."""
    place, mark, _ = address.partition("#")[0].partition("?")
    scheme, divider, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{divider}{host.rpartition('@')[2]}{slash}{path}{'?…' if mark else ''}"
