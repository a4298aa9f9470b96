"""Whatever the documentation tells to type is a command that there is, with arguments and options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from kling_async.cli.root import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(kling-async [^`]+)`(?!`)")
# What stands for more of the same.
_AND_SO_ON = {"...", "…"}


def commands(text: str) -> list[str]:
    """Return the lines of *text* that are commands, from blocks and from sentences."""
    lines = []
    for kind, block in _BLOCK.findall(text):
        typed = block.replace("\\\n", " ").splitlines()
        lines += [line.removeprefix("$ ") for line in typed if kind == "sh" or line.startswith("$ ")]
    return [line for line in lines if "kling-async" in line] + _INLINE.findall(re.sub(r"\s*\n\s*", " ", text))


def calls(line: str) -> list[list[str]]:
    """Return the arguments of each call of `kling-async` in *line*."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = []
    open_call: list[str] | None = None
    begins = True
    for word in lexer:
        if set(word) <= set("();<>|&"):
            if open_call and word[0] in "<>" and open_call[-1].isdigit():
                del open_call[-1]  # the number of what is redirected
            open_call, begins = None, True
        elif open_call is not None:
            open_call.append(word)
        elif begins and word.rpartition("/")[2] == "kling-async":
            open_call = []
            found.append(open_call)
        else:
            begins = "=" in word  # a variable for the command that follows
    return found


def misfit(arguments: list[str]) -> str | None:
    """Tell what of *arguments* the command line does not know; nothing is run, and no value is looked at."""
    command: click.Command = cli
    # With its settings: click keeps the option for help that the first context asks for.
    context = click.Context(cli, info_name="kling-async", **cli.context_settings)
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        below = command.get_command(context, rest[0])
        if below is None:
            return f"no command {rest[0]}"
        command, context = below, click.Context(below, parent=context, info_name=rest.pop(0))
    try:
        _, left, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    left = [word for word in left if word not in _AND_SO_ON]
    return f"too many: {left}" if left else None


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_commands_of_a_page(page: str) -> None:
    """Each command on a page fits the command line."""
    found = [call for line in commands((ROOT / page).read_text("utf-8")) for call in calls(line)]

    wrong = {shlex.join(call): why for call in found if (why := misfit(call)) is not None}

    assert wrong == {}


def test_commands_are_found() -> None:
    """The search sees blocks, sentences, chains of commands, and a slip in any of them."""
    text = "```sh\ncd x && .venv/bin/kling-async run a.csv \\\n  -o out # once\nKLING_SLOTS=3 kling-async demo\n```\nor `kling-async chek a`"

    found = [call for line in commands(text) for call in calls(line)]

    assert found == [["run", "a.csv", "-o", "out"], ["demo"], ["chek", "a"]]
    assert misfit(["chek", "a"]) == "no command chek"
    assert "--bugdet" in (misfit(["run", "a.csv", "-o", "out", "--bugdet", "3"]) or "")
    assert misfit(["status", "out", "more"]) == "too many: ['more']"
