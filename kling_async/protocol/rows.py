"""
Rows of a manifest as jobs: the seed's own JSON as it stands, or the short names of `MultiImage`.

A row is what a person wrote, so an unknown name is an error that offers the nearest known one, and pictures that
are base64 must say so: `{"base64": "..."}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import fields_dict

from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.sources import ImageSource

__all__ = ["UNKNOWN_FIELD", "job_from_row", "unknown_fields"]

# The rule that a name breaks which no job has.
UNKNOWN_FIELD = "a known field"

# Names of the seed that are not those of MultiImage, and short ones that users bring (`id` for `key`).
_WIRE_NAMES = {"subject_image_list": "subject_images", "watermark_info": "watermark", "id": "key"}
_NAMES = frozenset(fields_dict(MultiImage))
# The seed's examples send empty texts for what is not given (facts 7.7).
_EMPTY_IS_ABSENT = frozenset({"callback_url", "scene_image", "style_image", "negative_prompt", "prompt"})


def job_from_row(row: object, base: Path | None = None) -> MultiImage:
    """
    Make a job of *row*; relative paths are taken from *base*, the manifest's folder.

    Raises `InvalidJob` for a row that is no object, an unknown or doubled name, and every broken rule of the job.
    """
    if not isinstance(row, Mapping):
        kind = {list: "an array", str: "a text", type(None): "null", bool: "a boolean"}.get(
            type(row), "a number"
        )
        raise InvalidJob.because("row", "an object with the fields of a job", kind, "write it as {...}")
    fields: dict[str, Any] = {}
    for name, value in row.items():
        short = _WIRE_NAMES.get(name, name)
        if short not in _NAMES:
            raise _unknown(str(name))
        if value is None or (value == "" and short in _EMPTY_IS_ABSENT):
            continue
        if short in fields:
            names = " and ".join(each for each in row if _WIRE_NAMES.get(each, each) == short)
            raise InvalidJob.because(short, "one value", f"two, as {names}", "keep one of them")
        fields[short] = _READERS.get(short, _as_is)(value, base)
    if "subject_images" not in fields:
        raise InvalidJob.because("subject_images", "1 to 4 pictures", "none", "name at least one picture")
    return MultiImage(**fields)


def unknown_fields(row: Mapping[str, object]) -> dict[str, InvalidJob]:
    """Return the names in *row* that no job has, each with its error."""
    return {name: _unknown(str(name)) for name in row if _WIRE_NAMES.get(name, name) not in _NAMES}


def _unknown(name: str) -> InvalidJob:
    near = get_close_matches(name[:80], [*_NAMES, *_WIRE_NAMES], n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "remove it, or put it into extra"
    return InvalidJob.because(_shown(name[:80]), UNKNOWN_FIELD, "an unknown one", remedy)


def _shown(name: str) -> str:
    return name if name.strip() and name.isprintable() else repr(name)


def _as_is(value: Any, _: Path | None) -> Any:
    return value


def _key(value: Any, _: Path | None) -> Any:
    # Spreadsheets and databases number their rows.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _watermark(value: Any, _: Path | None) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) - {"enabled"}:
        raise InvalidJob.because(
            "watermark_info", '{"enabled": true or false}', "other names in it", "remove them"
        )
    return value.get("enabled")


def _subjects(value: Any, base: Path | None) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return [_subject(item, f"subject_images[{place}]", base) for place, item in enumerate(value)]


def _subject(item: Any, name: str, base: Path | None) -> ImageSource:
    if isinstance(item, Mapping) and set(item) == {"subject_image"}:
        item = item["subject_image"]
    return _picture(item, name, base)


def _picture(value: Any, name: str, base: Path | None) -> ImageSource:
    if isinstance(value, Mapping) and set(value) == {"base64"}:
        return ImageSource.from_base64(value["base64"], name)
    if isinstance(value, Mapping) and set(value) == {"url", "presign"} and isinstance(value["url"], str):
        return ImageSource.from_store(value["url"], name, presign=value["presign"] is True)
    if not isinstance(value, str):
        found = "an object of another shape" if isinstance(value, Mapping) else repr(value)[:60]
        rule = 'a path, a URL, {"base64": "..."} or {"url": "s3://...", "presign": true}'
        raise InvalidJob.because(name, rule, found, "write it as one of these")
    source = ImageSource.of(value, name)
    return source if base is None else source.behind(base, name)


def _scene(value: Any, base: Path | None) -> ImageSource:
    return _picture(value, "scene_image", base)


def _style(value: Any, base: Path | None) -> ImageSource:
    return _picture(value, "style_image", base)


_READERS: Mapping[str, Callable[[Any, Path | None], Any]] = {
    "key": _key,
    "watermark": _watermark,
    "subject_images": _subjects,
    "scene_image": _scene,
    "style_image": _style,
}
