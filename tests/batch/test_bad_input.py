"""Every mistake that users make, through a manifest and through Python: one clear line, nothing sent, the rest runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from socket_kit import client, creates, png

from kling_async import Failed, ImageSource, Kling, MultiImage, Succeeded, read_manifest
from kling_async.emulator import Emulator
from kling_async.errors import ConfigError, InvalidJob

pytestmark = pytest.mark.anyio

GOOD = png(400, 400)
TEXT = base64.b64encode(GOOD).decode()


@frozen
class Slip:
    """One mistake: the row's *fields*, and what its one line must say: the *field*, and these *words*."""

    fields: Mapping[str, Any]
    field: str
    words: tuple[str, ...]


def picture(name: str, *words: str) -> Slip:
    return Slip({"subject_images": [name]}, "subject_images[0]", words)


def with_good(field: str, value: object, *words: str) -> Slip:
    return Slip({"subject_images": ["good.png"], field: value}, field, words)


SLIPS: dict[str, Slip] = {
    "a missing file": picture("missing.png", "no file", "missing.png", "check the path"),
    "299 px": picture("299.png", "300", "299"),
    "1:2.6": picture("tall.png", "2.5", "300x780"),
    "2.6:1": picture("wide.png", "2.5", "780x300"),
    "10.1 MB": picture("big.png", "10 MB", "10,100,000", "scale it down"),
    "a GIF named .png": picture("gif.png", "PNG or JPEG", "GIF"),
    "a truncated PNG": picture("truncated.png", "truncated"),
    "an empty file": picture("empty.png", "empty"),
    "a folder": picture("folder.png", "folder"),
    "a data: prefix": picture(f"data:image/png;base64,{TEXT}", "data:", "from_base64"),
    "bare base64": picture(TEXT, "base64"),
    "prompt of 2501": with_good("prompt", "x" * 2501, "2500", "2501", "shorten"),
    "negative prompt of 2501": with_good("negative_prompt", "x" * 2501, "2500", "2501"),
    "five subjects": Slip({"subject_images": ["good.png"] * 5}, "subject_images", ("1 to 4", "5")),
    "no subject": Slip({"subject_images": []}, "subject_images", ("1 to 4", "none")),
    "a subject that is no list": Slip({"subject_images": "good.png"}, "subject_images", ("list", "brackets")),
    "n = 0": with_good("n", 0, "1 to 9", "0"),
    "n = 10": with_good("n", 10, "1 to 9", "10"),
    'n = "2"': with_good("n", "2", "whole number", "'2'"),
    "n = true": with_good("n", True, "whole number", "True"),
    "n = 1.5": with_good("n", 1.5, "whole number", "1.5"),
    "a ratio of 5:4": with_good("aspect_ratio", "5:4", "16:9", "5:4"),
    "an empty external id": with_good("external_task_id", "", "1 to 64", "''"),
    "an external id with /": with_good("external_task_id", "a/b", "A-Z", "a/b"),
    "an external id of 65": with_good("external_task_id", "x" * 65, "1 to 64"),
    "watermark that is text": with_good("watermark", "yes", "true or false", "yes"),
    "a callback that is no address": with_good("callback_url", "shop.example/hook", "http", "shop.example"),
    "an ftp picture": picture("ftp://pictures.example/a.png", "ftp"),
}

# Mistakes that only a manifest can hold.
ROWS: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "an unknown key": (b'{"subject_images": ["good.png"], "promt": "x"}', "promt", ("unknown", "prompt")),
    "a row that is no object": (b"[1, 2, 3]", "row", ("object", "[1, 2, 3]")),
    "a row that is no JSON": (b"{'prompt': 'x'}", "row", ("JSON", "column")),
    "base64 with line breaks": (
        json.dumps({"subject_images": [{"base64": TEXT[:76] + "\n" + TEXT[76:]}]}).encode(),
        "subject_images[0]",
        ("line breaks", "b64encode"),
    ),
    "both spellings of a field": (
        b'{"subject_images": ["good.png"], "subject_image_list": []}',
        "subject_images",
        ("one value", "two"),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad pictures."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.png").write_bytes(GOOD)
    (folder / "299.png").write_bytes(png(299, 400))
    (folder / "tall.png").write_bytes(png(300, 780))
    (folder / "wide.png").write_bytes(png(780, 300))
    (folder / "big.png").write_bytes(GOOD.ljust(10_100_000, b"\0"))
    (folder / "gif.png").write_bytes(b"GIF89a" + bytes(2000))
    (folder / "truncated.png").write_bytes(GOOD[:20])
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    return folder


