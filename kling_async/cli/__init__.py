"""
The command line (extra `[cli]`): one module a family of commands, each imported when it is called for.

Data goes to stdout, talk to stderr; exit codes are those of `voice.EXIT_CODES`.
"""

from __future__ import annotations

import click

from kling_async.cli.lazy import LazyGroup

__all__ = ["cli"]

_COMMANDS = {
    "demo": ("kling_async.cli.demo", "See a whole run on the local emulator; no key, nothing charged."),
    "run": ("kling_async.cli.run", "Run a manifest and save the pictures."),
    "check": ("kling_async.cli.check", "Check every row and picture of a manifest, and show the cost."),
    "status": ("kling_async.cli.upkeep", "Show where a run stands."),
    "timeline": ("kling_async.cli.timeline", "Draw which task held which slot when, as SVG."),
    "gallery": ("kling_async.cli.gallery", "Write a run as a page to look at, without network."),
    "retry": ("kling_async.cli.upkeep", "Try again what failed in a run."),
    "fetch": ("kling_async.cli.fetch", "Fetch again what is missing or damaged; costs nothing."),
    "recover": ("kling_async.cli.upkeep", "Rebuild a lost or damaged journal; submits nothing."),
    "create": ("kling_async.cli.tasks", "Create one task."),
    "get": ("kling_async.cli.tasks", "Show one task."),
    "list": ("kling_async.cli.tasks", "List tasks."),
    "wait": ("kling_async.cli.tasks", "Wait for tasks and save their pictures."),
    "emulator": ("kling_async.cli.emulator", "Serve a local copy of the Kling API."),
    "webhook": ("kling_async.cli.webhook", "Receive callbacks here, verify them and pass them on."),
}

_EPILOG = """\
\b
Examples:
  kling-async demo
  kling-async check jobs.jsonl
  kling-async run jobs.jsonl -o out --budget 1000

\b
Exit codes: 0 all succeeded, 1 some failed, 2 usage or bad manifest, 3 credentials or configuration,
4 the account cannot pay or the budget is spent, 5 service unavailable, 130 interrupted and resumable.
Credentials come from KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY, or a .env file here.
"""


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        from kling_async import __version__

        click.echo(f"kling-async {__version__}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    commands_at=_COMMANDS,
    name="kling-async",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def cli() -> None:
    """Make images from several reference pictures with the Kling API, one or a million."""
