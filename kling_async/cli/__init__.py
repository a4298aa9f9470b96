"""
The command line (extra `[cli]`): one module a family of commands, each imported when it is called for.

Data goes to stdout, talk to stderr; exit codes are those of `voice.EXIT_CODES`. What stands here needs no click, so that
`kling-async --help` is there at once.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "SUMMARY", "help_text"]

SUMMARY = "Make images from several reference pictures with the Kling API."

# Name: its module, and its help in a line.
COMMANDS = {
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
    "account": ("kling_async.cli.account", "Show resource packs, units left and slots; costs nothing."),
    "doctor": ("kling_async.cli.doctor.command", "Find out what keeps this from working; costs nothing."),
    "webhook": ("kling_async.cli.webhook", "Receive callbacks here, verify them and pass them on."),
    "completion": ("kling_async.cli.completion", "Print what completes commands in your shell."),
}

_OPTIONS = {"--version": "Show the version.", "-h, --help": "Show this message and exit."}

_EXIT_CODES = """\
Exit codes: 0 all succeeded, 1 some failed, 2 usage or bad manifest,
3 credentials or configuration, 4 the account cannot pay or the budget is
spent, 5 service unavailable, 130 interrupted and resumable.
Credentials come from KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY,
or a .env file here."""

_EXAMPLES = """\
Examples:
  kling-async demo
  kling-async check jobs.jsonl
  kling-async run jobs.jsonl -o out --budget 1000"""

EPILOG = f"\b\n{_EXIT_CODES}\n\n\b\n{_EXAMPLES}\n"


def help_text() -> str:
    """
    Return the help of `kling-async` itself, laid out as click lays out that of its commands.

    No line is longer than 80 columns, and so it is the same for every terminal.
    """
    lines = ["Usage: kling-async [OPTIONS] COMMAND [ARGS]...", "", f"  {SUMMARY}"]
    commands = {name: line for name, (_, line) in COMMANDS.items()}
    for title, rows in (("Options", _OPTIONS), ("Commands", commands)):
        width = max(map(len, rows))
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {line}" for name, line in rows.items())]
    for block in (_EXIT_CODES, _EXAMPLES):
        lines += ["", *(f"  {line}" for line in block.split("\n"))]
    return "\n".join(lines) + "\n"