def assert_clear(error: InvalidJob, field: str, words: tuple[str, ...]) -> None:
    """One line that names field, rule, what was found and what to do."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400
    assert error.field == field
    assert all((error.rule, error.value, error.remedy))
    for word in words:
        assert word.lower() in text.lower(), f"{word!r} is not in: {text}"


def lines(*rows: bytes) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def good(key: str) -> bytes:
    return json.dumps({"key": key, "subject_images": ["good.png"]}).encode()


async def run(path: Path, emulator: Emulator) -> dict[str, Any]:
    async with client(emulator) as kling:
        return {outcome.key: outcome async for outcome in kling.batch(read_manifest(path))}


def told(outcomes: dict[str, Any], key: str) -> InvalidJob:
    """Return the one error of the row *key*, the others having succeeded."""
    outcome = outcomes[key]
    assert isinstance(outcome, Failed), outcome
    assert isinstance(outcome.error, InvalidJob)
    assert [type(other) for name, other in outcomes.items() if name != key] == [Succeeded] * 2
    return outcome.error


@pytest.mark.parametrize("name", SLIPS)
async def test_a_slip_in_a_manifest(folder: Path, name: str) -> None:
    """The row fails with its line, nothing is sent for it, and the rows around it run."""
    slip = SLIPS[name]
    path = folder / f"{abs(hash(name))}.jsonl"
    row = json.dumps({"key": "bad", **slip.fields}).encode()
    path.write_bytes(lines(good("first"), row, good("last")))

    async with Emulator(speed="instant", paint="stamp") as emulator:
        outcomes = await run(path, emulator)

    assert_clear(told(outcomes, "bad"), slip.field, slip.words)
    assert creates(emulator) == len(emulator.tasks) == 2


@pytest.mark.parametrize("name", ROWS)
async def test_a_row_that_cannot_be_a_job(folder: Path, name: str) -> None:
    """What is no row at all is named by its line, and the rows around it run."""
    row, field, words = ROWS[name]
    path = folder / f"{abs(hash(name))}.jsonl"
    path.write_bytes(lines(good("first"), row, good("last")))

    async with Emulator(speed="instant", paint="stamp") as emulator:
        outcomes = await run(path, emulator)

    (bad,) = set(outcomes) - {"first", "last"}
    assert_clear(told(outcomes, bad), field, ("line 2", *words))
    assert creates(emulator) == 2


@pytest.mark.parametrize("call", ["create", "run", "batch"])
@pytest.mark.parametrize("name", SLIPS)
async def test_a_slip_in_python(folder: Path, name: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same mistake in Python is the same InvalidJob, from `MultiImage` itself or before anything is sent."""
    slip = SLIPS[name]
    monkeypatch.chdir(folder)

    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        with pytest.raises(InvalidJob) as caught:
            await CALLS[call](kling, slip.fields)

    assert_clear(caught.value, slip.field, slip.words)
    assert isinstance(caught.value, ValueError)
    assert emulator.requests == []


async def _first(kling: Kling, fields: Mapping[str, Any]) -> None:
    async for outcome in kling.batch([MultiImage(**fields)]):
        outcome.unwrap()


