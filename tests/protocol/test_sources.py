from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kling_async.errors import InvalidJob
from kling_async.protocol.sources import ImageSource, megabytes


def refused(value: object) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        ImageSource.of(value, "scene_image")
    assert caught.value.field == "scene_image"
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    "url", ["https://example.com/x.png?sign=abc", "HTTP://example.com:8080", "http://[::1]/x"]
)
def test_urls_pass_through(url: str) -> None:
    """A text that begins with http:// or https://, in any case, is a URL and stays as it is."""
    source = ImageSource.of(url, "scene_image")

    assert source.url == url
    assert (source.path, source.data, source.image) == (None, None, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "https:///x.png",
        "https://a b/x",
        " https://a/x",
        "http://[::1/x",
        "http://a:99999/x",
        "https://a/\nx",
    ],
)
def test_broken_urls_are_refused(url: str) -> None:
    """A URL without host, with blanks or a bad port is refused instead of being taken for a path."""
    assert "URL" in refused(url).rule


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("dress.png", "dress.png"),
        ("C://pictures/x.png", "C:/pictures/x.png"),
        ("/9j/4AAQSkZJRg", "/9j/4AAQSkZJRg"),
        ("iVBORw0KGgo=", "iVBORw0KGgo="),
        ("mailto:x", "mailto:x"),
        ("file:///tmp/a%20b.png", "/tmp/a b.png"),
        ("FILE://localhost/tmp/a.png", "/tmp/a.png"),
        ("file:///C:/x.png", "C:/x.png"),
    ],
)
def test_other_texts_are_paths(text: str, path: str) -> None:
    """A text that is no URL is a path, even when it could be base64."""
    assert ImageSource.of(text).path == Path(path)


def test_path_objects_are_paths() -> None:
    """Anything with __fspath__ is a path."""

    class Entry:
        def __fspath__(self) -> str:
            return "a/b.png"

    assert ImageSource.of(Path("a/b.png")) == ImageSource.of(Entry()) == ImageSource.of("a/b.png")
    assert ImageSource.of(PureWindowsPath("b.png")).path == Path("b.png")


def test_bytes_paths_are_refused() -> None:
    """A path of bytes, which may be any encoding, is refused."""

    class Entry:
        def __fspath__(self) -> bytes:
            return b"a/b.png"

    assert "Entry" in refused(Entry()).value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "name a picture"),
        (" \n", "name a picture"),
        ("data:image/png;base64,iVBOR", "from_base64"),
        (" DATA:image/png;base64,iVBOR", "from_base64"),
        ("s3://bucket", "bucket and key"),
        ("s3:///x.png", "bucket and key"),
        ("gs://user:secret@bucket/x.png", "bucket and key"),
        ("ftp://host/x.png", "http(s)"),
        ("file://server/share/x.png", "path itself"),
        ("file://", "path itself"),
        ("a\0b.png", "correct"),
        ("iVBORw0KGgo" + "A" * 5000, "from_base64"),
        ("a " * 3000, "shorten"),
        (7, "pass one"),
        (None, "pass one"),
        (["x.png"], "pass one"),
        (b"", "whole file"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(text: object, hint: str) -> None:
    """What cannot name a picture is refused with the field, and a remedy that helps."""
    assert hint in refused(text).remedy


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_held(kind: type[bytes]) -> None:
    """Bytes in any wrapping are held as bytes, so that a later change of a buffer changes nothing."""
    assert ImageSource.of(kind(b"\x89PNG")).data == b"\x89PNG"


def test_pil_images_are_compared_by_identity() -> None:
    """Two PIL images with the same pixels are two sources, and both can be hashed."""
    image = Image.new("RGB", (300, 400))

    assert ImageSource.of(image) == ImageSource.of(image)
    assert ImageSource.of(image) != ImageSource.of(image.copy())
    assert len({ImageSource.of(image), ImageSource.of(image)}) == 1


def test_a_source_is_taken_as_it_is() -> None:
    """An ImageSource passes unchanged, and sources of the same place are equal and hash alike."""
    source = ImageSource.from_path("x.png")

    assert ImageSource.of(source) is source
    assert hash(source) == hash(ImageSource.of(Path("x.png")))


@given(st.binary(min_size=1))
def test_base64_comes_back(data: bytes) -> None:
    """Base64 text, with or without a data: prefix, becomes the bytes it was made of."""
    text = base64.b64encode(data).decode()

    assert ImageSource.from_base64(text).data == data
    assert ImageSource.from_base64(f"data:image/png;base64,{text}").data == data
    assert ImageSource.from_base64(f"DATA:image/svg+xml;charset=utf-8;BASE64,{text}").data == data


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "whole file"),
        ("data:image/png;base64,", "whole file"),
        ("iVBO\nRw0K", "b64encode"),
        ("iVBORw0K\r\n", "b64encode"),
        ("iV BO", "b64encode"),
        ("-_-_", "urlsafe_b64encode"),
        ("iVBOR", "padding"),
        ("iVBORw=", "padding"),
        ("iV=ORw==", "encode the file again"),
        ("iVBÖ", "encode the file again"),
        ("====", "encode the file again"),
        ("data:text/html;base64,AAAA", "only the base64 text"),
        ("data:image/png,AAAA", "only the base64 text"),
        (b"iVBO", "pass a str"),
    ],
)  # fmt: skip
def test_bad_base64_is_refused(text: str, hint: str) -> None:
    """Line breaks, blanks, the url-safe alphabet, bad padding and foreign characters each get a remedy."""
    with pytest.raises(InvalidJob) as caught:
        ImageSource.from_base64(text, "style_image")

    assert caught.value.field == "style_image"
    assert hint in caught.value.remedy


