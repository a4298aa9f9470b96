"""What `doctor` finds out, and what it says about it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

from kling_async.cli.voice import exit_code
from kling_async.errors import ConfigError, KlingError
from kling_async.protocol.packs import Pack

__all__ = ["Answer", "Environment", "Facts", "Finding", "Level", "Machine", "Place", "failed"]

Level: TypeAlias = Literal["ok", "warning", "failed"]


@frozen(kw_only=True)
class Finding:
    """One line of the report; *exit_code* is what it makes of the command's."""

    check: str
    level: Level
    found: str
    remedy: str = ""
    exit_code: int = 0


def failed(check: str, error: KlingError, remedy: str = "") -> Finding:
    """Return the finding that *error* is, with the exit code that it ends other commands with."""
    return Finding(check=check, level="failed", found=str(error), remedy=remedy, exit_code=exit_code(error))


@frozen(kw_only=True)
class Environment:
    """The variables there are, *from_file* those that `.env` added; *trouble* is what is wrong with that file."""

    variables: Mapping[str, str] = field(repr=False)
    from_file: frozenset[str] = frozenset()
    trouble: ConfigError | None = None


@frozen(kw_only=True)
class Answer:
    """
    What came of one free request: an *error*, or the *packs* it asked for.

    *seconds* is None if nobody answered. *service_time* is the service's clock in Unix seconds and *our_time* ours,
    both in the middle of the request.
    """

    error: KlingError | None = None
    packs: tuple[Pack, ...] = ()
    seconds: float | None = None
    service_time: float | None = None
    our_time: float = 0.0


@frozen(kw_only=True)
class Machine:
    """
    This machine: *packages* by name, None for one that is missing; *open_files* the soft limit, None for none.

    *proxy* is what the environment names for the service, its password taken out; *certificates* names where trusted
    ones come from, empty if there are none.
    """

    python: tuple[int, int, int]
    packages: Mapping[str, str | None]
    open_files: int | None
    proxy: str | None
    certificates: str


@frozen(kw_only=True)
class Place:
    """Where results are to go: *trouble* is what keeps files from being made, *wal* what keeps SQLite's WAL from working."""

    shown: str
    exists: bool = True
    trouble: str = ""
    wal: str = ""
    kind: str = ""
    free: int | None = None


@frozen(kw_only=True)
class Facts:
    """Everything that the report rests on; *address* is None if it could not be made out, *place* if none was named."""

    environment: Environment
    address: str | None
    address_trouble: ConfigError | None
    answer: Answer | None
    machine: Machine
    place: Place | None = None
