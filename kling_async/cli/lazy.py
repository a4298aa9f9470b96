"""A group whose commands are imported when called, so that `--help` costs little; and the one place errors end."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import CompletionItem

from kling_async.cli import help_text

__all__ = ["Commands", "LazyGroup"]

_WORDS = "kling_async.words"


class Commands(click.Group):
    """A group that answers a mistyped command with the nearest name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of *args*."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from kling_async.cli.mistakes import nearest

            near = nearest(args[0], self.list_commands(ctx))
            hint = f"did you mean {near[0]!r}?" if near else f"see {ctx.command_path} --help"
            ctx.fail(f"expected a command, found {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(Commands):
    """
    A group told by *commands_at*: from a command's name to its module and its help in a line.

    In its module the command is a function `<name>_command`.
    """

    def __init__(self, *args: Any, commands_at: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order they were told."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import the command; None for an unknown one."""
        if cmd_name not in self._commands_at:
            return None
        command = getattr(import_module(self._commands_at[cmd_name][0]), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """Return the text that `kling-async --help` gives before click is loaded, so that there is one only."""
        return help_text().rstrip("\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing any, and the options of the group."""
        named = [
            CompletionItem(name, help=line)
            for name, (_, line) in self._commands_at.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._commands_at.items()])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Take in the call, of which errors may want to know all words."""
        words = tuple(args)
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _tell_mistake(error, words)
            raise click.exceptions.Exit(2) from error
        ctx.meta[_WORDS] = words
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of this package, and mistakes in the call, end in one line and their exit code."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            from kling_async.cli.voice import current_voice

            current_voice(ctx).warn("interrupted")
            ctx.exit(130)
        except BrokenPipeError:
            from kling_async.cli.voice import NOBODY_READS, stop_giving

            stop_giving()
            ctx.exit(NOBODY_READS)
        except click.UsageError as error:
            _tell_mistake(error, ctx.meta[_WORDS])
            ctx.exit(2)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            # Late, since the errors of this package need attrs, and help does not.
            from kling_async.cli.voice import current_voice, exit_code
            from kling_async.errors import KlingError

            if not isinstance(error, KlingError):
                raise
            current_voice(ctx).fail(error)
            ctx.exit(exit_code(error))


def _tell_mistake(error: click.UsageError, words: tuple[str, ...]) -> None:
    from kling_async.cli.mistakes import in_our_words, is_help
    from kling_async.cli.voice import Voice

    if is_help(error):
        raise error
    # The option may stand behind the mistake, so that nobody has read it yet; behind -- it is none.
    options = words[: words.index("--")] if "--" in words else words
    lines = "--progress=json" in options or ("--progress", "json") in pairwise(options)
    Voice(json="--json" in options, progress="json" if lines else "auto").fail(in_our_words(error, words))
