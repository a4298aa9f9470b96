"""
One job made as several tasks: how it is divided, what its parts are called, and how their tasks become one again.

A division is known by the number of its parts alone: the same job in the same number of parts is the same division on
every machine, so a run that was cut short finds its parts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from math import ceil

from attrs import evolve, field, frozen

from kling_async.protocol.jobs import KEY_DIVIDER, MultiImage
from kling_async.protocol.tasks import ResultImage, Task

__all__ = [
    "Made",
    "fewest_parts",
    "is_part",
    "join",
    "part_job",
    "part_key",
    "shares",
    "shown_key",
    "whole_key",
]

# What is left of a caller's own external id of 64 characters when "-9of9" and the number of an attempt are added.
_LONGEST_OWN = 54


def fewest_parts(n: int, most: int) -> int:
    """Say into how few parts of at most *most* pictures *n* pictures can be divided."""
    return ceil(n / most)


def shares(n: int, count: int) -> tuple[int, ...]:
    """
    Divide *n* pictures into *count* parts, as even as can be, the larger ones first.

    Even parts leave the least of a lane unused; a large one and a remainder would wait for each other.
    """
    least, more = divmod(n, count)
    return (least + 1,) * more + (least,) * (count - more)


def part_key(key: str, number: int, count: int) -> str:
    """Name part *number* (from 1) of *count* in the journal; no job can have such a key."""
    return f"{key}{KEY_DIVIDER}{number}/{count}"


def is_part(key: str) -> bool:
    """Tell whether *key* names a part of a job."""
    return KEY_DIVIDER in key


def whole_key(key: str) -> str:
    """Return the key of the job that *key* names, or names a part of."""
    return key.partition(KEY_DIVIDER)[0]


def shown_key(key: str) -> str:
    """Return *key* as people read it."""
    whole, divider, part = key.partition(KEY_DIVIDER)
    return f"{whole} (part {part.replace('/', ' of ')})" if divider else whole


def part_job(job: MultiImage, number: int, count: int) -> MultiImage:
    """Return part *number* (from 1) of *count* of *job*, as a job; a caller's own external id gets a number too."""
    own = job.external_task_id
    return evolve(
        job,
        n=shares(job.n, count)[number - 1],
        key=None,
        external_task_id=f"{own[:_LONGEST_OWN]}-{number}of{count}" if own else None,
    )


@frozen
class Made:
    """What became of one part: its *task*, and at which place of the whole its pictures begin."""

    task: Task = field(repr=False)
    first: int


def join(made: Sequence[Made]) -> Task:
    """
    Make one task of several: all their pictures in order, their units added up, from the first creation to the last end.

    The ids are those of all tasks with commas between. The status is that of the first that did not succeed, else of
    the first. Raises `ValueError` if there is none.
    """
    if not made:
        raise ValueError("expected at least one task, found none")
    tasks = [part.task for part in made]
    decisive = next((task for task in tasks if task.status.name != "SUCCEED"), tasks[0])
    units = [task.units for task in tasks if task.units is not None]
    return evolve(
        decisive,
        task_id=",".join(task.task_id for task in tasks),
        external_task_id=",".join(task.external_task_id for task in tasks if task.external_task_id),
        images=tuple(image for part in made for image in _images(part)),
        units=sum(units, Decimal(0)) if units else None,
        created_at=min(_moments(task.created_at for task in tasks), default=None),
        updated_at=max(_moments(task.updated_at for task in tasks), default=None),
        raw={"parts": [task.raw for task in tasks]},
    )


def _images(part: Made) -> Iterable[ResultImage]:
    # By their order, since a service that numbers from 1 or leaves a number out must not make two of the same name.
    in_order = sorted(part.task.images, key=lambda image: image.index)
    return (evolve(image, index=place) for place, image in enumerate(in_order, part.first))


def _moments(values: Iterable[datetime | None]) -> list[datetime]:
    return [value for value in values if value is not None]
