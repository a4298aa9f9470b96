"""
The seed's rules for a create: a JSON object becomes an order or a `Refusal`.

Pure. Unknown fields are ignored as the vendor does, which is how `model` (instead of `model_name`) silently falls
to the default model. An empty string means that a field is not given. Everything else is taken by the letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from kling_async.emulator.intake import LongText
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.settings import EmulatorSettings

__all__ = ["RATIOS", "MultiImageOrder", "Picture"]

RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9")
_LONGEST_PROMPT = 2500
_LONGEST_CALLBACK_URL = 1024

# Words in double brackets that steer a task from inside its prompt: no fault needs to be set for them.
_MARKER = re.compile(r"\[\[(refuse|policy|risk|stuck|empty|fail)(?::\s*([^\]]*))?\]\]")
_REFUSALS = {"refuse": 1301, "policy": 1300}


@frozen
class Picture:
    """A picture of an order: *role* (subject, scene, style) and its *text*, a URL or base64."""

    role: str
    text: str | LongText = field(repr=False)

    @property
    def url(self) -> str | None:
        """The address, None for base64."""
        return (
            self.text
            if isinstance(self.text, str) and self.text.startswith(("http://", "https://"))
            else None
        )


@frozen(kw_only=True)
class MultiImageOrder:
    """What a create of `/v1/images/multi-image2image` asks for."""

    units_each: ClassVar[int] = 16

    model_name: str
    prompt: str
    pictures: tuple[Picture, ...]
    n: int
    aspect_ratio: str
    watermark: bool
    callback_url: str
    external_task_id: str
    marker: tuple[str, str]

    @classmethod
    def parse(cls, body: Mapping[str, Any], settings: EmulatorSettings) -> MultiImageOrder:
        """Read the order in *body*; Refusal (1201, 1203, 1300, 1301) where it breaks a rule."""
        prompt = _text(body, "prompt")
        if len(prompt) > _LONGEST_PROMPT:
            raise Refusal(1201, f"prompt cannot exceed {_LONGEST_PROMPT} characters, got {len(prompt)}")
        _text(body, "negative_prompt")
        order = cls(
            model_name=_model(body, settings),
            prompt=prompt,
            pictures=(*_subjects(body), *_references(body)),
            n=_count(body),
            aspect_ratio=_ratio(body),
            watermark=_watermark(body),
            callback_url=_callback_url(body),
            external_task_id=_text(body, "external_task_id"),
            marker=_marker(prompt),
        )
        if order.marker[0] in _REFUSALS:
            raise Refusal(_REFUSALS[order.marker[0]])
        return order

    @property
    def weight(self) -> int:
        """The slots a task of this order holds."""
        return self.n

    @property
    def units(self) -> int:
        """The units a task of this order costs when it succeeds."""
        return self.units_each * self.n


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, (str, LongText)):
        raise Refusal(1201, f"{name} must be a string")
    return str(value)


def _model(body: Mapping[str, Any], settings: EmulatorSettings) -> str:
    name = _text(body, "model_name") or settings.default_model
    if name not in settings.models:
        raise Refusal(1203 if settings.dialect == "documented" else 1201, "model is not supported")
    return name


def _subjects(body: Mapping[str, Any]) -> list[Picture]:
    rows = body.get("subject_image_list")
    if not isinstance(rows, list) or not 1 <= len(rows) <= 4:
        found = len(rows) if isinstance(rows, list) else "none"
        raise Refusal(1201, f"subject_image_list must hold 1 to 4 images, got {found}")
    return [_subject(row, number) for number, row in enumerate(rows)]


def _subject(row: object, number: int) -> Picture:
    value = row.get("subject_image") if isinstance(row, dict) else None
    if not isinstance(value, (str, LongText)) or not value:
        raise Refusal(1201, f'subject_image_list[{number}] must be {{"subject_image": "<URL or base64>"}}')
    return Picture("subject", value)


def _references(body: Mapping[str, Any]) -> list[Picture]:
    found = []
    for role in ("scene", "style"):
        value = body.get(f"{role}_image")
        if value is not None and not isinstance(value, (str, LongText)):
            raise Refusal(1201, f"{role}_image must be a string")
        if value:
            found.append(Picture(role, value))
    return found


def _count(body: Mapping[str, Any]) -> int:
    value = body.get("n", 1)
    # A JSON true is no number, although Python takes it for 1.
    if type(value) is not int or not 1 <= value <= 9:
        raise Refusal(1201, f"n must be an integer in [1, 9], got {str(value)[:40]!r}")
    return value


def _ratio(body: Mapping[str, Any]) -> str:
    value = _text(body, "aspect_ratio") or RATIOS[0]
    if value not in RATIOS:
        raise Refusal(1201, f"aspect_ratio must be one of {', '.join(RATIOS)}, got {value[:40]!r}")
    return value


def _watermark(body: Mapping[str, Any]) -> bool:
    value = body.get("watermark_info")
    if value is None:
        return False
    enabled = value.get("enabled", False) if isinstance(value, dict) else None
    if not isinstance(enabled, bool):
        raise Refusal(1201, 'watermark_info must be {"enabled": boolean}')
    return enabled


def _callback_url(body: Mapping[str, Any]) -> str:
    value = _text(body, "callback_url")
    if value and not value.startswith(("http://", "https://")):
        raise Refusal(1201, "callback_url must be an http(s) URL")
    if len(value) > _LONGEST_CALLBACK_URL:
        raise Refusal(1201, f"callback_url cannot exceed {_LONGEST_CALLBACK_URL} characters")
    return value


def _marker(prompt: str) -> tuple[str, str]:
    found = _MARKER.search(prompt)
    return (found[1], (found[2] or "").strip()) if found else ("", "")