CALLS: dict[str, Callable[[Kling, Mapping[str, Any]], Any]] = {
    "create": lambda kling, fields: kling.images.multi_image.create(**fields),
    "run": lambda kling, fields: kling.images.multi_image.run(**fields),
    "batch": _first,
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT[:76] + "\n" + TEXT[76:], ("line breaks",)),
        (" " + TEXT, ("blanks",)),
        (TEXT.replace("A", "-"), ("url-safe",)),
        (TEXT[:-1], ("padding",)),
        ("data:text/plain;base64,aGk=", ("data:text/plain",)),
    ],
    ids=["line breaks", "blanks", "url-safe", "cut", "another data: type"],
)
def test_base64_that_is_not_clean(text: str, words: tuple[str, ...]) -> None:
    """Base64 that the service would not take is refused when the source is made."""
    with pytest.raises(InvalidJob) as caught:
        ImageSource.from_base64(text, "scene_image")

    assert_clear(caught.value, "scene_image", words)


@pytest.mark.parametrize("field", ["scene_image", "style_image"])
async def test_each_picture_is_checked(folder: Path, field: str) -> None:
    """A bad scene or style is found as a bad subject is, and named by its own field."""
    async with Emulator(paint="stamp") as emulator, client(emulator) as kling:
        with pytest.raises(InvalidJob) as caught:
            await CALLS["create"](kling, {"subject_images": [folder / "good.png"], field: folder / "299.png"})

    assert_clear(caught.value, field, ("299", "300"))
    assert emulator.requests == []


async def test_a_byte_order_mark_and_crlf_are_no_mistake(folder: Path) -> None:
    """A manifest as Windows saves it runs."""
    path = folder / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(good("first"), b"", good("last")).replace(b"\n", b"\r\n"))

    async with Emulator(speed="instant", paint="stamp") as emulator:
        outcomes = await run(path, emulator)

    assert {key: type(outcome) for key, outcome in outcomes.items()} == {
        "first": Succeeded,
        "last": Succeeded,
    }


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"], ids=["nothing", "blank lines", "BOM"])
async def test_an_empty_manifest_is_no_work(tmp_path: Path, content: bytes) -> None:
    """Without a row there is no outcome and no request."""
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)

    async with Emulator(paint="stamp") as emulator:
        outcomes = await run(path, emulator)

    assert outcomes == {}
    assert emulator.requests == []


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    """A folder without pictures, and a file that is not there, are a ConfigError when the manifest is opened."""
    with pytest.raises(ConfigError, match="found none"):
        read_manifest(tmp_path)
    with pytest.raises(ConfigError, match="found nothing at"):
        read_manifest(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"access_key": "half-of-a-pair"}, "secret_key"),
        ({"secret_key": "the-other-half-of-a-pair-of-keys"}, "access_key"),
        ({}, "KLING_API_KEY"),
        ({"api_key": "key", "base_url": "api.example.com"}, "https://"),
        ({"api_key": "key", "region": "moon"}, "moon"),
        ({"api_key": "key", "slots": 0}, "slots"),
        ({"api_key": "key", "slots": True}, "slots"),
        ({"api_key": "key", "timeout": 0}, "timeout"),
        ({"api_key": "key", "max_retries": -1}, "max_retries"),
        ({"api_key": "key", "min_poll_interval": float("nan")}, "min_poll_interval"),
        ({"accounts": []}, "accounts"),
    ],
    ids=str,
)
def test_a_client_that_cannot_work_says_why(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing, doubled or of the wrong kind is named before anything is opened."""
    for prefix in ("KLING", "KLINGAI"):
        for name in ("API_KEY", "ACCESS_KEY", "SECRET_KEY", "BASE_URL", "REGION", "SLOTS"):
            monkeypatch.delenv(f"{prefix}_{name}", raising=False)

    with pytest.raises(ConfigError) as caught:
        Kling(**options)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"budget": -1}, "budget"),
        ({"budget": 1.5}, "budget"),
        ({"max_failures": True}, "max_failures"),
        ({"errors": "ignore"}, "errors"),
        ({"task_timeout": 0}, "task_timeout"),
        ({"out": "s3://bucket/x"}, "out"),
    ],
    ids=str,
)
async def test_a_batch_that_cannot_work_says_why(options: dict[str, Any], word: str) -> None:
    """Options that make no sense are an error of the call itself."""
    async with Kling(api_key="some-key", base_url="http://127.0.0.1:9") as kling:
        with pytest.raises(ConfigError, match=word):
            kling.batch([], **options)
