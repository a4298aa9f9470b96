"""What a caller may say of a batch."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import Attribute, field, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.endpoints import count, seconds
from kling_async.protocol.naming import TEMPLATE, check_template
from kling_async.transport.stores import SCHEMES, is_store_url

__all__ = ["BatchOptions"]


def _count(_: object, attribute: Attribute[int | None], value: object) -> None:
    if value is not None:
        count(attribute.name, value)


def _limit(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        seconds(attribute.name, value)


def _errors(_: object, attribute: Attribute[str], value: str) -> None:
    if value not in {"collect", "raise"}:
        raise ConfigError(f"{attribute.name}: expected 'collect' or 'raise', found {value!r}")


def _name(_: object, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{attribute.name}: expected a name template as text, found {value!r}")
    check_template(value)


def _place(value: str | PathLike[str] | None) -> str | Path | None:
    """Tell the URL of an object store from a folder, which may be written as a file URL."""
    if value is None or not isinstance(value, str) or "://" not in value:
        return None if value is None else Path(value)
    if is_store_url(value):
        return value
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(url2pathname(parts.path))
    raise ConfigError(
        f"out: expected a folder, a file URL or one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}, found {value!r}"
    )


@frozen(kw_only=True)
class BatchOptions:
    """The keyword arguments of `Kling.batch()`; raises `ConfigError` for values that make no sense."""

    out: str | Path | None = field(default=None, converter=_place)
    name: str = field(default=TEMPLATE, validator=_name)
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

    def __attrs_post_init__(self) -> None:
        if isinstance(self.out, str) and self.journal is None:
            raise ConfigError(
                f"journal: expected a file on this machine, found none; out={self.out!r} keeps pictures only: "
                "give journal='run/journal.db' (--journal), and results.jsonl will lie beside it"
            )

    @property
    def journal_path(self) -> Path | None:
        """Where the journal lies: as given, else in *out*; None keeps none."""
        if self.journal is not None:
            return Path(self.journal)
        return None if self.out is None else Path(self.out) / "journal.db"

    @property
    def home(self) -> Path | None:
        """Where the lines of results go: *out*, or for an object store the folder of the journal; None writes none."""
        if isinstance(self.out, Path) or self.out is None:
            return self.out
        assert self.journal_path is not None, "a store comes with a journal"
        return self.journal_path.parent
