"""Errors without the frames that they came through, whose variables tools may show: headers, tokens, signed URLs."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["without_frames"]

E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Take the frames off *error* and off everything that led to it, and return it to be raised again."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
