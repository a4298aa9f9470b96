"""`status`, `retry`, `recover`: a run by its journal, between runs."""

from __future__ import annotations

import math
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click

from kling_async.batch.manifest import read_manifest
from kling_async.batch.upkeep import Status, read_status, retry_failed
from kling_async.cli.earlier import Command, is_emulated, journal_of
from kling_async.cli.environment import Connection, connects
from kling_async.cli.estimate import Estimate, estimate, retry
from kling_async.cli.money import dollars, in_dollars, plural
from kling_async.cli.run import spends
from kling_async.cli.running import Settings, refuse_unasked, run_manifest
from kling_async.cli.voice import Voice, finish, reading_manifest, speaks
from kling_async.errors import ConfigError
from kling_async.protocol.lifecycle import JobState

__all__ = ["recover_command", "retry_command", "status_command"]

# Days before the service deletes something from which on `status` warns.
_SOON = 7.0
# Seconds that `status` counts a large manifest for a person.
_PATIENCE = 5.0

_OUT = click.argument("out", type=click.Path(path_type=Path))


@click.command(name="status", epilog="\b\nExample:\n  kling-async status out --json | jq .totals")
@_OUT
@speaks
def status_command(*, out: Path, voice: Voice) -> None:
    """
    Show where the run in OUT stands, also while it runs.

    The first line counts the rows of the manifest, the others the jobs in the journal, which has no bad rows.
    """
    status, emulated = anyio.run(read_status, journal_of(out)), is_emulated(out)
    command = Command.of(out)
    rows = anyio.run(_rows, command, journal_of(out), None if voice.json else _PATIENCE)
    days = status.days_left(datetime.now(UTC))
    if days is not None and days <= _SOON:
        voice.warn(_expiry(status, days, out))
    if voice.json:
        voice.emit(_status_fields(status, days, rows) | {"emulated": emulated})
        return
    if emulated:
        voice.data("EMULATED: the pictures are composites, and nothing was charged")
    if rows is not None and command is not None:
        voice.data(f"manifest   {Path(command.manifest).name}: {rows.work(retry(out))}")
    for state, meaning in _MEANINGS.items():
        if state in status.totals:
            voice.data(f"{state.value:<10} {status.totals[state]:>9,}  {meaning}")
        if state is JobState.FAILED:
            for code, count in sorted(status.failures.items()):
                voice.data(f"  {count:,} with {code}")
    free = " (emulated)" if emulated else ""
    voice.data(
        f"committed  {status.units:>9,}  units ≈ {dollars(status.units)}{free}: the most that all tasks so far can cost"
    )
    if status.expires_at is not None:
        voice.data(
            f"unsaved    {status.unsaved:>9,}  run, or wait to be saved; the service keeps pictures until "
            f"{status.expires_at:%Y-%m-%d}"
        )


# What the states of the journal mean to a person, in the order of a job's life.
_MEANINGS = {
    JobState.PENDING: "to be sent by the next run",
    JobState.SUBMITTING: "sent, and the reply not read yet",
    JobState.UNKNOWN: "sent, and nobody knows whether it arrived: the next run asks",
    JobState.SUBMITTED: "run at the service",
    JobState.SUCCEEDED: "made, and not saved yet",
    JobState.DONE: "made and saved",
    JobState.FAILED: "",
    JobState.LOST: "made, but the service has deleted the pictures",
}


async def _rows(command: Command | None, journal: Path, patience: float | None) -> Estimate | None:
    """Count the rows of the manifest of *command*; None where it is gone, or cannot be counted with this *patience*."""
    if command is None:
        return None

    def count() -> Estimate:
        return estimate(Path(command.manifest), journal, command.shared)

    with anyio.move_on_after(patience), suppress(ConfigError):
        return await anyio.to_thread.run_sync(count, abandon_on_cancel=True)
    return None


