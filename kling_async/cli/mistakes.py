"""What is wrong with a call, in the voice of all other errors: what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from kling_async.cli.voice import UsageError

__all__ = ["in_our_words", "is_help", "nearest"]


def is_help(error: click.UsageError) -> bool:
    """Tell whether *error* is the help of a group that was called without a command; click raises it from 8.2 on."""
    kind = getattr(click.exceptions, "NoArgsIsHelpError", None)
    return kind is not None and isinstance(error, kind)


def in_our_words(error: click.UsageError, words: Sequence[str]) -> UsageError:
    """Return *error*, found in *words*, the call without the program's name; what we raised ourselves stays as it is."""
    ctx = error.ctx
    if isinstance(error, click.BadOptionUsage):
        return UsageError(_wrong_use(error.option_name, words))
    if ctx is None or error.message.startswith("expected "):
        return UsageError(error.message)
    remedy = f"see {ctx.command_path} --help"
    if isinstance(error, click.NoSuchOption):
        near = error.possibilities or nearest(error.option_name, _options_of(ctx))
        found = f"expected an option of {ctx.command_path}, found {error.option_name}"
        return UsageError(f"{found}; {_hint(near, remedy)}")
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return UsageError(f"expected {_named(error.param)}, found none; {_example_of(ctx) or remedy}")
    given, rest = _given(ctx, words)
    if isinstance(error, click.BadParameter) and error.param is not None:
        told = _bad_value(error.param, given.get(error.param.name or ""), remedy)
        return UsageError(told or f"{error.format_message().rstrip('.')}; {remedy}")
    if rest:
        return UsageError(f"expected no further word, found {' '.join(map(repr, rest))}; {remedy}")
    return UsageError(f"{error.format_message().rstrip('.')}; {remedy}")


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return what *word* is most like of what is *known*, if it is like any."""
    return get_close_matches(word, list(known), n=1)


def _hint(near: Sequence[str], remedy: str) -> str:
    return f"did you mean {near[0]!r}?" if near else remedy


def _options_of(ctx: click.Context) -> list[str]:
    options = [each for each in ctx.command.get_params(ctx) if isinstance(each, click.Option)]
    return [name for each in options for name in (*each.opts, *each.secondary_opts)]


def _wrong_use(option: str, words: Sequence[str]) -> str:
    """Say what is wrong with a value of *option*: it is missing, or one too many."""
    command = "" if words[0].startswith("-") else f" {words[0]}"
    given = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    wanted, found = ("no value", repr(given[0])) if given else ("a value", "none")
    return f"{option}: expected {wanted}, found {found}; see kling-async{command} --help"


def _example_of(ctx: click.Context) -> str:
    """Return the first example of the command's help; empty if there is none."""
    lines = (line.strip() for line in (ctx.command.epilog or "").splitlines())
    example = next((line for line in lines if line.startswith("kling-async ")), "")
    return example and f"for example: {example}"


def _named(param: click.Parameter) -> str:
    return "/".join(param.opts) if isinstance(param, click.Option) else param.human_readable_name


def _given(ctx: click.Context, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what was given for each parameter of *ctx*, and the words that nobody took."""
    options, rest, _ = ctx.command.make_parser(ctx).parse_args(_behind(ctx, words))
    return options, rest


def _behind(ctx: click.Context, words: Sequence[str]) -> list[str]:
    """Return the words behind the name of the command of *ctx*; those before it are names of groups, and flags."""
    if ctx.parent is None:
        return list(words)
    left = _behind(ctx.parent, words)
    return left[left.index(ctx.info_name) + 1 :] if ctx.info_name in left else left


def _bad_value(param: click.Parameter, found: Any, remedy: str) -> str | None:
    """Say what *param* takes; None for a kind of value that has no words of ours."""
    kind = param.type
    if isinstance(kind, click.Choice):
        choices = [str(each) for each in kind.choices]
        wanted, near = f"one of {', '.join(choices)}", nearest(str(found), choices)
    elif isinstance(kind, click.IntRange | click.FloatRange):
        wanted, near = f"{_number(kind)}{_range(kind)}", []
    elif kind is click.INT:
        wanted, near = "a whole number", []
    else:
        return None
    return f"{_named(param)}: expected {wanted}, found {found!r}; {_hint(near, remedy)}"


def _number(kind: click.ParamType[Any]) -> str:
    return "a whole number" if isinstance(kind, click.IntRange) else "a number"


def _range(kind: click.IntRange | click.FloatRange) -> str:
    if kind.min is not None and kind.max is not None:
        return f" from {kind.min:g} to {kind.max:g}"
    if kind.min is None:
        return ""
    return f" {'over' if kind.min_open else 'of at least'} {kind.min:g}"
