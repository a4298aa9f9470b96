"""
What a picture must be to be sent: the rules of the seed, checked on what its header says; how callers want it taken in.

Signatures and headers themselves are read in *headers*.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import Attribute, field, frozen

from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.headers import PictureHeader, UnreadablePicture, scan_header, sniff
from kling_async.protocol.sources import ImageSource

__all__ = [
    "MAX_BYTES",
    "MIN_SIDE",
    "MOST_INPUT_BYTES",
    "Fitted",
    "Picture",
    "PictureHeader",
    "PictureRules",
    "UnreadablePicture",
    "check_picture",
    "check_size",
    "refusal",
    "scan_header",
    "sniff",
]

# The seed says "must not exceed 10MB" without saying which. Ten million bytes fits under both readings (10,485,760 is
# the other), so a picture that passes here is never refused by the service for its size.
MAX_BYTES = 10_000_000
MIN_SIDE = 300  # pixels, from the seed
# Of a picture that is to be made to fit.
MOST_INPUT_BYTES = 200_000_000


def _fit(_: object, attribute: Attribute[Any], value: object) -> None:
    if value not in {None, "auto"}:
        raise ConfigError(f"{attribute.name}: expected 'auto' or None, found {value!r}")


def _verify(_: object, attribute: Attribute[Any], value: object) -> None:
    if value not in {"header", "full"}:
        raise ConfigError(f"{attribute.name}: expected 'header' or 'full', found {value!r}")


@frozen(kw_only=True)
class PictureRules:
    """
    How pictures are taken in.

    *fit* `"auto"` brings pictures within the rules, None refuses what breaks one. *verify* `"full"` decodes each picture
    once to see that it is sound; `"header"` looks only at its beginning and its end.
    """

    fit: Literal["auto"] | None = field(default=None, validator=_fit)
    verify: Literal["header", "full"] = field(default="header", validator=_verify)

    @property
    def need_pillow(self) -> bool:
        """Whether pictures are decoded at all."""
        return self.fit is not None or self.verify == "full"


@frozen(kw_only=True)
class Fitted:
    """What was changed of the picture in *field* to bring it within the rules; *picture* is what the caller calls it."""

    field: str
    picture: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field} ({self.picture}): {', '.join(self.changes)}"

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in results and journal."""
        return {"field": self.field, "picture": self.picture, "changes": list(self.changes)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fitted:
        """Read what `as_json()` wrote."""
        return cls(field=value["field"], picture=value["picture"], changes=tuple(value["changes"]))


@frozen(kw_only=True)
class Picture:
    """
    A picture that was checked and is ready to be sent.

    *size* is that of the file in bytes; *stamp* is (mtime in ns, size) of a file as it was checked, so that a later
    change is noticed, and *seen* the same of the caller's file, which is another one if the picture was made of it.
    *changes* say what was changed to send it. *name* is what the caller calls it. *held* is kept as long as the picture
    is, such as the file that it lies in.
    """

    source: ImageSource
    size: int
    header: PictureHeader
    stamp: tuple[int, int] | None = None
    seen: tuple[int, int] | None = None
    changes: tuple[str, ...] = ()
    name: str = ""
    held: object = field(default=None, eq=False, repr=False)


def check_size(size: int, field: str, what: str) -> None:
    """Raise InvalidJob for a file of more bytes than the service takes; *what* names the picture."""
    if size > MAX_BYTES:
        rule = f"a picture of at most 10 MB ({MAX_BYTES:,} bytes)"
        raise InvalidJob.because(field, rule, f"{size:,} bytes ({what})", "scale it down or save it as JPEG")


def check_picture(header: PictureHeader, size: int, field: str, what: str) -> None:
    """Raise InvalidJob if a picture breaks a rule of the seed on bytes, sides or their ratio; *what* names it."""
    check_size(size, field, what)
    # An EXIF rotation swaps width and height. Both rules are the same for either order, so it need not be known.
    short, long = sorted((header.width, header.height))
    found = f"{header.width}x{header.height} ({what})"
    if short < MIN_SIDE:
        raise InvalidJob.because(
            field, f"at least {MIN_SIDE} px in width and height", found, "use a larger picture"
        )
    if long * 2 > short * 5:
        ratio = f"1:{long / short:.2f}" if header.width < header.height else f"{long / short:.2f}:1"
        rule = "a ratio of width to height from 1:2.5 to 2.5:1"
        raise InvalidJob.because(field, rule, f"{ratio}, {found}", "crop or pad it")


def refusal(problem: UnreadablePicture, field: str, what: str) -> InvalidJob:
    """Turn what the scan found into the error for the caller."""
    return InvalidJob.because(
        field, "a whole PNG or JPEG picture", f"{problem.found} ({what})", problem.remedy
    )
