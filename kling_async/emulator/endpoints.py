"""
The endpoints there are: a row for each, with the class that reads its orders.

A sister endpoint of the image family is one more row and one more class with *model_name*, *weight*, *units* and
the other fields of `MultiImageOrder`; routes, store and replies work from this table.
"""

from __future__ import annotations

from attrs import frozen

from kling_async.emulator.rules import MultiImageOrder

__all__ = ["ENDPOINTS", "MULTI_IMAGE", "Endpoint"]


@frozen
class Endpoint:
    """One endpoint: its path, and the class of its orders."""

    path: str
    order: type[MultiImageOrder]


MULTI_IMAGE = Endpoint("/v1/images/multi-image2image", MultiImageOrder)
ENDPOINTS = (MULTI_IMAGE,)
