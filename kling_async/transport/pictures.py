"""Pictures taken in: checked from their header before a job is sent, and made to fit where that is wanted."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from attrs import evolve, frozen

from kling_async.errors import InvalidJob
from kling_async.protocol.headers import PictureHeader, UnreadablePicture, naming, scan_header, sniff
from kling_async.protocol.pictures import (
    MAX_BYTES,
    MOST_INPUT_BYTES,
    Picture,
    PictureRules,
    check_picture,
    check_size,
    refusal,
)
from kling_async.protocol.sources import ImageSource, megabytes
from kling_async.transport.opening import file_fault, in_thread, in_workshop, open_regular, stamp_of
from kling_async.transport.spool import SpooledFile

__all__ = ["STRICT", "inspect", "inspect_now", "scan_file"]

STRICT = PictureRules()

_READ_AHEAD = 4096  # headers are asked for a few bytes at a time
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
_JPEG_QUALITY = 95
_Made: TypeAlias = "tuple[bytes, tuple[str, ...]]"


async def inspect(source: ImageSource, field: str, rules: PictureRules = STRICT) -> Picture:
    """
    Check the picture of *source* against the rules of the service, or make it fit, as *rules* say.

    Not for sources that the service fetches itself, nor for those in object stores. A PIL image is encoded here: as PNG,
    or as JPEG if that would be too large and nothing is lost but exactness. `Picture.changes` tell what was changed.
    Raises InvalidJob naming *field*.
    """
    if source.data is not None and not rules.need_pillow:
        return inspect_now(source, field, rules)  # a few bytes of what is in memory
    decodes = rules.need_pillow or source.image is not None
    return await (in_workshop if decodes else in_thread)(inspect_now, source, field, rules)


def inspect_now(source: ImageSource, field: str, rules: PictureRules = STRICT, name: str = "") -> Picture:
    """Do what `inspect()` does, in this thread; *name* is what the caller calls the picture."""
    if source.data is not None:
        return _Look(field, name or source.describe(), rules).take_bytes(source)
    if source.path is not None:
        return _Look(field, name or source.describe(), rules).take_file(source.path)
    assert source.image is not None, "what the service fetches, and what lies in a store, is not read here"
    return _Look(field, source.describe(), rules).take_image(source.image)


def scan_file(file: BinaryIO, size: int, *, webp: bool = False) -> PictureHeader:
    """Scan the header of an open file of *size* bytes; blocks, and raises UnreadablePicture."""
    scan = scan_header(size, webp=webp)
    held, start = b"", 0
    offset, length = next(scan)
    while True:
        if not start <= offset <= offset + length <= start + len(held):
            held, start = _read_at(file, offset, max(length, _READ_AHEAD)), offset
        try:
            offset, length = scan.send(held[offset - start : offset - start + length])
        except StopIteration as end:
            header: PictureHeader = end.value
            return header


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read *length* bytes at *offset*, fewer only at the end of the file."""
    file.seek(offset)
    got = b""
    while len(got) < length and (more := file.read(length - len(got))):
        got += more
    return got


