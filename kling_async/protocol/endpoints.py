"""Where the service lives, and how long to wait for it."""

from __future__ import annotations

import ipaddress
import math
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen

from kling_async.errors import ConfigError

__all__ = ["REGIONS", "Timeouts", "base_url", "count", "is_loopback", "seconds"]

# Vendor's pages, 2026-09: servers outside and inside mainland China. Keys of one do not work in the other.
REGIONS = {"global": "https://api-singapore.klingai.com", "cn": "https://api-beijing.klingai.com"}

_MEGABYTE = 1_000_000


def base_url(text: str | None, region: str = "global") -> str:
    """
    Return the address that all paths are appended to: *text* if given, else that of *region*.

    A trailing `/` or `/v1` is taken off, since the account's paths have no `/v1`. Raises `ConfigError` for an
    unknown region and for an address without scheme or host, with credentials, a query or a fragment in it.
    """
    if text is None or not text.strip():
        if region not in REGIONS:
            raise ConfigError(f"region: expected one of {', '.join(REGIONS)}, found {region!r}")
        return REGIONS[region]
    rule = "base_url: expected an address such as https://api-singapore.klingai.com"
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{rule}, found one that cannot be read ({error})") from error
    if parts.scheme not in {"http", "https"} or not host or any(char.isspace() for char in host):
        # Neither credentials before an @ nor a query may show in an error.
        shown = text.strip().partition("?")[0].rpartition("@")[2]
        raise ConfigError(f"{rule}, found {shown!r}; begin it with https:// (or http://)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{rule}, found one with credentials, a query or a fragment; leave those out")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_loopback(address: str) -> bool:
    """Tell whether *address*, a URL, is on this machine as it stands, without a look-up."""
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seconds(name: str, value: object) -> float:
    """Return *value* if it can be a time limit; raises `ConfigError` naming *name* if not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{name}: expected a number of seconds above 0, found {value!r}")
    return float(value)


def count(name: str, value: object) -> int:
    """Return *value* if it can be a number of things; raises `ConfigError` naming *name* if not."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name}: expected a whole number from 0 up, found {value!r}")
    return value


def _positive(_: object, attribute: Attribute[float], value: float) -> None:
    seconds(attribute.name, value)


@frozen(kw_only=True)
class Timeouts:
    """
    Time limits in seconds.

    *connect* is for opening a connection, *request* for one whole request with a small body, *per_megabyte* is added
    for each million bytes sent, *download* for one result picture. *settle* is how long look-ups must find nothing
    before a create whose reply was lost counts as not made. Waiting for a task has a limit of its own.
    """

    connect: float = field(default=10.0, validator=_positive)
    request: float = field(default=60.0, validator=_positive)
    per_megabyte: float = field(default=4.0, validator=_positive)
    download: float = field(default=300.0, validator=_positive)
    settle: float = field(default=5.0, validator=_positive)

    @classmethod
    def of(cls, value: float | Timeouts | None) -> Timeouts:
        """Take what a caller gave as *timeout*: seconds for one request, a whole value, or None for the defaults."""
        if value is None:
            return cls()
        if isinstance(value, Timeouts):
            return value
        limit = seconds("timeout", value)
        return cls(request=limit, connect=min(limit, 10.0))

    def for_body(self, length: int) -> float:
        """Return the limit for a request whose body has *length* bytes."""
        return self.request + self.per_megabyte * length / _MEGABYTE
