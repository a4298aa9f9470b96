"""A job as it is given to a call: a `MultiImage`, or its fields by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypedDict

from attrs import fields_dict

from kling_async.errors import InvalidJob
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.sources import ImageSource

__all__ = ["ImageInput", "MultiImageFields", "job_of"]

# What may be given for a picture; a PIL image is any object with *save*, *size* and *mode*, a file any with *read*.
ImageInput: TypeAlias = str | os.PathLike[str] | bytes | ImageSource | Any


class MultiImageFields(TypedDict, total=False):
    """The fields of `MultiImage` as keyword arguments; *subject_images* must be among them."""

    subject_images: Iterable[ImageInput]
    scene_image: ImageInput | None
    style_image: ImageInput | None
    prompt: str | None
    negative_prompt: str | None
    model_name: str
    n: int
    aspect_ratio: str | None
    watermark: bool | None
    callback_url: str | None
    external_task_id: str | None
    key: str | None
    extra: Mapping[str, Any]


_NAMES = frozenset(fields_dict(MultiImage))
_OPTIONS = {"create": ("priority",), "run": ("wait_timeout", "priority")}
# Names that other calls have, and what they are here.
_ELSEWHERE = {
    (
        "run",
        "timeout",
    ): "the bound of the wait is wait_timeout=…, that of one request with_options(timeout=…)",
    (
        "create",
        "timeout",
    ): "create() does not wait: give it to wait(), or to with_options() as the bound of one request",
    ("create", "wait_timeout"): "create() does not wait: run() takes it, and wait() as timeout=…",
}


def job_of(call: str, job: MultiImage | None, fields: MultiImageFields) -> MultiImage:
    """
    Return the job that was given to *call*, as itself or by its *fields*.

    Raises `TypeError` for what Python refuses as well, a name that is no field or another kind of job, with the name that was
    meant; `InvalidJob` for fields without a subject, and as `MultiImage` does.
    """
    if job is not None:
        if not isinstance(job, MultiImage):
            raise TypeError(
                f"{call}(): expected a MultiImage or its fields by name, found a {type(job).__name__}; "
                "give a dict of fields as **fields"
            )
        if fields:
            raise TypeError(
                f"{call}(): expected a MultiImage or its fields, found both ({', '.join(fields)}); "
                "make another with attrs.evolve(job, ...)"
            )
        return job
    for name in fields:
        if name not in _NAMES:
            raise TypeError(f"{call}(): expected fields of MultiImage, found {name!r}; {_meant(call, name)}")
    if "subject_images" not in fields:
        raise InvalidJob.because("subject_images", "1 to 4 pictures", "none", "name at least one picture")
    return MultiImage(**fields)


def _meant(call: str, name: str) -> str:
    known = _ELSEWHERE.get((call, name))
    if known is not None:
        return known
    from difflib import get_close_matches  # for mistakes only

    near = get_close_matches(name[:80], [*_NAMES, *_OPTIONS[call]], n=1)
    return f"did you mean {near[0]!r}?" if near else "leave it out, or put it into extra={...}"
