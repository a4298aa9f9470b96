"""
Jobs at rest: what only waits for its task, as tuples of plain values.

The garbage collector walks over every object, again and again for as long as it lives, but not over tuples of texts and
numbers. A batch has thousands of jobs that wait for seconds or minutes, so this is how it keeps them meanwhile.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

from attrs import fields

from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.sources import ImageSource

__all__ = ["Resting", "rest", "wake"]

Resting: TypeAlias = tuple[Any, ...]

_SHAPED = ("subject_images", "scene_image", "style_image", "extra")
_PLAIN = tuple(each.name for each in fields(MultiImage) if each.name not in _SHAPED)
_shaped_of, _plain_of = attrgetter(*_SHAPED), attrgetter(*_PLAIN)
_SETTERS = tuple(getattr(MultiImage, name).__set__ for name in _SHAPED + _PLAIN)


def rest(job: MultiImage) -> MultiImage | Resting:
    """Return what `wake()` makes an equal job of; one of a class derived from `MultiImage` is that itself."""
    if type(job) is not MultiImage:
        return job
    subjects, scene, style, extra = _shaped_of(job)
    laid = tuple([_lay(each) for each in subjects])
    # Most jobs of many have one subject, with an address.
    first = laid[0] if len(laid) == 1 and isinstance(laid[0], str) else laid
    return (first, _lay(scene), _lay(style), extra or None, *_plain_of(job))


def wake(resting: MultiImage | Resting) -> MultiImage:
    """Return the job; it was checked when it was made, and is not checked again."""
    if isinstance(resting, MultiImage):
        return resting
    subjects, scene, style, extra, *plain = resting
    job = object.__new__(MultiImage)
    laid = (subjects,) if isinstance(subjects, str) else subjects
    shaped = (tuple([_lift(each) for each in laid]), _lift(scene), _lift(style), extra or {})
    # As attrs itself sets the fields of frozen objects.
    for set_field, value in zip(_SETTERS, (*shaped, *plain), strict=True):
        set_field(job, value)
    return job


def _lay(source: ImageSource | None) -> Any:
    """Return a text for a URL and a pair of texts for a path; what holds more stays what it is."""
    if source is None or source.data is not None or source.image is not None or source.stored is not None:
        return source
    if source.path is None:
        return source.url
    return str(source.path), None if source.written is None else str(source.written)


def _lift(laid: Any) -> Any:
    if laid is None:
        return None
    if isinstance(laid, str):
        return ImageSource(url=laid)
    if isinstance(laid, tuple):
        path, written = laid
        return ImageSource(path=Path(path), written=None if written is None else Path(written))
    return laid
