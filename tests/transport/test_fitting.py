from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageDraw

from kling_async.errors import InvalidJob, MissingExtra
from kling_async.protocol.pictures import MAX_BYTES, Picture, PictureRules, check_picture
from kling_async.protocol.sources import ImageSource
from kling_async.transport.fitting import require_pillow
from kling_async.transport.pictures import inspect, inspect_now

FIT = PictureRules(fit="auto")
FULL = PictureRules(verify="full")
Make = Callable[..., bytes]
# Pillow has it from 11.3 on.
AVIF = [("AVIF", "jpeg")] if "AVIF" in Image.registered_extensions().values() else []


def take(value: Any, rules: PictureRules = FIT) -> Picture:
    return inspect_now(ImageSource.of(value), "style_image", rules)


def content(picture: Picture) -> bytes:
    if picture.source.data is not None:
        return picture.source.data
    assert picture.source.path is not None
    return picture.source.path.read_bytes()


def pixels(picture: Picture) -> Image.Image:
    with Image.open(io.BytesIO(content(picture))) as image:
        image.load()
        return image


def refused(value: Any, rules: PictureRules = FIT) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        take(value, rules)
    assert caught.value.field == "style_image"
    assert caught.value.remedy
    return caught.value


def halves(left: str, right: str, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A picture whose left half is not its right one."""
    image = Image.new("RGB", size, left)
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, size[0], size[1]), fill=right)
    return image


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG put together by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def wide_gamut() -> bytes:
    """A profile of RGB whose red and green are exchanged, under a name of its own."""
    plain = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", plain[128:132])[0]
    tags = {
        bytes(plain[at : at + 4]): struct.unpack(">II", plain[at + 4 : at + 12])
        for at in range(132, 132 + 12 * count, 12)
    }
    red, green = (slice(tags[name][0], sum(tags[name])) for name in (b"rXYZ", b"gXYZ"))
    plain[red], plain[green] = plain[green], plain[red]
    return bytes(plain).replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_within_the_rules_keeps_its_bytes(make_picture: Make, kind: str) -> None:
    """A plain picture is passed on as it is: nothing is encoded again, nothing is told."""
    data = make_picture(kind)

    picture = take(data)

    assert content(picture) == data
    assert picture.changes == ()


@pytest.mark.parametrize(
    ("kind", "format_"),
    [
        ("WEBP", "jpeg"),
        ("GIF", "png"),
        ("BMP", "png"),
        ("TIFF", "png"),
        ("JPEG2000", "jpeg"),
        ("HEIF", "jpeg"),
        *AVIF,
    ],
)
def test_other_formats_are_converted(kind: str, format_: str) -> None:
    """Every other format becomes PNG, or JPEG where it had losses already, and shows the same."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    picture = take(saved(halves("red", "blue"), kind))

    assert picture.header.format == format_
    assert "saved as" in picture.changes[-1]
    assert pixels(picture).getpixel((10, 10))[0] > 200  # type: ignore[index]  # of an RGB picture
    assert pixels(picture).getpixel((390, 10))[2] > 200  # type: ignore[index]  # the same


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    """Of what moves, or has several pages, the first picture is sent, and that is told."""
    frames = [Image.new("RGB", (400, 300), colour) for colour in ("red", "blue", "lime")]

    picture = take(saved(frames[0], kind, save_all=True, append_images=frames[1:]))

    assert picture.changes[0] == "only the first frame taken"
    assert pixels(picture).convert("RGB").getpixel((5, 5))[0] > 240  # type: ignore[index]  # of an RGB picture


def test_a_picture_is_turned_upright() -> None:
    """What the camera noted about how it was held is carried out; the note does not go along."""
    exif = Image.Exif()
    exif[0x0112] = 6  # held with its right side down
    data = saved(halves("red", "blue"), "JPEG", exif=exif)

    picture = take(data)

    assert picture.changes[0] == "turned the way its EXIF data says"
    assert (picture.header.width, picture.header.height) == (300, 400)
    assert pixels(picture).getpixel((5, 5))[0] > 200  # type: ignore[index]  # of an RGB picture
    assert pixels(picture).getpixel((5, 395))[2] > 200  # type: ignore[index]  # the same
    assert not pixels(picture).getexif()


def test_colours_are_brought_to_srgb() -> None:
    """A picture in another colour space shows the same colours in the usual one, and loses its profile."""
    profile = wide_gamut()

    picture = take(saved(Image.new("RGB", (400, 300), (200, 20, 20)), "PNG", icc_profile=profile))

    assert "to sRGB" in picture.changes[0]
    assert "Wide" in picture.changes[0]
    red, green, _ = pixels(picture).getpixel((5, 5))  # type: ignore[misc]  # of an RGB picture
    assert green > 150 > red
    assert "icc_profile" not in pixels(picture).info


@pytest.mark.parametrize("kind", ["srgb", "broken", "of other pixels"])
def test_profiles_that_say_nothing_are_left(kind: str) -> None:
    """The usual colour space, a broken profile and one of other pixels than these change nothing."""
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = {"srgb": usual, "broken": b"no profile", "of other pixels": wide_gamut()}[kind]
    mode = "L" if kind == "of other pixels" else "RGB"
    data = saved(Image.new(mode, (400, 300)), "PNG", icc_profile=profile)

    assert content(take(data)) == data


def test_transparency_is_laid_on_white() -> None:
    """What can be seen through becomes white, what cannot stays."""
    image = Image.new("RGBA", (400, 300), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (200, 0, 400, 300))

    picture = take(saved(image, "PNG"))

    assert picture.changes == ("transparency laid on white",)
    assert pixels(picture).getpixel((5, 5)) == (255, 0, 0)
    assert pixels(picture).getpixel((300, 5)) == (255, 255, 255)


@pytest.mark.parametrize("grey", [True, False])
def test_sixteen_bits_become_eight(grey: bool) -> None:  # noqa: FBT001  # a parameter
    """Deep pixels keep their brightness: half of 65,535 is half of 255."""
    row = b"\0" + b"\x80\x80" * 400 * (1 if grey else 3)

    picture = take(png(400, 300, 16, 0 if grey else 2, row * 300))

    assert picture.changes == ("16 bits a channel made 8",)
    assert pixels(picture).convert("L").getpixel((5, 5)) == 128


def test_print_colours_become_screen_colours() -> None:
    """CMYK, of a JPEG or a TIFF, becomes RGB."""
    for kind in ("JPEG", "TIFF"):
        picture = take(saved(Image.new("CMYK", (400, 300), (0, 255, 255, 0)), kind))

        assert picture.changes[0] == "CMYK made RGB"
        assert pixels(picture).getpixel((5, 5))[0] > 240  # type: ignore[index]  # of an RGB picture


def test_long_and_small_pictures_grow() -> None:
    """White is added in equal parts to what is too long, and what is too small is enlarged; the picture stays in the middle."""
    long, small = (
        take(saved(Image.new("RGB", (1200, 300), "red"), "PNG")),
        take(saved(halves("red", "blue", (200, 150)), "PNG")),
    )

    assert (long.header.width, long.header.height) == (1200, 480)
    assert [pixels(long).getpixel((600, row)) for row in (5, 240, 475)] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 255, 255),
    ]
    assert (small.header.width, small.header.height) == (400, 300)
    assert pixels(small).getpixel((50, 50)) == (255, 0, 0)


