"""`run`: a manifest to pictures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kling_async.cli.environment import connects
from kling_async.cli.intake import shares, takes_pictures
from kling_async.cli.place import Place
from kling_async.cli.voice import Voice, finish, speaks
from kling_async.protocol.naming import TEMPLATE

if TYPE_CHECKING:
    from kling_async.cli.running import Settings


__all__ = ["run_command", "spends"]


_SPENDING = (
    click.option("--slots", type=click.IntRange(min=1), help="Slots of the account, instead of finding out."),
    click.option(
        "--budget",
        type=click.IntRange(min=0),
        metavar="UNITS",
        help="Most units to commit, earlier runs included.",
    ),
    click.option("-y", "--yes", is_flag=True, help="Do not ask before spending."),
    click.option("--split", is_flag=True, help="Make jobs with more pictures than slots as several tasks."),
    click.option("--in-order", is_flag=True, help="Finish rows in the order of the manifest."),
)


def spends(command: Any) -> Any:
    """Give *command* the options of all commands that run jobs."""
    for option in reversed(_SPENDING):
        command = option(command)
    return command


@click.command(
    name="run",
    epilog="""\b
Examples:
  kling-async run jobs.jsonl -o out --emulator
  kling-async run jobs.csv -o out --budget 5000 --yes
  kling-async run jobs.csv -o s3://bucket/july --journal july/journal.db --budget 5000
  kling-async run photos -o out --style watercolour.png --prompt "as a painting" --fit auto
""",
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=Place(),
    required=True,
    help="Folder for pictures and results, or s3://, gs://, az://.",
)
@click.option(
    "--name", metavar="TEMPLATE", default=TEMPLATE, show_default=True, help="What pictures are called."
)
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Journal of the run.  [default: OUT/journal.db]"
)
@spends
@click.option("--emulator", is_flag=True, help="Use the local emulator: nothing is sent, nothing charged.")
@click.option("--engine", metavar="URL", help="Run on a Dask cluster: dask://host:8786.")
@click.option(
    "--slots-store", metavar="URL", help="Store that shares the slots: redis://host, without a password."
)
@click.option("--update", is_flag=True, help="Do rows anew that changed under their key since they ended.")
@click.option("--strict", is_flag=True, help="Check everything first; send nothing if any row is bad.")
@takes_pictures
@shares
@speaks
@connects
def run_command(*, manifest: Path, voice: Voice, strict: bool, **options: Any) -> None:
    """
    Run MANIFEST (JSONL, CSV, TSV, or a folder of pictures) and save the pictures.

    Shows the target and the cost first and asks once. Running it again continues where it was left, even by a crash;
    nothing is paid for twice.
    """
    import anyio

    from kling_async.cli.running import Settings, refuse_unasked

    settings = Settings(manifest=manifest, strict=strict, **options)
    refuse_unasked(settings)
    if strict:
        from kling_async.cli.check import refuse_bad_rows
        from kling_async.protocol.pictures import PictureRules

        rules = PictureRules(fit=settings.fit, verify=settings.verify)
        anyio.run(refuse_bad_rows, manifest, settings.shared, rules, voice)
    finish(anyio.run(_runner_of(settings), settings, voice))


def _runner_of(settings: Settings) -> Callable[[Settings, Voice], Awaitable[int]]:
    """Return what runs the manifest: this process, or the cluster that was named."""
    if settings.engine is None:
        if settings.slots_store is not None:
            raise click.UsageError("expected --engine with --slots-store, found no engine")
        from kling_async.cli.running import run_manifest

        return run_manifest
    unknown = settings.emulator or settings.split or settings.in_order or settings.update
    pictures = settings.shared or settings.fit or settings.verify != "header" or settings.name != TEMPLATE
    if unknown or pictures:
        raise click.UsageError(
            "expected --engine without --emulator, --split, --in-order, --update, --fit, --verify, --name and fields for "
            "all rows, which a cluster does not know"
        )
    from kling_async.cli.cluster import run_on_cluster

    return run_on_cluster
