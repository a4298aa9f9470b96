"""`fetch`: the pictures of a run that are not there, as long as the service has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import click

from kling_async.cli.earlier import Command, journal_of
from kling_async.cli.environment import Connection, connects
from kling_async.cli.money import plural
from kling_async.cli.voice import SOME_FAILED, Voice, error_fields, finish, speaks
from kling_async.errors import ConfigError
from kling_async.protocol.naming import TEMPLATE

if TYPE_CHECKING:
    from kling_async.batch.fetching import Fetched

__all__ = ["fetch_command"]


@click.command(
    name="fetch",
    epilog="""\b
Examples:
  kling-async fetch out
  kling-async fetch out --verify full --json | jq .failed
""",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--verify",
    type=click.Choice(["header", "full"]),
    default="header",
    show_default=True,
    help="How to check what is fetched.",
)
@speaks
@connects
def fetch_command(
    *, out: Path, verify: Literal["header", "full"], connection: Connection, voice: Voice
) -> None:
    """
    Fetch the pictures of the run in OUT that were never saved, are missing, or are damaged. Submits nothing.

    The service keeps pictures for 30 days. Damaged files are moved to `earlier/` beside them.
    """
    command = Command.of(out)
    if command is not None and command.emulated:
        raise ConfigError(
            f"expected a run on the service, found an emulated one in {out}; its emulator and its pictures are gone"
        )
    place = command.out if command and command.out else out
    template = command.name if command else TEMPLATE

    async def fetch() -> Fetched:
        async with connection.open() as kling:
            return await kling.fetch(out=place, name=template, verify=verify, journal=journal_of(out))

    found = anyio.run(fetch)
    if voice.json:
        voice.emit(_fields(found))
    for each in found.failed:
        voice.warn(f"{each.key}: {each.error}")
    voice.say(
        f"{plural(found.whole, 'picture')} whole, {len(found.fetched):,} fetched, "
        f"{plural(len(found.failed), 'job')} without some of theirs"
    )
    if found.unfinished:
        voice.say(
            f"{plural(found.unfinished, 'job')} not at an end yet; run the manifest again to collect them"
        )
    finish(SOME_FAILED if found.failed else 0)


def _fields(found: Fetched) -> dict[str, Any]:
    return {
        "whole": found.whole,
        "fetched": list(found.fetched),
        "failed": [{"key": each.key, "error": error_fields(each.error)} for each in found.failed],
        "unfinished": found.unfinished,
    }