def test_too_many_bytes_become_fewer() -> None:
    """A picture over ten million bytes is stored anew, with the least loss that is enough."""
    noise = Image.merge("RGB", [Image.effect_noise((2000, 1900), 100) for _ in range(3)])
    data = saved(noise, "PNG", compress_level=0)
    assert len(data) > MAX_BYTES

    picture = take(data)

    assert picture.size <= MAX_BYTES
    assert picture.changes[0].startswith("PNG of 11.4 MB saved as JPEG of quality")
    assert (picture.header.width, picture.header.height) == (2000, 1900)


def test_a_plain_png_of_many_bytes_stays_without_loss() -> None:
    """What fits when it is packed well is only packed well."""
    image = halves("red", "blue", (2000, 1900))

    picture = take(saved(image, "PNG", compress_level=0))

    assert picture.header.format == "png"
    assert pixels(picture).tobytes() == image.tobytes()


def test_the_same_picture_makes_the_same_bytes(tmp_path: Path, make_picture: Make) -> None:
    """What is sent does not depend on when or by which way the picture is made to fit."""
    data = make_picture("WEBP", (250, 160))
    path = tmp_path / "a.webp"
    path.write_bytes(data)

    first, second = content(take(data)), content(take(path))

    assert first == second == content(take(data))


