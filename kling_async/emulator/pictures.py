"""
The pictures that come in: what a create's texts stand for, and what the service would say of them.

Raw base64 is decoded for real. URLs are fetched only from this machine; any other is never asked for, and a
picture painted from the address stands in for it. Unfit base64 is refused at create (1201); pictures of a wrong kind or size
pass and fail as tasks, as observed. Header reading is this module's own, so that it can disagree with a client's.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256

from attrs import evolve, frozen
from yarl import URL

from kling_async.emulator.intake import LongText, decode_base64
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.rules import Picture
from kling_async.emulator.settings import is_loopback

__all__ = ["MAX_BYTES", "Material", "Reader", "UnreadablePicture", "judge", "scan"]

MAX_BYTES = 10 * 1024 * 1024
_MIN_SIDE = 300
_MAX_RATIO = 2.5

# Texts of failed tasks that others have seen.
UNSUPPORTED = "Unsupported image. Please check the image format, size and dimensions."
BAD_PIXELS = "Image pixel is invalid"
BAD_RATIO = "The resolution or aspect ratio of the input image is invalid. Please ensure it meets the required specifications."

# Start-of-frame markers of JPEG, baseline and progressive: all of C0 to CF but DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_REMEMBERED = 512


class UnreadablePicture(Exception):
    """The header is fine and the rest cannot be decoded."""


@frozen
class Material:
    """A picture as the painter gets it: *seed* tells pictures apart, *data* is a small copy, None for a stand-in."""

    role: str
    seed: str
    data: bytes | None = None
    trouble: str = ""

    def __repr__(self) -> str:
        return f"<Material {self.role} {self.seed[:8]}{' unfit' if self.trouble else ''}>"


def scan(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG or JPEG, None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        return struct.unpack_from(">II", data, 16)
    return _scan_jpeg(data) if data.startswith(b"\xff\xd8\xff") else None


def _scan_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def judge(data: bytes) -> str:
    """Return why a task with this picture fails, empty if it does not."""
    size = scan(data)
    if size is None:
        return UNSUPPORTED
    if min(size) < _MIN_SIDE:
        return BAD_PIXELS
    return BAD_RATIO if max(size) > _MAX_RATIO * min(size) else ""


class Reader:
    """
    Turns the pictures of an order into materials.

    *shrink* makes the small copy that is kept (UnreadablePicture if it cannot), *fetch* gets a picture from this machine
    (None if it cannot), *in_thread* runs the heavy part elsewhere. The same picture is read once.
    """

    def __init__(
        self,
        shrink: Callable[[bytes], bytes | None],
        fetch: Callable[[str], Awaitable[bytes | None]],
        in_thread: Callable[..., Awaitable[Material]],
    ) -> None:
        self._shrink = shrink
        self._fetch = fetch
        self._in_thread = in_thread
        self._known: OrderedDict[str, Material] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Reader with {len(self._known)} pictures>"

    async def read(self, pictures: Sequence[Picture]) -> tuple[Material, ...]:
        """Return the materials in order; Refusal (1201) for a text that is no base64 or a file that is too big."""
        return tuple([await self._read(picture) for picture in pictures])

    async def _read(self, picture: Picture) -> Material:
        url = picture.url
        if url is None:
            return await self._in_thread(self._decode, picture)
        if not is_loopback(_host(url)):
            return Material(picture.role, sha256(url.encode()).hexdigest())
        data = await self._fetch(url)
        if data is None:
            return Material(picture.role, "", trouble=UNSUPPORTED)
        return await self._in_thread(self._examine, picture.role, data)

    def _decode(self, picture: Picture) -> Material:
        text = picture.text
        raw = text.raw if isinstance(text, LongText) else text.encode("utf-8", "replace")
        if known := self._known.get(sha256(raw).hexdigest()):
            return evolve(known, role=picture.role)
        data = decode_base64(text)
        if len(data) > MAX_BYTES:
            raise Refusal(1201, f"Image file size must not exceed 10MB, got {len(data)} bytes")
        material = self._examine(picture.role, data)
        self._known[sha256(raw).hexdigest()] = material
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return material

    def _examine(self, role: str, data: bytes) -> Material:
        seed, trouble = sha256(data).hexdigest(), judge(data)
        if trouble:
            return Material(role, seed, trouble=trouble)
        try:
            return Material(role, seed, self._shrink(data))
        except UnreadablePicture:
            return Material(role, seed, trouble=UNSUPPORTED)


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
