"""
How commands speak: data on stdout, talk on stderr, errors in one voice, and the exit codes.

An error is one line: what was expected, what was found, what to do, and the request id where there is one.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from attrs import define, field

from kling_async.errors import (
    AccountError,
    ApiError,
    AuthError,
    BatchStopped,
    BudgetSpent,
    ClusterLost,
    ConfigError,
    InArrears,
    InvalidJob,
    JournalError,
    KlingError,
    MalformedReply,
    NoFreeSlot,
    OutOfUnits,
    RateLimited,
    ServerError,
    SlotStoreError,
    SubmissionUnknown,
    TransportError,
)

__all__ = [
    "NOBODY_READS",
    "ManifestError",
    "UsageError",
    "Voice",
    "colours_on_stdout",
    "current_voice",
    "error_fields",
    "exit_code",
    "finish",
    "reading_manifest",
    "speaks",
    "stop_giving",
    "tell",
]

OK, SOME_FAILED, USAGE, CONFIG, CANNOT_PAY, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
# What a shell says of a command whose reader left: 128 and SIGPIPE.
NOBODY_READS = 141

_VOICE = "kling_async.voice"
F = TypeVar("F", bound=Callable[..., Any])


class ManifestError(ConfigError):
    """The manifest itself is bad, which is a mistake in the call and no matter of configuration."""


class UsageError(ConfigError):
    """The call itself is wrong, which is no matter of configuration either."""


# The first class that fits decides.
EXIT_CODES: tuple[tuple[type[KlingError], int], ...] = (
    (ManifestError, USAGE),
    (UsageError, USAGE),
    (InvalidJob, USAGE),
    (ConfigError, CONFIG),
    (BudgetSpent, CANNOT_PAY),
    (InArrears, CANNOT_PAY),
    (OutOfUnits, CANNOT_PAY),
    (AccountError, CONFIG),
    (AuthError, CONFIG),
    (RateLimited, UNAVAILABLE),
    (NoFreeSlot, UNAVAILABLE),
    (ServerError, UNAVAILABLE),
    (TransportError, UNAVAILABLE),
    (MalformedReply, UNAVAILABLE),
    (SubmissionUnknown, UNAVAILABLE),
    (SlotStoreError, UNAVAILABLE),
    (ClusterLost, UNAVAILABLE),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code *error* ends a command with; that of its cause, for a batch that was stopped by one."""
    if isinstance(error, BatchStopped) and not isinstance(error, BudgetSpent) and error.__cause__ is not None:
        return exit_code(error.__cause__)
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), SOME_FAILED)


def error_fields(error: KlingError) -> dict[str, object]:
    """Return *error* as in `results.jsonl`: type, code, message and request id."""
    api = error if isinstance(error, ApiError) else None
    return {
        "type": type(error).__name__,
        "code": api.code or None if api else None,
        "message": str(error),
        "request_id": (api.request_id if api else getattr(error, "request_id", "")) or None,
    }


@contextmanager
def reading_manifest() -> Iterator[None]:
    """Make what is wrong with the manifest a mistake of the call (exit 2)."""
    try:
        yield
    except JournalError:
        raise  # is looked into by the way, and no matter of the manifest
    except ConfigError as error:
        raise ManifestError(error.message) from error


def finish(code: int) -> None:
    """End the command with *code*."""
    click.get_current_context().exit(code)


@define(eq=False)
class Voice:
    """What the caller wants to hear: *json* data, no talk when *quiet*, and the kind of *progress*."""

    json: bool = False
    quiet: bool = False
    progress: str = "auto"
    _above: Callable[[str], None] | None = field(default=None, init=False)

    def say(self, text: str = "", *, colour: str | None = None, bold: bool = False) -> None:
        """Tell the person something, on stderr; above the live view while there is one."""
        if not self.quiet:
            self._write(text, colour, bold=bold)

    def tell(self, text: str, *, colour: str | None = None, bold: bool = False) -> None:
        """Tell the person a result: data, on stdout, but talk where the data is JSON."""
        if self.json:
            self.say(text, colour=colour, bold=bold)
        elif not self.quiet:
            styled = colours_on_stdout() and (colour or bold)
            click.echo(click.style(text, fg=colour, bold=bold) if styled else text)

    def warn(self, text: str) -> None:
        """Tell something that matters even to a quiet caller."""
        self._write(text, "yellow", bold=False)

    def fail(self, error: KlingError, **about: object) -> None:
        """Tell an error that ends the command, or what it is *about*; as data too if the caller reads JSON."""
        if self.json:
            self.emit({**about, "error": error_fields(error)})
        self._write(f"error: {error}", "red", bold=False)

    def data(self, text: str) -> None:
        """Give a line of data, on stdout."""
        click.echo(text)

    def emit(self, value: object) -> None:
        """Give *value* as one JSON document in a line, on stdout."""
        click.echo(json.dumps(value, ensure_ascii=False, default=str))

    def through(self, above: Callable[[str], None] | None) -> None:
        """Send what is said through *above* from now on; None for straight to stderr."""
        self._above = above

    def _write(self, text: str, colour: str | None, *, bold: bool) -> None:
        if self.progress == "json":
            tell(json.dumps({"event": "said", "message": text}, ensure_ascii=False))
            return
        if colours(sys.stderr) and (colour or bold):
            text = click.style(text, fg=colour, bold=bold)
        if self._above is not None:
            self._above(text)
        else:
            tell(text, colour=None if not os.environ.get("NO_COLOR") else False)


def tell(text: str, *, colour: bool | None = None) -> None:
    """Write a line to stderr. Where nobody reads it any more, go on: what was paid for is more than what is said of it."""
    try:
        click.echo(text, err=True, color=colour)
    except BrokenPipeError:
        _let_go(sys.stderr)


def stop_giving() -> None:
    """Give no more data: nobody reads it. Without this, the interpreter would complain of it as it ends."""
    _let_go(sys.stdout)


def _let_go(stream: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def colours(stream: Any) -> bool:
    """Tell whether *stream* shows colours: a terminal, and nobody said no. FORCE_COLOR makes no terminal of a file."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colours_on_stdout() -> bool:
    """Tell whether data may be coloured."""
    return colours(sys.stdout)


def current_voice(ctx: click.Context) -> Voice:
    """Return the voice of the running command, or a plain one before there is any."""
    voice = ctx.meta.get(_VOICE)
    return voice if isinstance(voice, Voice) else Voice()


def speaks(command: F) -> F:
    """Give *command* the options all commands share; it gets them as *voice*."""

    @click.option("--json", "as_json", is_flag=True, help="Write data as JSON (stable) to stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option(
        "--progress",
        type=click.Choice(["auto", "live", "plain", "json", "none"]),
        default="auto",
        show_default=True,
        help="How to show progress, on stderr.",
    )
    @functools.wraps(command)
    def spoken(*args: Any, as_json: bool, quiet: bool, progress: str, **kwargs: Any) -> Any:
        voice = Voice(
            json=as_json, quiet=quiet, progress="none" if quiet and progress == "auto" else progress
        )
        click.get_current_context().meta[_VOICE] = voice
        return command(*args, voice=voice, **kwargs)

    return spoken  # type: ignore[return-value]  # the wrapper takes what the command takes, and three options more
