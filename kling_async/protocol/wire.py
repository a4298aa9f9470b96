"""
The shapes of the service's tasks, as forgiving as real replies need: `{}`, null or nothing where an object should be.

Loaded with the first task that is read: the first create of a process needs neither this nor cattrs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from attrs import frozen
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn

from kling_async.protocol.scalars import index, moment, number, objects, text

__all__ = ["WireImage", "WireTask", "structured"]

# Every field has a default, because every field has been seen missing.


@frozen
class WireImage:
    """An entry of `task_result.images`."""

    index: int | None = None
    url: str = ""
    watermark_url: str = ""


@frozen
class _WireResult:
    images: tuple[WireImage, ...] = ()


@frozen
class _WireInfo:
    external_task_id: str = ""


@frozen
class WireTask:
    """The `data` of a create or a query."""

    task_id: str = ""
    task_info: _WireInfo = _WireInfo()
    task_status: str = ""
    task_status_msg: str = ""
    final_unit_deduction: Decimal | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    task_result: _WireResult = _WireResult()


@cache
def _lenient() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook(str, lambda value, _: text(value))
    converter.register_structure_hook(int | None, lambda value, _: index(value))
    converter.register_structure_hook(Decimal | None, lambda value, _: number(value))
    converter.register_structure_hook(datetime | None, lambda value, _: moment(value))
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[WireImage, ...],
        lambda value, _: tuple(converter.structure(item, WireImage) for item in objects(value)),
    )
    # Inner shapes first: an outer hook is built from those of its fields.
    for shape in (WireImage, _WireInfo, _WireResult, WireTask):
        converter.register_structure_hook(shape, _of_object(converter, shape))
    return converter


def _of_object(converter: Converter, shape: type[Any]) -> Callable[[object, Any], Any]:
    build = make_dict_structure_fn(shape, converter)
    return lambda value, _: build(value if isinstance(value, dict) else {}, shape)


def structured(data: object) -> WireTask:
    """Return what *data* tells of a task; nothing of it if it is no object."""
    task: WireTask = _lenient().structure(data, WireTask)
    return task
