"""
Where the command line's client comes from: the environment, a `.env` file here, and the options.

Only the command line reads `.env`, and only the names that start with `KLING`; the real environment always wins.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import frozen

from kling_async.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from kling_async import Kling
    from kling_async.protocol.events import Event

__all__ = ["Connection", "addresses", "connects", "load_env_file", "writable_folder"]

F = TypeVar("F", bound=Callable[..., Any])
_CREDENTIALS = ("API_KEY", "ACCESS_KEY", "SECRET_KEY")
_CREDENTIAL_NAMES = frozenset(f"{prefix}_{name}" for prefix in ("KLING", "KLINGAI") for name in _CREDENTIALS)


def load_env_file(path: Path, environ: dict[str, str] | os._Environ[str]) -> list[str]:
    """
    Add what *path* sets to *environ* and return the names added; no file adds nothing.

    Credentials are taken together or not at all: one in the file never goes before, or is mixed with, one of the
    real environment.
    """
    if not path.is_file():
        return []
    found = _read_env(path)
    real = any(environ.get(name) for name in _CREDENTIAL_NAMES)
    wanted = {
        name: value
        for name, value in found.items()
        if value
        and name.startswith("KLING")
        and name not in environ
        and not (real and name in _CREDENTIAL_NAMES)
    }
    environ.update(wanted)
    return sorted(wanted)


def _read_env(path: Path) -> Mapping[str, str | None]:
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        raise MissingExtra(
            'reading .env: expected python-dotenv, found no such module; install it: pip install "kling-async[cli]"',
            "cli",
        ) from None
    try:
        return dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: expected a readable UTF-8 file, found {error}; correct or remove it"
        ) from error


@frozen(kw_only=True)
class Connection:
    """Which service to talk to; what is None comes from the environment."""

    base_url: str | None
    region: str | None

    def open(self, *, slots: int | None = None, on_event: Callable[[Event], None] | None = None) -> Kling:
        """Make the client; ConfigError for bad credentials or addresses. Nothing is sent."""
        from kling_async import Kling

        options: dict[str, Any] = {"base_url": self.base_url, "on_event": on_event}
        if self.region is not None:
            options["region"] = self.region
        if slots is not None:
            options["slots"] = slots
        return Kling(**options)

    def describe(self, slots: int | None = None) -> list[str]:
        """Return lines that say which service and account this is; ConfigError as open() would raise it."""
        from kling_async.client.settings import gather
        from kling_async.protocol.auth import KeyPair

        settings = gather(
            api_key=None,
            access_key=None,
            secret_key=None,
            accounts=None,
            slots="auto" if slots is None else slots,
            address=self.base_url,
            region=self.region,
        )
        (_, credentials, limit), *_ = settings.accounts
        pair = isinstance(credentials, KeyPair)
        secret = credentials.access_key if isinstance(credentials, KeyPair) else credentials.key
        shown = f"…{secret[-2:]}" if len(secret) >= 12 else "…"
        return [
            f"target    {settings.base_url}",
            f"account   {'access key' if pair else 'API key'} {shown}, slots {limit or 'found out'}",
        ]


def addresses(command: F) -> F:
    """Give *command* the options that say where the service is: *base_url* and *region*."""
    command = click.option("--region", type=click.Choice(["global", "cn"]), help="Region of the account.")(
        command
    )
    return click.option("--base-url", metavar="URL", help="Address of the service, instead of the region's.")(
        command
    )


def connects(command: F) -> F:
    """Give *command* the options that choose the service; it gets them as *connection*, and `.env` is read."""

    @addresses
    @functools.wraps(command)
    def connected(*args: Any, base_url: str | None, region: str | None, **kwargs: Any) -> Any:
        load_env_file(Path.cwd() / ".env", os.environ)
        return command(*args, connection=Connection(base_url=base_url, region=region), **kwargs)

    return connected  # type: ignore[return-value]  # the wrapper takes what the command takes, and two options more


def writable_folder(path: Path) -> Path:
    """Make the folder *path* if need be and see that files can be made in it; ConfigError if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"output folder: expected a folder that can be written to, found {path}: {error.strerror or error}; "
            "choose another with -o, or correct its permissions"
        ) from error
    return path
