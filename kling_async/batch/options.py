"""What a caller may say of a batch."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal

from attrs import Attribute, field, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.endpoints import seconds

__all__ = ["BatchOptions"]


def _count(_: object, attribute: Attribute[int | None], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigError(f"{attribute.name}: expected a whole number from 0 up, found {value!r}")


def _limit(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        seconds(attribute.name, value)


def _errors(_: object, attribute: Attribute[str], value: str) -> None:
    if value not in {"collect", "raise"}:
        raise ConfigError(f"{attribute.name}: expected 'collect' or 'raise', found {value!r}")


@frozen(kw_only=True)
class BatchOptions:
    """The keyword arguments of `Kling.batch()`; raises `ConfigError` for values that make no sense."""

    out: str | PathLike[str] | None = None
    journal: str | PathLike[str] | None = None
    update: bool = False
    budget: int | None = field(default=None, validator=_count)
    split: bool = False
    in_order: bool = False
    errors: Literal["collect", "raise"] = field(default="collect", validator=_errors)
    max_failures: int | None = field(default=None, validator=_count)
    task_timeout: float | None = field(default=1800.0, validator=_limit)
    stall_after: float = field(default=600.0, validator=_limit)
    # How many jobs there are, where the caller knows; only the statistics use it.
    total: int | None = field(default=None, validator=_count)

    @property
    def journal_path(self) -> Path | None:
        """Where the journal lies: as given, else in *out*; None keeps none."""
        if self.journal is not None:
            return Path(self.journal)
        return None if self.out is None else Path(self.out) / "journal.db"
