"""What a client is made of, put together from arguments and then the environment; nothing is opened or asked here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import field, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.auth import Credentials, credentials_from, credentials_from_env
from kling_async.protocol.endpoints import base_url

if TYPE_CHECKING:
    from kling_async.protocol.callbacks import Verifier
    from kling_async.slots.store import SlotStore

__all__ = ["Account", "Settings", "gather", "proxy_of", "shared", "verifier_of"]


@frozen
class Account:
    """
    One of several accounts of a client: its credentials, an *api_key* or the pair *access_key* and *secret_key*.

    *name* is yours, shows in outcomes, logs and journals, and must be different for each. *slots* is how many slots each model
    has on it; None means to find them out. Nothing is read from the environment.
    """

    name: str
    api_key: str | None = field(default=None, kw_only=True, repr=False)
    access_key: str | None = field(default=None, kw_only=True, repr=False)
    secret_key: str | None = field(default=None, kw_only=True, repr=False)
    slots: int | None = field(default=None, kw_only=True)

    def credentials(self) -> Credentials:
        """Return what the account signs with; raises `ConfigError` if there is nothing or half a pair."""
        found = credentials_from(api_key=self.api_key, access_key=self.access_key, secret_key=self.secret_key)
        if found is None:
            raise ConfigError(
                f"account {self.name}: expected an api_key, or access_key and secret_key, found neither"
            )
        return found


@frozen(kw_only=True)
class Settings:
    """A client's accounts as (name, credentials, slots), and the address of the service."""

    accounts: tuple[tuple[str, Credentials, int | None], ...]
    base_url: str


def gather(
    *,
    api_key: str | None,
    access_key: str | None,
    secret_key: str | None,
    accounts: Sequence[Account] | None,
    slots: object,
    address: str | None,
    region: str | None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """
    Put a client's settings together: arguments first, then *env* (the process's own if None).

    Raises `ConfigError` naming what is missing, doubled or of the wrong kind.
    """
    env = os.environ if env is None else env
    given = credentials_from(api_key=api_key, access_key=access_key, secret_key=secret_key)
    limit = _slots(slots if slots != "auto" else env.get("KLING_SLOTS") or "auto")
    if address is not None and not address.strip():
        # Whoever names an address does not mean the service itself, which charges.
        raise ConfigError(
            "base_url: expected an address, found an empty text; leave it out for the service's own"
        )
    # An argument for the region beats an address from the environment.
    where = base_url(address or (None if region else env.get("KLING_BASE_URL")), region or _region(env))
    if accounts is None:
        found = given or credentials_from_env(env)
        return Settings(accounts=(("default", found, limit),), base_url=where)
    if given is not None:
        raise ConfigError("expected credentials or accounts, found both; put all of them into accounts")
    names = [account.name for account in accounts]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"accounts: expected one or more with different names, found {names}")
    return Settings(
        accounts=tuple(
            (account.name, account.credentials(), limit if account.slots is None else _slots(account.slots))
            for account in accounts
        ),
        base_url=where,
    )


def _region(env: Mapping[str, str]) -> str:
    return env.get("KLING_REGION") or "global"


def _slots(value: object) -> int | None:
    text = value.strip() if isinstance(value, str) else value
    if text == "auto":
        return None
    if isinstance(text, str) and text.isdecimal():
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 1 <= text <= 1_000_000:
        raise ConfigError(f'slots: expected "auto" or a whole number above 0, found {value!r}')
    return text


def shared(value: object) -> SlotStore:
    """Return *value* if it is a store of slots; raises `ConfigError` if not."""
    from kling_async.slots.store import SlotStore

    if not isinstance(value, SlotStore):
        raise ConfigError(
            f'slots: expected "auto", a whole number above 0 or a store of kling_async.slots, found {value!r}'
        )
    return value


def verifier_of(secret: str | None, env: Mapping[str, str] | None = None) -> Verifier | None:
    """Return what knows callbacks signed with *secret*, or with that of *env* (the process's own if None); None without any."""
    env = os.environ if env is None else env
    found = secret if secret is not None else env.get("KLING_WEBHOOK_SECRET") or None
    if found is None:
        return None
    from kling_async.protocol.callbacks import Verifier

    return Verifier.of(found.strip())


def proxy_of(text: str | None) -> str | None:
    """Return *text* if it is the URL of an HTTP proxy; raises `ConfigError` if not, without showing its password."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            "proxy: expected an http(s) URL such as http://proxy.example:3128, found something else"
        )
    return text
