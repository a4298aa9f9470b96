"""
Who answers a client: the service, or an emulator of it.

An emulator says so itself, in a header of every reply, since its address tells nothing: it is another one each time, and
a real service may well be reached through this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from kling_async.errors import ConfigError
from kling_async.protocol.endpoints import is_loopback

__all__ = ["EMULATOR_HEADER", "Service", "is_vendors", "origin"]

# What every reply of an emulator carries, in lower case: its name, another one each time an emulator is started. Not
# `Server`, which proxies put their own name into.
EMULATOR_HEADER = "x-kling-emulator"

_VENDOR = ".klingai.com"


def origin(address: str) -> str:
    """Return scheme, host and port of *address*; a path may be secret, as some gateways have it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def is_vendors(address: str) -> bool:
    """Tell whether *address* is one of the service's own, which no emulator can have a certificate for."""
    parts = urlsplit(address)
    return parts.scheme == "https" and (parts.hostname or "").endswith(_VENDOR)


@frozen
class Service:
    """Who answers at *address*: the service if *emulator* is empty, else the emulator of that name."""

    address: str
    emulator: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Service | None:
        """Read what `as_json()` made; None if *row* tells nothing, as those of earlier versions."""
        if row.get("emulator"):
            return cls("", str(row["emulator"]))
        return cls(str(row["service"])) if row.get("service") else None

    def as_json(self) -> dict[str, str]:
        """Return what a folder keeps: an emulator's name, or the address of the service."""
        return {"emulator": self.emulator} if self.emulator else {"service": self.address}

    @property
    def kind(self) -> str:
        """What its results are: `emulated` or `real`."""
        return "emulated" if self.emulator else "real"

    def vouches_for(self, address: str) -> bool:
        """Tell whether *address* need not be asked who it is, being the one at which the service was met before."""
        # On this machine an emulator may have taken its place.
        return not self.emulator and self.address == address and not is_loopback(address)

    def check(self, other: Service, place: str) -> None:
        """Raise `ConfigError` if results of *other* must not come to those of this one, which are in *place*."""
        if self.kind != other.kind:
            answers = "an emulator" if other.emulator else "the service"
            raise ConfigError(
                f"out: expected {other.kind} results in {place}, since {answers} answers at {other.address}, found "
                f"{self.kind} ones; choose another place (-o)"
            )

    def check_memory(self, other: Service, place: str) -> None:
        """Raise `ConfigError` unless *other* can know the tasks whose results are in *place*."""
        self.check(other, place)
        if self.emulator != other.emulator:
            raise ConfigError(
                f"expected the emulator that made what is in {place}, found another one at {other.address}; its tasks and "
                "pictures went with it: run the jobs again, into another folder"
            )
