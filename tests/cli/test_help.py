"""Every help text: there at once, with an example that works, and nothing left unexplained."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_kit import call, environment

from kling_async.cli import COMMANDS, help_text
from kling_async.cli.root import cli

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
HEAVY = ("aiohttp", "asyncio", "rich", "PIL", "attrs", "click", "kling_async.client", "kling_async.batch")


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands under the words that call them."""
    root = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner, each in command.commands.items():
                yield f"{name} {inner}", each


ALL = dict(commands())


def examples(command: click.Command) -> list[str]:
    """The commands of the epilog, which is where examples stand."""
    return [line.strip() for line in (command.epilog or "").splitlines() if "kling-async " in line]


def words_of(example: str) -> list[str]:
    """The words of an example after `kling-async`, without what a shell does before and after it."""
    own = re.split(r" (?:\||&&|>>?) ", example)[0]
    words = shlex.split(own)
    return words[words.index("kling-async") + 1 :]


def test_help_imports_nothing_heavy() -> None:
    """Reading the help costs no client, no screen, no pictures, and not even click."""
    script = (
        "import sys\nfrom kling_async.__main__ import main\nsys.argv = ['kling-async', '--help']\nmain()\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules) or 0)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment()
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == help_text()


def test_the_first_help_is_what_click_would_say(tmp_path: Path) -> None:
    """Laid out as click lays it out in 80 columns, and the same however it is asked for."""
    context = click.Context(cli, info_name="kling-async", terminal_width=80, **cli.context_settings)

    by_click = click.Group.get_help(cli, context)
    asked = [call(word, cwd=tmp_path).out for word in ("--help", "-h")]
    through_click = call("--help", "--help", cwd=tmp_path).out

    assert by_click + "\n" == help_text()
    assert [*asked, through_click] == [help_text()] * 3
    assert max(map(len, help_text().splitlines())) <= 80


@pytest.mark.parametrize("name", ALL)
def test_each_command_has_help_that_ends_with_an_example(name: str) -> None:
    """It is one of this very command, and all its examples are ones that the command line takes."""
    command = ALL[name]
    shown = command.get_help(click.Context(command, info_name=f"kling-async {name}"))
    root = click.Context(cli)

    assert "kling-async " in shown.splitlines()[-1]
    assert f"kling-async {name}" in " ".join(examples(command))
    for example in examples(command):
        found: click.Command = cli
        context, rest = root, words_of(example)
        while isinstance(found, click.Group):
            _, inner, rest = found.resolve_command(context, rest)
            assert inner is not None
            found, context = inner, click.Context(inner, parent=context)
        found.make_context("example", rest)


@pytest.mark.parametrize("name", ALL)
def test_every_option_is_explained(name: str) -> None:
    """And all commands that do something take the three that everybody knows."""
    command = ALL[name]
    options = [each for each in command.params if isinstance(each, click.Option)]

    assert [each.name for each in options if not each.hidden and not each.help] == []
    if not isinstance(command, click.Group):
        assert {"--json", "--quiet", "--progress"} <= {flag for each in options for flag in each.opts}


@pytest.mark.parametrize("name", ALL)
def test_the_page_tells_of_every_command(name: str) -> None:
    """docs/command-line.md has a line for each."""
    assert f"`{name}" in PAGE.read_text(encoding="utf-8")


def test_the_page_names_options_that_exist() -> None:
    """None has gone or was spelt otherwise."""
    known = {
        flag
        for command in ALL.values()
        for each in command.params
        for flag in (*each.opts, *each.secondary_opts)
    }
    text = PAGE.read_text(encoding="utf-8")

    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))

    assert named - known - {"--help", "--version"} == set()


def test_a_reader_who_left_is_no_traceback(tmp_path: Path) -> None:
    """`kling-async --help | true` is quiet."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "kling_async", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment(),
        cwd=tmp_path,
    )
    os.close(writer)

    assert "Traceback" not in done.stderr