@frozen
class _Look:
    """One picture looked at under *rules*; *field* and *what* name it in errors."""

    field: str
    what: str
    rules: PictureRules

    def take_bytes(self, source: ImageSource) -> Picture:
        assert source.data is not None, "the caller looked"
        data = source.data
        header, made = self._read(io.BytesIO(data), len(data))
        if header is None or made is not None:
            assert made is not None, "only PNG and JPEG stay as they are"
            return self._spooled(*made)
        return Picture(source=source, size=len(data), header=header, name=self.what)

    def take_file(self, path: Path) -> Picture:
        try:
            with os.fdopen(open_regular(path, self.field), "rb") as file:
                status = os.fstat(file.fileno())
                header, made = self._read(file, status.st_size)
        except OSError as error:
            raise file_fault(error, path, self.field) from error
        if header is None or made is not None:
            assert made is not None, "only PNG and JPEG stay as they are"
            return evolve(self._spooled(*made), seen=stamp_of(status))
        return Picture(
            source=ImageSource(path=path),
            size=status.st_size,
            header=header,
            stamp=stamp_of(status),
            seen=stamp_of(status),
            name=self.what,
        )

    def take_image(self, image: Any) -> Picture:
        if self.rules.fit is not None:
            from kling_async.transport.fitting import fit_image

            made = self._guarded(lambda: fit_image(image, self.field, self.what))
            if made is not None:
                return self._spooled(*made)
        width, height = image.size
        check_picture(PictureHeader("png", width, height), 0, self.field, self.what)
        data, changes = self._guarded(lambda: _encode_image(image))
        return self._spooled(data, changes)

    def _guarded(self, work: Any) -> Any:
        try:
            return work()
        except InvalidJob:
            raise
        except Exception as error:  # any plug-in of PIL may raise anything
            rule, found = "a PIL image that can be saved", f"{type(error).__name__}: {error} ({self.what})"
            raise InvalidJob.because(self.field, rule, found, "load() it and look at it first") from error

    def _read(self, file: BinaryIO, size: int) -> tuple[PictureHeader | None, _Made | None]:
        """Return the header of what is in *file*, or what was made of it where it must fit and did not."""
        header: PictureHeader | None
        made: _Made | None = None
        try:
            if self.rules.fit is None:
                check_size(size, self.field, self.what)
                header = scan_file(file, size)
                check_picture(header, size, self.field, self.what)
            else:
                header = self._scan_any(file, size)
                made = self._fit(file, size)
        except UnreadablePicture as problem:
            raise refusal(problem, self.field, self.what) from problem
        if made is None and self.rules.verify == "full":
            # Late, as all that decodes: most clients only read headers.
            from kling_async.transport.fitting import decode

            decode(file, self.field, self.what)
        return header, made

    def _fit(self, file: BinaryIO, size: int) -> _Made | None:
        from kling_async.transport.fitting import fit

        return fit(file, size, self.field, self.what)

    def _scan_any(self, file: BinaryIO, size: int) -> PictureHeader | None:
        """See from its header that *file* is a picture that may be decoded; None for one that cannot stay as it is."""
        if size > MOST_INPUT_BYTES:
            rule = f"a picture of at most {megabytes(MOST_INPUT_BYTES)} to be made to fit"
            raise InvalidJob.because(self.field, rule, f"{size:,} bytes ({self.what})", "scale it down")
        from kling_async.protocol.fitting import CONVERTIBLE, check_pixels

        head = _read_at(file, 0, 64)
        kind = sniff(head)
        if kind not in CONVERTIBLE:
            raise UnreadablePicture(naming(head))
        if kind not in {"png", "jpeg"}:
            return None
        header = scan_file(file, size)
        check_pixels(header.width, header.height, self.field, self.what)
        return header

    def _spooled(self, data: bytes, changes: tuple[str, ...]) -> Picture:
        spooled = SpooledFile.written(lambda file: file.write(data))
        made = _Look(self.field, self.what, STRICT).take_file(spooled.path)
        return evolve(made, changes=changes, held=spooled)


def _encode_image(image: Any) -> _Made:
    plain = image if image.mode in _PNG_MODES else image.convert("RGB")
    changes = () if plain is image else (f"converted from {image.mode} to RGB",)
    data = _save(plain, format="PNG")
    see_through = plain.mode in {"LA", "RGBA"} or "transparency" in getattr(plain, "info", {})
    if len(data) <= MAX_BYTES or see_through:
        return data, changes
    text = f"encoded as JPEG of quality {_JPEG_QUALITY}, since {len(data):,} bytes of PNG are too many"
    return _save(plain.convert("RGB"), format="JPEG", quality=_JPEG_QUALITY, subsampling=0), (*changes, text)


def _save(image: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
