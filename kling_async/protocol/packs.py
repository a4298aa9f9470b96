"""Resource packs of an account, and the number of slots that stands in their names and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from attrs import field, frozen

from kling_async.errors import MalformedReply
from kling_async.protocol.codes import api_error
from kling_async.protocol.scalars import code_of, moment, number, text

__all__ = ["Pack", "read_packs", "slots_in"]

# Seen live: "Trial-Image-1000Units-9Con-1Months".
_SLOTS = re.compile(r"(?<![A-Za-z0-9])(\d{1,6})Con(?![A-Za-z])", re.IGNORECASE)
_OTHER_PRODUCTS = re.compile(r"video|try-?on", re.IGNORECASE)


@frozen(kw_only=True)
class Pack:
    """
    One resource pack.

    *remaining* and *total* are units (the vendor says that *remaining* may lag by 12 hours), *status* is `online`,
    `toBeOnline`, `expired` or `runOut`, *slots* the concurrency that its name states.
    It can be used from *effective_at* to *invalid_at*.
    """

    name: str
    pack_id: str = ""
    status: str = ""
    total: Decimal | None = None
    remaining: Decimal | None = None
    effective_at: datetime | None = None
    invalid_at: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def slots(self) -> int | None:
        """How many slots the name promises, as in `9Con`; None if it promises none."""
        found = _SLOTS.search(self.name)
        return int(found[1]) if found else None

    @property
    def is_for_images(self) -> bool:
        """Whether the pack's name speaks of no other product."""
        return _OTHER_PRODUCTS.search(self.name) is None


def read_packs(data: object, *, request_id: str = "") -> tuple[Pack, ...]:
    """
    Read the `data` of `/account/costs`, which is an envelope of its own (with `msg`, not `message`).

    Raises `ApiError` for a refusal inside it and `MalformedReply` for another shape.
    """
    if not isinstance(data, Mapping):
        raise MalformedReply("expected an object with resource packs, found none", 200, request_id)
    code = code_of(data.get("code"))
    if code:
        raise api_error(code, 200, text(data.get("msg")), request_id=request_id)
    entries = data.get("resource_pack_subscribe_infos")
    return tuple(
        Pack(
            name=text(entry.get("resource_pack_name")),
            pack_id=text(entry.get("resource_pack_id")),
            status=text(entry.get("status")),
            total=number(entry.get("total_quantity")),
            remaining=number(entry.get("remaining_quantity")),
            effective_at=moment(entry.get("effective_time")),
            invalid_at=moment(entry.get("invalid_time")),
            raw=entry,
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping)
    )


def slots_in(packs: Iterable[Pack]) -> int | None:
    """Return the slots of the account: the most that one online image pack promises (5 and 10 make 10, not 15)."""
    promised = [pack.slots for pack in packs if pack.status == "online" and pack.is_for_images]
    return max((slots for slots in promised if slots), default=None)
