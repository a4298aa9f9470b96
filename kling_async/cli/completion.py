"""`completion`: what a shell needs to complete commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kling_async.cli.voice import Voice, speaks

__all__ = ["completion_command"]

# Set by the script when it asks what may come next.
_VARIABLE = "_KLING_ASYNC_COMPLETE"


@click.command(
    name="completion",
    epilog="""\b
Examples:
  kling-async completion bash >> ~/.bashrc
  kling-async completion zsh >> ~/.zshrc
  kling-async completion fish > ~/.config/fish/completions/kling-async.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@speaks
def completion_command(*, shell: str, voice: Voice) -> None:
    """Print the script that makes SHELL complete commands, options and files of kling-async; it works in new shells."""
    script = _script(shell)
    if voice.json:
        voice.emit({"shell": shell, "script": script})
    else:
        voice.data(script)


def _script(shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None, "click knows all that can be chosen"
    ctx = click.get_current_context()
    script = kind(ctx.find_root().command, {}, "kling-async", _VARIABLE).source()
    if shell == "zsh":
        # click's script takes for granted that completion is switched on.
        tag, _, rest = script.partition("\n")
        return f"{tag}\n(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}\n{rest}"
    return script
