"""What an emulator can be told: one frozen value, checked when it is made."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from random import Random
from typing import TypeAlias

from attrs import field, frozen

from kling_async.emulator.faults import Fault, Faults
from kling_async.errors import ConfigError
from kling_async.protocol.callbacks import sign

__all__ = ["DAY", "EmulatedAccount", "EmulatorSettings", "is_loopback"]

DAY = 86_400.0

# Slots that other programs hold: a number, or a function of emulated time.
ForeignLoad: TypeAlias = int | Callable[[float], int]
TaskSeconds: TypeAlias = float | Callable[[Random], float]


def is_loopback(host: str) -> bool:
    """Tell whether *host* is this machine for certain, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@frozen(kw_only=True)
class EmulatedAccount:
    """
    One account: its keys, slots and units.

    *standing* is a code (1100, 1101, 1103, 1304 …) with which every create is refused. *foreign_load* is the number
    of slots held by other programs. The keys are made up; a real key has no business here.
    """

    name: str = "default"
    access_key: str = "emulated-access-key"
    secret_key: str = field(default="emulated-secret-key-that-is-long-enough", repr=False)
    api_key: str = field(default="emulated-api-key", repr=False)
    slots: int = 9
    units: float = 1_000_000
    foreign_load: ForeignLoad = 0
    standing: int = 0

    def __attrs_post_init__(self) -> None:
        if len(self.secret_key.encode()) < 32:
            raise ConfigError(
                f"account {self.name!r}: expected a secret_key of 32 bytes or more, found a shorter one"
            )
        if self.slots < 1:
            raise ConfigError(f"account {self.name!r}: expected at least one slot, found {self.slots}")


def _speed(value: float | str) -> float | str:
    if value in {"instant", "manual"}:
        return value
    try:
        number = float(value.lower().removesuffix("x")) if isinstance(value, str) else float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"expected a speed such as 20 or '20x', 'instant' or 'manual', found {value!r}")
    return number


def _accounts(value: Iterable[EmulatedAccount]) -> tuple[EmulatedAccount, ...]:
    return tuple(value)


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _faults(value: Faults | str | Iterable[Fault]) -> Faults:
    return Faults.of(value)


def _one_of(name: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise ConfigError(f"expected {name} to be {' or '.join(map(repr, allowed))}, found {value!r}")


@frozen(kw_only=True)
class EmulatorSettings:
    """
    How an emulator behaves; docs/emulator.md explains each option.

    *slots*, *units*, *foreign_load* and the three keys describe the one account there is when *accounts* is empty.
    *speed* is a factor, "instant" or "manual". *task_seconds* (emulated) is None for a seeded lognormal about 24 s.
    *megapixels* is the area of composites. *expire_after* is the life of a result link in emulated seconds.
    *dialect* "observed" answers an unknown task with 400/1201 as seen live, "documented" with 404/1203.
    """

    host: str = "127.0.0.1"
    port: int = 0
    allow_remote: bool = False
    public_url: str | None = None
    accounts: tuple[EmulatedAccount, ...] = field(default=(), converter=_accounts)
    slots: int = 9
    units: float = 1_000_000
    foreign_load: ForeignLoad = 0
    access_key: str = "emulated-access-key"
    secret_key: str = field(default="emulated-secret-key-that-is-long-enough", repr=False)
    api_key: str = field(default="emulated-api-key", repr=False)
    speed: float | str = field(default=20.0, converter=_speed)
    task_seconds: TaskSeconds | None = None
    seed: int = 0
    paint: str = "composite"
    megapixels: float = 0.9216
    expire_after: float = 30 * DAY
    models: tuple[str, ...] = field(default=("kling-v2", "kling-v2-1"), converter=_names)
    default_model: str = "kling-v2"
    dialect: str = "observed"
    unique_external_ids: bool = True
    list_order: str = "newest"
    clock_skew: float = 0.0
    webhook_secret: str | None = field(default=None, repr=False)
    allow_remote_callbacks: bool = False
    faults: Faults = field(factory=Faults, converter=_faults)
    max_body: int = 100 * 1024 * 1024
    keep_requests: int = 100_000

    def __attrs_post_init__(self) -> None:
        _one_of("paint", self.paint, "composite", "stamp")
        _one_of("dialect", self.dialect, "observed", "documented")
        _one_of("list_order", self.list_order, "newest", "oldest", "shuffled")
        if not 0.01 <= self.megapixels <= 4:
            raise ConfigError(f"expected megapixels from 0.01 to 4, found {self.megapixels}")
        if not is_loopback(self.host) and not self.allow_remote:
            raise ConfigError(
                f"expected a loopback host, found {self.host!r}; set allow_remote=True to let other machines in"
            )
        if self.webhook_secret is not None:
            sign(self.webhook_secret, "check", 0, b"")
        names = [account.name for account in self.all_accounts()]
        if len(set(names)) < len(names):
            raise ConfigError(f"expected accounts with different names, found {', '.join(names)}")

    def all_accounts(self) -> Iterable[EmulatedAccount]:
        """Return the accounts there are: the given ones, else one made from the short options."""
        return self.accounts or (
            EmulatedAccount(
                access_key=self.access_key,
                secret_key=self.secret_key,
                api_key=self.api_key,
                slots=self.slots,
                units=self.units,
                foreign_load=self.foreign_load,
            ),
        )
