from __future__ import annotations

import asyncio
import base64
import errno
import io
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import ImageSource
from kling_async.transport import pieces as under_test
from kling_async.transport.larder import Larder
from kling_async.transport.opening import check_unchanged
from kling_async.transport.pictures import inspect
from kling_async.transport.pieces import PIECE
from kling_async.transport.turns import Step

pytestmark = pytest.mark.anyio
Make = Callable[..., bytes]


async def refused(value: object) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        await inspect(ImageSource.of(value, "scene_image"), "scene_image")
    assert caught.value.field == "scene_image"
    assert caught.value.remedy
    return caught.value


def pieces(picture: Picture) -> AsyncGenerator[bytes | memoryview, None]:
    """Read straight from the file, in pieces that stay small."""
    return Larder(budget=0).pieces(picture, Step())


async def text_of(picture: Picture) -> bytes:
    return b"".join([piece async for piece in pieces(picture)])


@pytest.fixture(params=["pybase64", "binascii"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run with and without the optional encoder."""
    if request.param == "binascii":
        monkeypatch.setitem(sys.modules, "pybase64", None)
    under_test.encoder.cache_clear()
    yield
    under_test.encoder.cache_clear()


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(300, 300), (900, 700)])
async def test_a_file_becomes_its_base64(
    tmp_path: Path, make_picture: Make, kind: str, size: tuple[int, int]
) -> None:
    """A file is sent as the base64 of its bytes, from the start each time, with either encoder."""
    data = make_picture(kind, size)
    path = tmp_path / "a.bin"
    path.write_bytes(data)

    picture = await inspect(ImageSource.of(path), "scene_image")

    assert (picture.size, picture.header.format, picture.header.width, picture.changes) == (
        len(data),
        kind.lower(),
        size[0],
        (),
    )
    assert await text_of(picture) == base64.b64encode(data) == await text_of(picture)


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("extra", range(4))
async def test_pieces_join_at_every_length(make_picture: Make, extra: int) -> None:
    """Padding appears only at the end, wherever the end falls in a piece."""
    data = make_picture("JPEG")
    data += b"\0" * (PIECE * 2 - len(data) + extra - 1)

    picture = await inspect(ImageSource.of(data), "scene_image")

    assert await text_of(picture) == base64.b64encode(data)
    assert picture.stamp is None


@pytest.mark.parametrize("read", ["not cached", "not supported", "short"])
async def test_a_thread_reads_what_is_not_in_memory(
    tmp_path: Path, make_picture: Make, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Where the kernel does not have the bytes, or cannot tell, a thread reads the same ones."""
    data = make_picture(size=(700, 500))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    real = os.preadv
    calls = []

    def preadv(fd: int, buffers: Any, offset: int, *_: int) -> int:
        calls.append(offset)
        if read == "short":
            return real(fd, [buffers[0][:10]], offset)
        raise BlockingIOError(errno.EAGAIN, "") if read == "not cached" else OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "preadv", preadv)
    picture = await inspect(ImageSource.of(path), "scene_image")

    assert await text_of(picture) == base64.b64encode(data)
    assert len(calls) == (1 if read == "not supported" else -(-len(data) // PIECE))


async def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a directory, a FIFO, a device and a loop of links are each named, and none blocks."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")

    assert "no file" in (await refused(tmp_path / "none.png")).value
    assert "no file" in (await refused(tmp_path / "file" / "x.png")).value
    assert "directory" in (await refused(tmp_path)).value
    assert "pipe" in (await refused(tmp_path / "fifo")).value
    assert "device" in (await refused("/dev/zero")).value
    assert "circle" in (await refused(tmp_path / "loop")).value
    assert "too long" in (await refused("x" * 300)).value
    assert "empty" in (await refused(tmp_path / "file")).value
    assert "from_base64" in (await refused("iVBORw0KGgoAAAANSUhEUgAAAAUA")).remedy

    def forbid(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", forbid)
    assert "permission" in (await refused(tmp_path / "file")).value
    monkeypatch.setattr(os, "open", fail)
    assert "Input/output error" in (await refused(tmp_path / "file")).value


async def test_a_file_that_turns_into_a_fifo_is_not_read(
    tmp_path: Path, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is opened is looked at again, so a swap between the look and the opening is seen."""
    path = tmp_path / "a.png"
    path.write_bytes(make_picture())
    real = os.open

    def swap(target: Any, *args: Any, **options: Any) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(target, *args, **options)

    monkeypatch.setattr(os, "open", swap)

    assert "pipe" in (await refused(path)).value


async def test_the_rules_of_the_seed_hold(tmp_path: Path, make_picture: Make) -> None:
    """Every bad picture of the service's rules is refused from its header, with the file's name."""
    cases = {
        "small.png": (make_picture(size=(299, 400)), "299x400"),
        "long.png": (make_picture(size=(300, 780)), "1:2.60"),
        "logo.png": (make_picture("GIF"), "GIF"),
        "cut.png": (make_picture()[:-20], "cut off"),
        "cut.jpg": (make_picture("JPEG")[:-20], "cut off"),
        "big.png": (make_picture().ljust(10_100_000, b"\0"), "10,100,000"),
        "page.jpg": (b"<!doctype html>", "HTML"),
    }
    for name, (data, found) in cases.items():
        (tmp_path / name).write_bytes(data)

        error = await refused(tmp_path / name)

        assert found in error.value
        assert name in error.value
        assert (await refused(data)).rule == error.rule


async def test_a_picture_just_within_the_size_passes(tmp_path: Path, make_picture: Make) -> None:
    """9.9 MB pass; what stands behind the end of a picture counts but does not matter."""
    path = tmp_path / "big.jpg"
    path.write_bytes(make_picture("JPEG").ljust(9_900_000, b"\0"))

    assert (await inspect(ImageSource.of(path), "scene_image")).size == 9_900_000


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("RGB", ()),
        ("RGBA", ()),
        ("L", ()),
        ("P", ()),
        ("CMYK", ("converted from CMYK to RGB",)),
        ("F", ("converted from F to RGB",)),
    ],
)
async def test_pil_images_are_encoded(mode: str, changes: tuple[str, ...]) -> None:
    """A PIL image becomes a PNG of the same pixels; a mode that PNG cannot hold is converted, and told."""
    image = Image.effect_noise((400, 300), 50).convert("RGB").convert(mode)

    picture = await inspect(ImageSource.of(image), "scene_image")

    assert picture.changes == changes
    with Image.open(io.BytesIO(base64.b64decode(await text_of(picture)))) as sent:
        assert sent.convert("RGB").tobytes() == image.convert("RGB").tobytes()


async def test_a_pil_image_too_large_for_png_becomes_jpeg() -> None:
    """Noise of ten million bytes is sent as JPEG, and the picture tells; with transparency it is refused."""
    image = Image.frombytes("RGB", (2000, 1800), os.urandom(2000 * 1800 * 3))

    picture = await inspect(ImageSource.of(image), "scene_image")

    assert picture.header.format == "jpeg"
    assert "quality 95" in picture.changes[0]
    image.putalpha(128)
    assert "10 MB" in (await refused(image)).rule


async def test_pil_images_that_cannot_be_sent_are_refused(tmp_path: Path, make_picture: Make) -> None:
    """A too small image is refused before it is encoded, one that cannot be decoded with the reason."""
    path = tmp_path / "cut.png"
    path.write_bytes(make_picture()[:5000])

    assert "10x10" in (await refused(Image.new("RGB", (10, 10)))).value
    with Image.open(path) as image:
        assert "truncated" in (await refused(image)).value


async def test_a_changed_file_never_arrives_whole(tmp_path: Path, make_picture: Make) -> None:
    """A file replaced, cut, or written to while it is sent ends in InvalidJob before its last piece."""
    data = make_picture(size=(800, 600))
    path = tmp_path / "a.png"

    async def send(change: Callable[[], object]) -> tuple[bytes, str]:
        path.write_bytes(data)
        picture = await inspect(ImageSource.of(path), "scene_image")
        stream = pieces(picture)
        got = bytes(await anext(stream))
        change()
        try:
            async for piece in stream:
                got += piece
        except InvalidJob as error:
            return got, str(error)
        return got, ""

    for change in (
        lambda: os.truncate(path, len(data) // 2),
        lambda: os.truncate(path, len(data) + 1),
        lambda: os.utime(path, ns=(1, 1)),
    ):
        got, message = await send(change)
        assert len(got) < len(base64.b64encode(data))
        assert "a.png" in message


async def test_a_file_changed_before_sending_is_noticed(tmp_path: Path, make_picture: Make) -> None:
    """A file that is gone or another before the first piece is noticed, by the check and by the reading."""
    path = tmp_path / "a.png"
    path.write_bytes(make_picture())
    picture = await inspect(ImageSource.of(path), "scene_image")
    await check_unchanged((picture,))

    path.write_bytes(make_picture(size=(500, 500)))
    with pytest.raises(InvalidJob, match="stays as it is"):
        await check_unchanged((picture,))
    with pytest.raises(InvalidJob, match="stays as it is"):
        await text_of(picture)

    path.unlink()
    with pytest.raises(InvalidJob, match="no file"):
        await check_unchanged((picture,))
    with pytest.raises(InvalidJob, match="no file"):
        await text_of(picture)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_no_file_stays_open(
    tmp_path: Path, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving early, or being cancelled while a thread reads, closes the file, and never under the reading thread."""
    path = tmp_path / "a.png"
    path.write_bytes(make_picture(size=(800, 600)))
    picture = await inspect(ImageSource.of(path), "scene_image")
    before = open_files()

    stream = pieces(picture)
    await anext(stream)
    await stream.aclose()
    assert open_files() == before

    reading, go, seen = threading.Event(), threading.Event(), []
    real = os.read

    def slow(fd: int, length: int) -> bytes:
        reading.set()
        go.wait(10)
        seen.append(os.fstat(fd).st_size)  # fails if it was closed
        return real(fd, length)

    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    monkeypatch.setattr(os, "read", slow)
    task = asyncio.create_task(text_of(picture))
    await anyio.to_thread.run_sync(reading.wait)
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert seen == [picture.size]
    assert open_files() == before


async def test_a_thread_that_comes_late_touches_nothing(tmp_path: Path, make_picture: Make) -> None:
    """A thread whose wait was cancelled before it began finds the file closed, and neither opens nor reads it."""
    path = tmp_path / "a.png"
    path.write_bytes(make_picture())
    file = under_test._PictureFile(await inspect(ImageSource.of(path), "scene_image"), bytearray(PIECE))
    before = open_files()
    await file.aclose()

    file.open()
    late = file.read(0, 100)

    assert late == b""
    assert open_files() == before
