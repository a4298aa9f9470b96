"""
What is asked of the service: a multi-image job, checked against every rule of the seed before anything is spent.

A default means *not sent*, except for the model, whose server-side default has changed between versions of the
vendor's page and is billed whatever it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from attrs import Attribute, field, frozen

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import ImageSource

__all__ = ["ASPECT_RATIOS", "DEFAULT_MODEL", "MultiImage"]

ASPECT_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")
DEFAULT_MODEL = "kling-v2-1"
LONGEST_PROMPT = 2500
MOST_SUBJECTS = 4
MOST_IMAGES = 9
# Stated by the vendor for other endpoints only, but a longer one helps nobody.
LONGEST_URL = 1024
# Stands between the key of a job and the number of a part of it, so no key may hold it (U+001F, "unit separator").
KEY_DIVIDER = "\x1f"
# The service documents no bounds; these are safe as a path segment and in every gateway (R6).
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# What the body of a create holds of its own, so that *extra* cannot change it.
_WIRE_FIELDS = frozenset(
    {
        "model_name",
        "prompt",
        "negative_prompt",
        "subject_image_list",
        "scene_image",
        "style_image",
        "n",
        "aspect_ratio",
        "watermark_info",
        "callback_url",
        "external_task_id",
    }
)

_Check = Callable[[Any, "Attribute[Any]", Any], None]


def _refuse(name: str, rule: str, value: object, remedy: str) -> InvalidJob:
    shown = repr(value)
    return InvalidJob.because(name, rule, shown if len(shown) <= 80 else f"{shown[:60]}…", remedy)


def _text(longest: int) -> _Check:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise _refuse(attribute.name, "text", value, "put it in quotation marks")
        if len(value) > longest:
            rule = f"at most {longest} characters"
            raise InvalidJob.because(attribute.name, rule, f"{len(value)} characters", "shorten it")
        _check_encodable(attribute.name, value)

    return check


def _check_encodable(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"a lone surrogate at position {error.start}"
        raise InvalidJob.because(name, "text that UTF-8 can carry", found, "remove that character") from error


def _count(_: Any, attribute: Attribute[Any], value: Any) -> None:
    # A bool is an int to Python, but true is no number of pictures.
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(
            attribute.name, f"a whole number from 1 to {MOST_IMAGES}", value, "write a number such as 2"
        )
    if not 1 <= value <= MOST_IMAGES:
        remedy = (
            "use several jobs for more pictures" if value > MOST_IMAGES else "ask for at least one picture"
        )
        raise _refuse(attribute.name, f"1 to {MOST_IMAGES}", value, remedy)


def _ratio(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and value not in ASPECT_RATIOS:
        raise _refuse(
            attribute.name, f"one of {', '.join(ASPECT_RATIOS)}", value, "choose the nearest of them"
        )


def _flag(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise _refuse(attribute.name, "true or false", value, "write true or false without quotation marks")


def _model(_: Any, attribute: Attribute[Any], value: Any) -> None:
    # Names come and go server-side without notice, so any name passes (facts 9.17).
    if not isinstance(value, str) or not value.strip():
        raise _refuse(attribute.name, "the name of a model", value, f"write one such as {DEFAULT_MODEL}")
    _check_encodable(attribute.name, value)


def _external_id(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str) and _EXTERNAL_ID.fullmatch(value)):
        rule = "1 to 64 of the characters A-Z a-z 0-9 _ -"
        raise _refuse(
            attribute.name, rule, value, "replace the other characters, or leave it out and one is made"
        )


def _callback(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not re.match(r"https?://[^\s/]", value):
        # A query may hold what nobody else is to know.
        shown = value.partition("?")[0] if isinstance(value, str) else value
        raise _refuse(
            attribute.name, "an http(s) URL that the service can reach", shown, "write the whole address"
        )
    _text(LONGEST_URL)(None, attribute, value)


def _key(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise _refuse(
            attribute.name, "a text that is not empty", value, "give the row a name or leave the key out"
        )
    if value is not None and KEY_DIVIDER in value:
        raise _refuse(attribute.name, "a text without the character U+001F", value, "take that character out")
    _text(512)(None, attribute, value)


def _subjects(_: Any, attribute: Attribute[Any], value: tuple[ImageSource, ...]) -> None:
    if not 1 <= len(value) <= MOST_SUBJECTS:
        found = f"{len(value)} pictures" if value else "none"
        remedy = "leave some out" if value else "name at least one picture"
        raise InvalidJob.because(attribute.name, f"1 to {MOST_SUBJECTS} pictures", found, remedy)


def _to_subjects(value: Any) -> tuple[ImageSource, ...]:
    name = "subject_images"
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _refuse(name, "a list of pictures", value, 'put it in brackets, as in ["dress.png"]')
    return tuple(ImageSource.of(item, f"{name}[{place}]") for place, item in enumerate(value))


def _to_scene(value: Any) -> ImageSource | None:
    return None if value is None else ImageSource.of(value, "scene_image")


def _to_style(value: Any) -> ImageSource | None:
    return None if value is None else ImageSource.of(value, "style_image")


def _to_extra(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse("extra", "an object of further fields", value, "write it as {name: value}")
    if own := sorted(_WIRE_FIELDS.intersection(value)):
        # The lane, the budget and the promise never to pay twice all rest on what the job says of itself.
        raise InvalidJob.because(
            "extra", "fields that a job does not have itself", repr(own[0]), "set the job's own field"
        )
    if not value:
        return {}
    try:
        # Sorted as for the fingerprint, which also refuses names that are no text beside others.
        json.dumps(dict(value), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob.because(
            "extra", "values that JSON can carry", str(error), "use plain values"
        ) from error
    return dict(value)


@frozen(kw_only=True)
class MultiImage:
    """
    One to nine pictures made of subjects, a scene and a style (`/v1/images/multi-image2image`).

    *subject_images* are one to four pictures, *scene_image* and *style_image* one each. A picture may be a path, an http(s),
    s3, gs or az URL, bytes, an open file, a PIL image or an `ImageSource`: JPEG or PNG, at most 10 MB, at least 300 px
    each way, from 1:2.5 to 2.5:1. Files are looked at when the job is checked or sent.

    *prompt* and *negative_prompt* hold up to 2500 characters. *n* is how many pictures to make, 1 to 9. *aspect_ratio*
    is 16:9, 9:16, 1:1, 4:3, 3:4, 3:2, 2:3 or 21:9; the service's default is 16:9. *model_name* is always sent, since the
    service's default has changed. *watermark* asks for watermarked copies as well. *callback_url* is an http(s) address, up
    to 1024 characters. *external_task_id* names the task at the service, in 1 to 64 of the characters A-Z a-z 0-9 _ and -, and
    must be unique for the account; one is made if it is not given. *key* is the caller's name for the job, up to 512 characters, and is never sent. *extra*
    goes into the body as it is and cannot hold what has a field of its own.

    Rules and names are those of the vendor's page of multi-image2image (March 2026); it lists no *negative_prompt* but sends
    one in its example, and says nothing of the length of ids and addresses.

    Raises `InvalidJob` (a `ValueError`) naming field, rule, value and remedy.
    """

    path: ClassVar[str] = "/v1/images/multi-image2image"
    # Vendor's price list, 2026-09: one picture of this endpoint costs 16 units of 0.0035 dollars.
    units_per_image: ClassVar[int] = 16

    subject_images: tuple[ImageSource, ...] = field(converter=_to_subjects, validator=_subjects)
    scene_image: ImageSource | None = field(default=None, converter=_to_scene)
    style_image: ImageSource | None = field(default=None, converter=_to_style)
    prompt: str | None = field(default=None, validator=_text(LONGEST_PROMPT))
    negative_prompt: str | None = field(default=None, validator=_text(LONGEST_PROMPT))
    model_name: str = field(default=DEFAULT_MODEL, validator=_model)
    n: int = field(default=1, validator=_count)
    aspect_ratio: str | None = field(default=None, validator=_ratio)
    watermark: bool | None = field(default=None, validator=_flag)
    callback_url: str | None = field(default=None, validator=_callback)
    external_task_id: str | None = field(default=None, validator=_external_id)
    key: str | None = field(default=None, validator=_key)
    extra: Mapping[str, Any] = field(factory=dict, converter=_to_extra, eq=dict, hash=False)

    @property
    def slots(self) -> int:
        """How many of the account's slots the task holds from its create to its end: one a picture (vendor's rules of concurrency)."""
        return self.n

    @property
    def units(self) -> int:
        """What the task costs if it succeeds, in resource-pack units: 16 a picture (vendor's price list, September 2026)."""
        return self.n * self.units_per_image

    def pictures(self) -> tuple[tuple[str, ImageSource], ...]:
        """Return every picture with the name of its field (`subject_images[0]`, `scene_image`, `style_image`)."""
        named = [(f"subject_images[{place}]", source) for place, source in enumerate(self.subject_images)]
        named += [("scene_image", self.scene_image)] if self.scene_image else []
        named += [("style_image", self.style_image)] if self.style_image else []
        return tuple(named)

    def body(self, external_task_id: str | None, pictures: Mapping[str, Picture | str]) -> dict[str, Any]:
        """Return the body of the create as a tree; *pictures* are checked files, or URLs, by the name of their field."""
        scene, style = pictures.get("scene_image"), pictures.get("style_image")
        subjects = [
            {"subject_image": pictures[f"subject_images[{place}]"]}
            for place in range(len(self.subject_images))
        ]
        fields = {
            "model_name": self.model_name,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "subject_image_list": subjects,
            "scene_image": scene,
            "style_image": style,
            "n": self.n,
            "aspect_ratio": self.aspect_ratio,
            "watermark_info": None if self.watermark is None else {"enabled": self.watermark},
            "callback_url": self.callback_url,
            "external_task_id": external_task_id,
        }
        return {name: value for name, value in fields.items() if value is not None} | dict(self.extra)

    def fingerprint(self) -> str:
        """
        Return a hash of what the job asks for, 32 hex digits: the same job, the same text, on every machine.

        Pictures count by `ImageSource.identity()`: what is changed to make them fit does not, nor does the folder of a
        manifest, so that it can be moved. *key* and *external_task_id* are names, not content.
        """
        named = {name: source.identity() for name, source in self.pictures()}
        text = _SORTED([self.body(None, dict.fromkeys(named, "")), named])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


_SORTED = json.JSONEncoder(sort_keys=True).encode