@given(st.text())
def test_any_text_is_a_source_or_refused(text: str) -> None:
    """No text makes anything but a source or an InvalidJob."""
    for make in (ImageSource.of, ImageSource.from_base64):
        try:
            source = make(text)
        except InvalidJob:
            continue
        assert sum(part is not None for part in (source.url, source.path, source.data, source.image)) == 1
        assert len(repr(source)) < 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("photos/dress.png", "dress.png"),
        (os.sep, os.sep),
        ("https://user:pass@host:81/x.png?sign=secret#part", "https://host:81/x.png"),
        (b"x" * 1_200_000, "bytes (1.2 MB)"),
        (Image.new("RGB", (800, 600)), "PIL image 800x600"),
        ("x" * 90 + ".png", "x" * 40 + "…" + "x" * 15 + ".png"),
    ],
)
def test_descriptions_are_short_and_hold_no_secret(value: object, text: str) -> None:
    """A description names the picture without queries, credentials or bytes, and the repr shows no more."""
    source = ImageSource.of(value)

    assert source.describe() == text
    assert repr(source) == f"<ImageSource {text}>"


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 bytes"), (1000, "1.0 kB"), (99_999, "100.0 kB"), (10_000_000, "10.0 MB")]
)
def test_sizes_are_readable(size: int, text: str) -> None:
    """Sizes are written in the unit that people expect."""
    assert megabytes(size) == text


@pytest.mark.parametrize("file", [io.BytesIO(b"..rest"), io.BufferedReader(io.BytesIO(b"..rest"))])
def test_files_are_read_from_where_they_stand(file: io.BytesIO) -> None:
    """An open file is read at once, from its place to its end, and may be closed afterwards."""
    file.read(2)

    source = ImageSource.of(file)
    file.close()

    assert source.data == b"rest"


def test_a_stream_that_cannot_seek_is_read() -> None:
    """A pipe is a file like any other, since nothing is read twice."""
    out, into = os.pipe()
    os.write(into, b"\x89PNG")
    os.close(into)

    with os.fdopen(out, "rb") as file:
        source = ImageSource.of(file)

    assert source.data == b"\x89PNG"


class Endless:
    """A stream without an end."""

    def read(self, length: int) -> memoryview:
        return memoryview(bytes(length))


class Later:
    """A file of an async library."""

    async def read(self, _length: int) -> bytes:
        await asyncio.sleep(0)
        return b""


class Odd:
    """Something that can be read and is no file."""

    def read(self, _length: int) -> int:
        return 7


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (io.StringIO("text"), "mode 'rb'"),
        (Later(), "await its read()"),
        (Odd(), "pass the bytes"),
        (Endless(), "smaller"),
        (io.BytesIO(), "whole file"),
    ],
)
def test_files_that_are_no_pictures_are_refused(file: object, hint: str) -> None:
    """A file opened for text, of an async library, without an end or without bytes is refused with what helps."""
    assert hint in refused(file).remedy


@pytest.mark.parametrize(
    "url", ["s3://bucket/a/b.png", "gs://bucket/a b#1.png", " az://container/x.png", "memory://a/b"]
)
def test_urls_of_stores_name_objects(url: str) -> None:
    """The URL of an object is kept as it is; signing it is asked for explicitly."""
    source = ImageSource.of(url)

    assert source.stored == url.strip() == source.describe() == source.identity()
    assert not source.presign
    assert ImageSource.from_store(url, presign=True).presign
    assert source.url is None


def test_the_identity_of_a_picture_is_its_content_or_its_place() -> None:
    """Paths and URLs stand for themselves; bytes and PIL images are hashed, once."""
    image = Image.new("RGB", (30, 20))
    source = ImageSource.of(image)
    before = source.identity()
    image.putpixel((0, 0), (255, 0, 0))

    assert ImageSource.of("a/b.png").identity() == "a/b.png"
    assert ImageSource.of("https://x.example/a.png").identity() == "https://x.example/a.png"
    assert ImageSource.of(b"abc").identity() == hashlib.sha256(b"abc").hexdigest()
    assert source.identity() == before
    assert ImageSource.of(image).identity() != before


@pytest.mark.parametrize("written", ["dress.png", "pictures/dress.png", "../dress.png", "./a/../b.png"])
def test_a_relative_path_is_behind_its_folder_and_knows_how_it_was_written(written: str) -> None:
    """What a manifest writes and the folder that it is relative to can both be told from the source."""
    base = Path("/projects/spring").resolve()

    source = ImageSource.of(written).behind(base)

    assert source.path == base / written
    assert source.written == Path(written)
    assert source.base == base
    assert source == ImageSource.of(str(base / written)), "the same place is the same source"


@pytest.mark.parametrize("value", ["https://example.com/x.png", Path("/x.png").absolute(), b"bytes"])
def test_what_is_no_relative_path_is_behind_no_folder(value: object) -> None:
    """URLs, absolute paths and bytes are what they were."""
    source = ImageSource.of(value)

    assert source.behind(Path("/projects")) is source
    assert source.base is None
