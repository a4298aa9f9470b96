"""`account`: the resource packs of an account and the slots they give."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import click

from kling_async.cli.environment import Connection, connects
from kling_async.cli.money import plural
from kling_async.cli.report import moment
from kling_async.cli.voice import Voice, speaks
from kling_async.protocol.packs import Pack, slots_in

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["account_command"]


@click.command(
    name="account",
    epilog="""\b
Examples:
  kling-async account
  kling-async account --json | jq '.packs[] | select(.status == "online")'
""",
)
@speaks
@connects
def account_command(*, connection: Connection, voice: Voice) -> None:
    """
    Show the account's resource packs: units left, status, from when to when; and the slots. Costs nothing.

    The service says that units left may lag by 12 hours.
    """
    packs = anyio.run(_packs, connection)
    slots = slots_in(packs)
    if voice.json:
        voice.emit({"slots": slots, "packs": [_fields(pack) for pack in packs]})
        return
    for pack in packs:
        voice.data(_line(pack))
    if not packs:
        voice.say("no resource packs in the last year")
    if slots:
        voice.say(f"{plural(slots, 'slot')}, by the name of an online pack for images")
    else:
        voice.say("slots are in no online pack's name; a run learns them by trying, or set KLING_SLOTS")


async def _packs(connection: Connection) -> tuple[Pack, ...]:
    async with connection.open() as kling:
        return await kling.account.packs()


def _line(pack: Pack) -> str:
    units = f"{_number(pack.remaining)}/{_number(pack.total)} units"
    times = f"{_day(pack.effective_at)} to {_day(pack.invalid_at)}"
    return f"{pack.status:<10}  {units:>22}  {times}  {pack.name}"


def _fields(pack: Pack) -> dict[str, Any]:
    return {
        "name": pack.name,
        "pack_id": pack.pack_id or None,
        "status": pack.status or None,
        "total": None if pack.total is None else float(pack.total),
        "remaining": None if pack.remaining is None else float(pack.remaining),
        "slots": pack.slots,
        "effective_at": moment(pack.effective_at),
        "invalid_at": moment(pack.invalid_at),
    }


def _number(value: Decimal | None) -> str:
    return "?" if value is None else f"{float(value):,.10g}"


def _day(value: datetime | None) -> str:
    return "?" if value is None else f"{value:%Y-%m-%d}"