def test_a_bomb_is_never_decoded() -> None:
    """A tiny file of 200 million pixels is refused from its header, whatever its kind."""
    bomb = png(14_000, 14_000, 8, 2, b"\0" * 1000)
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + bytes(100)

    assert "80 million" in refused(bomb).rule
    assert "decoded" in refused(gif).rule
    assert "decoded" in refused(bomb, FULL).rule


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!doctype html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"", None),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), ""),
    ],
)
def test_what_is_no_picture_is_not_made_one(tmp_path: Path, data: bytes, words: str | None) -> None:
    """Pages, documents and broken files are refused with their kind, in a file as in memory."""
    path = tmp_path / "a.gif"
    path.write_bytes(data)

    error = refused(path)

    assert "a.gif" in error.value
    assert words is None or words in str(error) or "decoded" in error.rule


def test_cut_pictures_are_not_patched_up(make_picture: Make) -> None:
    """A file that lacks its end is refused, since what is missing cannot be made."""
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        refused(make_picture(kind)[:-2000])


def test_a_full_look_finds_what_the_header_hides(make_picture: Make) -> None:
    """Damage in the middle of a picture passes the quick look and not the full one."""
    data = bytearray(make_picture(size=(700, 500)))
    for at in range(len(data) // 2, len(data) // 2 + 2000):
        data[at] ^= 0x5A
    path_bytes = bytes(data)

    assert take(path_bytes, PictureRules()).size == len(data)
    assert "decoded" in refused(path_bytes, FULL).rule
    assert take(make_picture(), FULL).changes == ()


def test_too_large_a_file_is_not_even_opened(tmp_path: Path) -> None:
    """A file of more than 200 MB is refused by its size."""
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.truncate(200_000_001)

    assert "200.0 MB" in refused(path).rule


def test_pil_images_are_made_to_fit() -> None:
    """An image in memory obeys the same rules and is not changed itself."""
    image = Image.new("RGBA", (200, 150), (255, 0, 0, 128))

    picture = take(image)

    assert picture.changes == ("transparency laid on white", "enlarged from 200x150 to 400x300")
    assert (image.size, image.mode) == ((200, 150), "RGBA")
    assert picture.name == "PIL image 200x150"
    check_picture(picture.header, picture.size, "style_image", "a")
    assert take(halves("red", "blue")).changes == ()


def test_files_made_on_the_way_are_gone_with_their_picture(make_picture: Make) -> None:
    """What was made lies in a file of its own, which is removed when nobody uses the picture any more."""
    picture = take(make_picture("WEBP"))
    path = picture.source.path
    assert path is not None
    assert path.exists()

    del picture

    assert not path.exists()


@pytest.mark.anyio
async def test_decoding_is_done_off_the_loop(make_picture: Make) -> None:
    """The loop is free while a picture is decoded and encoded."""
    picture = await inspect(ImageSource.of(make_picture("WEBP", (250, 200))), "style_image", FIT)

    assert picture.changes == ("enlarged from 250x200 to 375x300", "WebP saved as JPEG of quality 95")


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants pictures to be decoded is told at once what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match="images") as caught:
        require_pillow(FIT)
    with pytest.raises(MissingExtra, match="verify"):
        require_pillow(FULL)
    require_pillow(PictureRules())
    assert caught.value.extra == "images"