def _expiry(status: Status, days: float, out: Path) -> str:
    assert status.expires_at is not None, "something is unsaved"
    jobs = plural(status.unsaved, "job")
    if days <= 0:
        return (
            f"warning: pictures of {jobs} are not saved, and the service keeps them for 30 days only, which ended on "
            f"{status.expires_at:%Y-%m-%d}; see what is left: kling-async fetch {shlex.quote(str(out))}"
        )
    return (
        f"warning: pictures of {jobs} are not saved, and the service deletes the first of them in "
        f"{plural(math.ceil(days), 'day')}, on {status.expires_at:%Y-%m-%d}: kling-async fetch {shlex.quote(str(out))}"
    )


def _status_fields(status: Status, days: float | None, rows: Estimate | None) -> dict[str, Any]:
    return {
        "run": status.run,
        "rows": None if rows is None else rows.rows,
        "todo": None if rows is None else rows.todo,
        "bad": None if rows is None else rows.bad,
        "changed": None if rows is None else rows.changed,
        "totals": {state.value: count for state, count in status.totals.items()},
        "failures": dict(status.failures),
        "unfinished": status.unfinished,
        "units": status.units,
        "dollars": in_dollars(status.units),
        "unsaved": status.unsaved,
        "expires_at": status.expires_at.isoformat() if status.expires_at else None,
        "expires_in_days": None if days is None else round(days, 2),
    }


@click.command(
    name="retry",
    epilog="""\b
Examples:
  kling-async retry out --yes
  kling-async retry out --code 1301 --code TaskFailed
""",
)
@_OUT
@click.option("--code", "codes", multiple=True, help="Only what failed with this code or kind of error.")
@spends
@speaks
@connects
def retry_command(*, out: Path, codes: tuple[str, ...], voice: Voice, **options: Any) -> None:
    """Try again what failed in OUT, as new attempts, and finish the run."""
    command = _command_of(out)
    settings = Settings(
        manifest=Path(command.manifest),
        out=command.out or out,
        journal=journal_of(out) if command.journal or command.out else None,
        name=command.name,
        emulator=command.emulated,
        shared=command.shared,
        fit=command.fit,
        verify=command.verify,
        **options,
    )
    refuse_unasked(settings)
    if not settings.emulator:
        settings.connection.describe()  # what is wrong with it is told before anything changes

    async def reopen() -> None:
        count = await retry_failed(journal_of(out), codes=codes)
        voice.say(f"{plural(count, 'failed job')} to try again")

    finish(anyio.run(partial(run_manifest, settings, voice, prepare=reopen)))


@click.command(name="recover", epilog="\b\nExample:\n  kling-async recover out && kling-async status out")
@_OUT
@click.option("--manifest", type=click.Path(path_type=Path), help="The run's manifest, if it has moved.")
@speaks
@connects
def recover_command(*, out: Path, manifest: Path | None, connection: Connection, voice: Voice) -> None:
    """Rebuild the lost or damaged journal of OUT from the manifest and the service's list. Submits nothing."""
    command = Command.of(out) if manifest is not None else _command_of(out)
    path = manifest or Path(command.manifest if command else "")
    shared = command.shared if command is not None and path.is_dir() else None
    place = command.out if command and command.out else out

    async def recover() -> None:
        with reading_manifest():
            rows = read_manifest(path, shared)
        async with connection.open() as kling:
            found = await kling.recover(rows, out=place, journal=journal_of(out))
        old = str(found.old_journal) if found.old_journal else None
        if voice.json:
            voice.emit({"found": found.found, "absent": found.absent, "old_journal": old})
        voice.say(
            f"{plural(found.found, 'task')} found, {plural(found.absent, 'row')} without a task; nothing was sent"
        )
        voice.say(f"the old journal is {old}" if old else "there was no old journal")

    anyio.run(recover)


def _command_of(out: Path) -> Command:
    command = Command.of(out)
    if command is None:
        raise ConfigError(
            f"expected the folder of a run, found no command.json in {out}; name the folder given to -o"
        )
    return command
