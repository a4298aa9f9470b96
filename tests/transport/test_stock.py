from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from PIL import Image

from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.pictures import Picture, PictureRules
from kling_async.protocol.sources import ImageSource
from kling_async.transport.pictures import STRICT
from kling_async.transport.stock import Stock
from kling_async.transport.stores import open_place

pytestmark = pytest.mark.anyio
FIT = PictureRules(fit="auto")
Make = Callable[..., bytes]


async def take(stock: Stock, value: Any, rules: PictureRules = STRICT) -> Picture:
    picture = await stock.take(ImageSource.of(value), "style_image", rules)
    assert isinstance(picture, Picture)
    return picture


async def test_urls_are_passed_on() -> None:
    """What the service fetches itself is nobody's business here."""
    assert await Stock().take(ImageSource.of("https://x.example/a"), "style_image") == "https://x.example/a"


async def test_a_file_is_looked_at_once(tmp_path: Path, make_picture: Make) -> None:
    """Many jobs with the same file share one picture, until the file is another one."""
    path, stock = tmp_path / "a.png", Stock()
    path.write_bytes(make_picture())

    first, *others = await asyncio.gather(*(take(stock, path) for _ in range(20)))
    path.write_bytes(make_picture(size=(500, 400)))
    later = await take(stock, path)

    assert all(each is first for each in others)
    assert (first.header.width, later.header.width) == (400, 500)
    path.unlink()
    with pytest.raises(InvalidJob, match="no file"):
        await take(stock, path)


async def test_a_picture_is_made_to_fit_once(tmp_path: Path, make_picture: Make) -> None:
    """The style of many rows is converted once, also when all want it at the same time, and known by its own file."""
    path, stock = tmp_path / "a.webp", Stock()
    path.write_bytes(make_picture("WEBP"))
    data = make_picture("WEBP", (350, 320))
    source = ImageSource.of(data)

    files = await asyncio.gather(*(take(stock, path, FIT) for _ in range(10)))
    held = await asyncio.gather(*(take(stock, source, FIT) for _ in range(10)))
    os.utime(path, ns=(1, 1))
    again = await take(stock, path, FIT)

    assert len({id(each) for each in files}) == len({id(each) for each in held}) == 1
    assert again is not files[0]
    assert again.changes == files[0].changes == ("WebP saved as JPEG of quality 95",)


async def test_rules_do_not_mix(tmp_path: Path, make_picture: Make) -> None:
    """A picture that fits after a change is still refused to whoever wants none."""
    path, stock = tmp_path / "a.webp", Stock()
    path.write_bytes(make_picture("WEBP"))
    await take(stock, path, FIT)

    with pytest.raises(InvalidJob, match="WebP"):
        await take(stock, path)


async def test_bytes_of_the_caller_are_not_kept(make_picture: Make) -> None:
    """Bytes that stay as they are belong to the caller: the stock forgets them."""
    data, stock = make_picture(), Stock()

    picture = await take(stock, data, FIT)

    assert picture.source.data is data
    assert not stock._known


async def test_a_pil_image_is_encoded_once() -> None:
    """The same image in many jobs is encoded once and lies in a file, not in memory."""
    stock, source = Stock(), ImageSource.of(Image.effect_noise((400, 300), 50))

    first, second = await take(stock, source), await take(stock, source)

    assert first is second
    assert first.source.data is None


async def test_what_was_not_used_for_longest_is_forgotten(
    tmp_path: Path, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made lies in a folder for temporary files, of which no more than a share is taken."""
    stock = Stock()
    paths = [tmp_path / f"{number}.webp" for number in range(4)]
    for path in paths:
        path.write_bytes(make_picture("WEBP"))
    monkeypatch.setattr("kling_async.transport.stock._MOST_SPOOLED", 200_000)

    for path in paths:
        await take(stock, path, FIT)

    assert 0 < stock._spooled <= 200_000
    assert 0 < len(stock._known) < 4


async def test_an_error_is_told_to_each(tmp_path: Path) -> None:
    """A bad picture is refused under the name of each field, and one who comes later may have better luck."""
    path, stock = tmp_path / "a.png", Stock()
    path.write_bytes(b"no picture")

    found = await asyncio.gather(*(take(stock, path) for _ in range(5)), return_exceptions=True)

    assert all(isinstance(each, InvalidJob) for each in found)
    assert not stock._taking


async def test_who_is_cancelled_leaves_the_picture_to_the_others(tmp_path: Path, make_picture: Make) -> None:
    """When the one who takes a picture in goes away, another one does it."""
    path, stock = tmp_path / "a.webp", Stock()
    path.write_bytes(make_picture("WEBP"))
    first, second = (asyncio.create_task(take(stock, path, FIT)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()

    assert (await second).changes


# Object stores.


async def test_a_stored_picture_is_read_once(make_picture: Make) -> None:
    """An object is fetched once for all jobs, checked like a file, and called by its URL."""
    stock, place = Stock(), open_place("memory://pictures/a b.png")
    data = make_picture()
    obstore.put(place.store, place.path, data)

    first = await take(stock, "memory://pictures/a b.png")
    obstore.delete(place.store, place.path)
    second = await take(stock, "memory://pictures/a b.png")

    assert first is second
    assert first.name == "memory://pictures/a b.png"
    assert first.source.path is not None
    assert first.source.path.read_bytes() == data


async def test_a_stored_picture_is_made_to_fit(make_picture: Make) -> None:
    """The rules are those of a file."""
    stock, place = Stock(), open_place("memory://pictures/a.webp")
    obstore.put(place.store, place.path, make_picture("WEBP"))

    with pytest.raises(InvalidJob, match="WebP"):
        await take(stock, place.url)
    assert (await take(stock, place.url, FIT)).changes == ("WebP saved as JPEG of quality 95",)


@pytest.mark.parametrize("rules", [STRICT, FIT])
async def test_too_large_an_object_is_not_fetched(rules: PictureRules) -> None:
    """The size of an object is known before its bytes are."""
    stock, place = Stock(), open_place("memory://pictures/big.png")
    obstore.put(place.store, place.path, bytes(200_000_001 if rules is FIT else 10_000_001))

    with pytest.raises(InvalidJob, match="MB"):
        await take(stock, place.url, rules)


async def test_a_missing_object_is_told() -> None:
    """What is not there, and a store that cannot sign, are errors that name the object."""
    with pytest.raises(InvalidJob, match="memory://pictures/none"):
        await take(Stock(), "memory://pictures/none.png")
    with pytest.raises(InvalidJob, match="signed"):
        await Stock().take(ImageSource.from_store("memory://a/b", presign=True), "style_image")
    with pytest.raises(ConfigError):
        await take(Stock(), "az://container/a.png")


async def test_a_signed_url_is_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """With *presign* nothing is read: the service gets an https URL that works for an hour."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    url = await Stock().take(ImageSource.from_store("s3://bucket/a b.png", presign=True), "style_image")

    assert isinstance(url, str)
    assert url.startswith("https://s3.eu-west-1.amazonaws.com/bucket/a%20b.png?")
    assert "X-Amz-Expires=3600" in url
    assert "very-secret" not in url
