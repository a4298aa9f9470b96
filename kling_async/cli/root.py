"""The group of all commands."""

from __future__ import annotations

import click

from kling_async.cli import COMMANDS, EPILOG, SUMMARY
from kling_async.cli.lazy import LazyGroup

__all__ = ["cli"]


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        from kling_async import __version__

        click.echo(f"kling-async {__version__}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    commands_at=COMMANDS,
    name="kling-async",
    help=SUMMARY,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def cli() -> None:
    """Hand over to the command that was named."""
