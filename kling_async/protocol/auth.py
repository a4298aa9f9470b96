"""
Credentials and the tokens made from them.

A key pair signs a short-lived JWT (HS256, as the vendor's page shows); a plain API key is its own token. Secrets
appear in no repr. Time comes from outside: *now* is monotonic seconds, *wall* is Unix time.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from kling_async.errors import AuthError, ConfigError

__all__ = [
    "ApiKey",
    "Credentials",
    "KeyPair",
    "Sealed",
    "Signer",
    "credentials_from",
    "credentials_from_env",
    "fingerprint",
    "name_credentials",
]

# The vendor's sample: valid for 30 minutes from five seconds ago. No longest life is documented.
LIFETIME = 1800.0
LEEWAY = 5.0
# A token is renewed when this part of its life is over (R7), so that none is sent in its last seconds.
RENEW_AT = 0.8
# A refusal of a token younger than this is not the token's age (faults.md §2).
YOUNG = 5.0

_PREFIXES = ("KLING", "KLINGAI")
WHERE_KEYS_ARE_MADE = "https://kling.ai/dev/api-key"


def _hint(secret: str) -> str:
    return repr(f"{secret[:3]}…{secret[-2:]}" if len(secret) >= 12 else "…")


@frozen
class Sealed:
    """A secret on its way through functions, whose local variables a traceback may show; no string, so that none can."""

    text: str = field(repr=False)

    def __str__(self) -> str:
        return "***"


@frozen
class ApiKey:
    """A plain API key (since 2026-06); a finished JWT given as key passes as well, until it expires."""

    key: str = field(repr=False)
    # Where it was found: the name of an argument, or of a variable of the environment.
    origin: str = field(default="", eq=False, repr=False)

    def __str__(self) -> str:
        return "ApiKey(***)"

    __repr__ = __str__


@frozen
class KeyPair:
    """An access key and the secret key that signs in its name."""

    access_key: str = field(repr=_hint)
    secret_key: str = field(repr=lambda _: "***")
    origin: str = field(default="", eq=False, repr=False)

    def __str__(self) -> str:
        return repr(self)


Credentials: TypeAlias = ApiKey | KeyPair


def fingerprint(credentials: Credentials) -> str:
    """Return a name for whoever uses *credentials*, the same in every process, from which they cannot be learned."""
    public = credentials.key if isinstance(credentials, ApiKey) else credentials.access_key
    return hashlib.sha256(f"kling-async account\n{public}".encode()).hexdigest()[:16]


def name_credentials(error: AuthError, credentials: Credentials) -> None:
    """Say in the remedy of *error* which *credentials* were not accepted, so that nobody looks at others; never a secret."""
    kind = "the API key" if isinstance(credentials, ApiKey) else "the access key and its secret key"
    origin = f" from {credentials.origin}" if credentials.origin else ""
    told = f"{kind}{origin} (fingerprint {fingerprint(credentials)[:8]}) was used"
    if told not in error.remedy:
        error.remedy = f"{error.remedy}; {told}".removeprefix("; ")


def credentials_from(
    *, api_key: str | None = None, access_key: str | None = None, secret_key: str | None = None
) -> Credentials | None:
    """
    Make credentials of arguments; None if none was given.

    Blanks around a key are taken off. Raises `ConfigError` for half a pair, for both kinds at once, and for a key
    that is empty or has blanks or other than ASCII characters inside.
    """
    if api_key is not None and (access_key is not None or secret_key is not None):
        raise ConfigError(
            "expected an api_key or a pair of access_key and secret_key, found both; give one of them"
        )
    if api_key is not None:
        return ApiKey(_clean("api_key", api_key), "api_key")
    if access_key is None and secret_key is None:
        return None
    if access_key is None or secret_key is None:
        missing, given = ("access_key", "secret_key") if access_key is None else ("secret_key", "access_key")
        raise ConfigError(f"expected access_key and secret_key, found only {given}; give {missing} too")
    return KeyPair(_clean("access_key", access_key), _clean("secret_key", secret_key), "access_key")


def credentials_from_env(env: Mapping[str, str]) -> Credentials:
    """
    Find credentials in *env*: an API key, else a pair, under the prefix KLING_, else the same under KLINGAI_.

    Raises `ConfigError` that names what was looked for, or the missing half of a pair.
    """
    for prefix in _PREFIXES:
        if key := env.get(f"{prefix}_API_KEY"):
            return ApiKey(_clean(f"{prefix}_API_KEY", key), f"{prefix}_API_KEY")
        names = (f"{prefix}_ACCESS_KEY", f"{prefix}_SECRET_KEY")
        access, secret = (env.get(name) for name in names)
        if access and secret:
            return KeyPair(_clean(names[0], access), _clean(names[1], secret), names[0])
        if access or secret:
            given, missing = names if access else names[::-1]
            raise ConfigError(f"expected {names[0]} and {names[1]}, found only {given}; set {missing} too")
    raise ConfigError(
        "no credentials: expected KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY (the same with KLINGAI_) "
        f"in the environment, or arguments; make a key at {WHERE_KEYS_ARE_MADE}"
    )


def _clean(name: str, value: str) -> str:
    text = value.strip()
    if not text:
        raise ConfigError(
            f"{name}: expected a key, found an empty one; leave it out to take the environment's, or make one at "
            f"{WHERE_KEYS_ARE_MADE}"
        )
    if not text.isascii() or any(ch.isspace() or not ch.isprintable() for ch in text):
        raise ConfigError(
            f"{name}: expected a key without blanks inside, found something else; copy it again"
        )
    return text


@frozen
class _Token:
    text: str = field(repr=False)
    made_at: float


@define(eq=False)
class Signer:
    """
    Hands out the token of one account and renews it.

    All calls share one token, so that a hundred refusals of it cause one renewal: whoever comes second finds that
    the token it complains of is no longer the current one.
    """

    credentials: Credentials
    _token: _Token | None = field(default=None, init=False, repr=False)
    # Seconds that the service's clock is ahead of ours, learned from its `Date` header.
    offset: float = field(default=0.0, init=False)

    def token(self, now: float, wall: float) -> str:
        """Return a token that is valid now, making a new one when the current one is old."""
        if isinstance(self.credentials, ApiKey):
            return self.credentials.key
        if self._token is None or now - self._token.made_at >= LIFETIME * RENEW_AT:
            self._token = _Token(_sign(self.credentials, wall + self.offset), now)
        return self._token.text

    def renew(self, refused: str, now: float, wall: float, service_time: float | None) -> bool:
        """
        Make a new token because the service refused the one called *refused*; False if that cannot help.

        *service_time* is the Unix time of the service's `Date` header, which corrects our clock.
        """
        if isinstance(self.credentials, ApiKey):
            return False
        if self._token is not None and self._token.text != refused:
            return True
        if service_time is not None:
            self.offset = service_time - wall
        self._token = _Token(_sign(self.credentials, wall + self.offset), now)
        return True

    def is_stale(self, refused: str, now: float) -> bool:
        """Tell whether *refused* may have been refused for its age: it has been replaced or is no longer young."""
        if isinstance(self.credentials, ApiKey) or self._token is None:
            return False
        return self._token.text != refused or now - self._token.made_at > YOUNG


def _sign(pair: KeyPair, wall: float) -> str:
    # Imported here: a client with a plain API key needs no JWT library at start.
    import jwt

    claims = {"iss": pair.access_key, "exp": int(wall + LIFETIME), "nbf": int(wall - LEEWAY)}
    with warnings.catch_warnings():
        # The vendor issues the secret; a warning that it is short helps nobody who uses it.
        warnings.simplefilter("ignore")
        return jwt.encode(claims, pair.secret_key, algorithm="HS256", headers={"typ": "JWT"})
