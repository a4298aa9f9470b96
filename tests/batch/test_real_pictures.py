"""Pictures as people have them, as files and addresses, through manifests into a batch: what arrives is what was there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFilter
from socket_kit import Plain, answer, client, creates, leaves_nothing, png, reply, task

from kling_async import Failed, ImageSource, MultiImage, Succeeded, read_manifest
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio

SEED_ROW = Path(__file__).resolve().parents[1] / "samples" / "seed_job" / "request.json"


def photograph(width: int, height: int, seed: int = 1) -> Image.Image:
    """Draw what a camera sees of a meadow: a sky that fades, soft hills, and grain everywhere."""
    dice = random.Random(seed)
    sky = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge(
        "RGB",
        (
            sky.point(lambda v: 90 + v // 3),
            sky.point(lambda v: 140 + v // 4),
            sky.point(lambda v: 235 - v // 3),
        ),
    )
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, r = (
            dice.randrange(width),
            dice.randrange(height // 2, height),
            dice.randrange(20, 20 + width // 4),
        )
        draw.ellipse(
            (x - r, y - r // 2, x + r, y + r), fill=(40 + dice.randrange(80), 90 + dice.randrange(90), 40)
        )
    picture = picture.filter(ImageFilter.GaussianBlur(3))
    return Image.blend(picture, Image.effect_noise((width, height), 60).convert("RGB"), 0.12)


def drawing(width: int, height: int) -> Image.Image:
    """Draw a woman in a dress with a pen: few colours, hard edges."""
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    middle = width // 2
    draw.polygon(
        [(middle, height // 3), (middle - width // 4, height - 20), (middle + width // 4, height - 20)],
        fill="crimson",
        outline="black",
    )
    draw.ellipse(
        (middle - 40, height // 8, middle + 40, height // 8 + 80), fill="peachpuff", outline="black", width=3
    )
    return picture


def written(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A camera"
    return written(photograph(1200, 800), "JPEG", quality=90, exif=exif)


def nearly_ten_megabytes() -> bytes:
    """Return a PNG of noise, filled up to 9.9 MB by a text chunk as cameras and editors leave them."""
    picture = written(Image.effect_noise((1700, 1700), 120).convert("RGB"), "PNG", compress_level=1)
    rest = 9_900_000 - len(picture) - 12
    assert rest > 0
    chunk = b"tEXt" + (b"Comment\0" + b"x" * rest)[:rest]
    text = struct.pack(">I", rest) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return picture[:33] + text + picture[33:]


PICTURES: dict[str, Callable[[], bytes]] = {
    "photo.jpg": lambda: written(photograph(1600, 1067), "JPEG", quality=92),
    "photo-progressive.jpg": lambda: written(photograph(1600, 1067, 2), "JPEG", quality=85, progressive=True),
    "photo-rotated.jpeg": rotated,
    "photo-grey.jpg": lambda: written(photograph(640, 480).convert("L"), "JPEG"),
    "photo-cmyk.jpg": lambda: written(photograph(640, 480).convert("CMYK"), "JPEG"),
    "photo-with-profile.jpg": lambda: written(photograph(640, 480), "JPEG", icc_profile=b"\0" * 70_000),
    "drawing.png": lambda: written(drawing(800, 1200), "PNG"),
    "drawing-alpha.png": lambda: written(drawing(800, 1200).convert("RGBA"), "PNG"),
    "drawing-palette.png": lambda: written(drawing(800, 1200).convert("P"), "PNG"),
    "drawing-grey-alpha.png": lambda: written(drawing(400, 600).convert("LA"), "PNG"),
    "drawing-one-bit.png": lambda: written(drawing(400, 600).convert("1"), "PNG"),
    "PHOTO.JPG": lambda: written(photograph(700, 400, 4), "JPEG"),
    "name with blanks äöü.png": lambda: written(drawing(300, 300), "PNG"),
    "no-extension": lambda: written(drawing(300, 750), "PNG"),
    "jpeg-called.png": lambda: written(photograph(750, 300), "JPEG"),
    "big.png": nearly_ten_megabytes,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, make in PICTURES.items():
        (folder / name).write_bytes(make())
    return folder


def manifest(folder: Path, rows: list[dict[str, Any]], name: str = "jobs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _saved(outcome: object) -> bool:
    return isinstance(outcome, Succeeded) and all(Path(file).exists() for file in outcome.files)


async def test_files_of_every_kind_are_accepted(folder: Path, tmp_path: Path) -> None:
    """Photographs and drawings in every form that the seed allows pass the service's own checks, and results are saved."""
    rows = [{"key": name, "subject_images": [name], "prompt": name} for name in PICTURES]

    async with (
        leaves_nothing(),
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator) as kling,
    ):
        jobs = read_manifest(manifest(folder, rows))
        outcomes = [outcome async for outcome in kling.batch(jobs, out=tmp_path)]

    assert {outcome.key: getattr(outcome, "error", None) for outcome in outcomes} == dict.fromkeys(PICTURES)
    assert all(_saved(outcome) for outcome in outcomes)
    assert creates(emulator) == len(PICTURES)


async def test_what_arrives_is_what_was_in_the_file(folder: Path) -> None:
    """The service gets each file's bytes, all of them and no others, as clean base64 without a prefix."""
    rows = [
        {"key": name, "subject_images": [name], "scene_image": "photo.jpg", "style_image": "drawing.png"}
        for name in PICTURES
    ]
    arrived: dict[str, str] = {}

    async with (
        Plain(
            lambda asked: answer(task("t-1") if asked.method == "POST" else task("t-1", "failed"))
        ) as server,
        client(server, slots=2) as kling,
    ):
        async for _ in kling.batch(read_manifest(manifest(folder, rows))):
            pass
    for asked in server.of("POST"):
        body = asked.json
        subject = base64.b64decode(body["subject_image_list"][0]["subject_image"], validate=True)
        behind = base64.b64decode(body["scene_image"], validate=True)
        arrived[hashlib.sha256(subject).hexdigest()] = hashlib.sha256(behind).hexdigest()

    scene = hashlib.sha256((folder / "photo.jpg").read_bytes()).hexdigest()
    assert arrived == {hashlib.sha256((folder / name).read_bytes()).hexdigest(): scene for name in PICTURES}


async def test_pictures_in_memory_are_as_good_as_files(folder: Path) -> None:
    """Paths, bytes, PIL images, base64 and addresses make one job of four subjects."""
    data = (folder / "photo.jpg").read_bytes()
    mixed = [
        str(folder / "photo.jpg"),
        data,
        Image.open(io.BytesIO(data)),
        ImageSource.from_base64("data:image/jpeg;base64," + base64.b64encode(data).decode()),
    ]

    async with Plain(lambda _: answer(task("t-1"))) as server, client(server) as kling:
        _ = await kling.images.multi_image.create(
            subject_images=mixed, scene_image="https://pictures.example/a.png"
        )

    body = server.asked[0].json
    sent = [base64.b64decode(entry["subject_image"]) for entry in body["subject_image_list"]]
    assert [each == data for each in sent] == [True, True, False, True]
    assert Image.open(io.BytesIO(sent[2])).size == (1600, 1067)
    assert body["scene_image"] == "https://pictures.example/a.png"


async def test_addresses_are_fetched_by_the_service(tmp_path: Path) -> None:
    """Pictures named by address are passed on as they stand; the service fetches them from a web server here."""
    async with Plain(lambda _: reply(200, png(400, 300), kind="image/png")) as web:
        rows = [
            {"key": str(number), "subject_images": [f"{web.url}/woman-{number}.png?size=big&sign=ab"]}
            for number in range(3)
        ]
        async with (
            Emulator(speed="instant", paint="composite", megapixels=0.05) as emulator,
            client(emulator) as kling,
        ):
            jobs = read_manifest(manifest(tmp_path, rows))
            outcomes = [outcome async for outcome in kling.batch(jobs, out=tmp_path / "out")]

    assert [type(outcome) for outcome in outcomes] == [Succeeded] * 3
    assert sorted(asked.target for asked in web.asked) == [
        f"/woman-{number}.png?size=big&sign=ab" for number in range(3)
    ]


@pytest.mark.parametrize("shape", ["jsonl", "json", "with a key", "BOM and CRLF"])
async def test_the_seeds_own_example_is_a_row(tmp_path: Path, shape: str) -> None:
    """The page's request, letter for letter, is a row of a manifest and arrives as it stands."""
    given = json.loads(SEED_ROW.read_text())
    path = tmp_path / ("jobs.json" if shape == "json" else "jobs.jsonl")
    row = {**given, "key": "seed"} if shape == "with a key" else given
    text = SEED_ROW.read_text() if shape == "json" else json.dumps(row) + "\n"
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n") if shape == "BOM and CRLF" else text).encode())
    images = [{"index": number, "url": "http://nowhere.invalid/x.png"} for number in range(2)]
    ended = task("t-1", "succeed", task_result={"images": images})

    async with (
        Plain(lambda asked: answer(task("t-1") if asked.method == "POST" else ended)) as server,
        client(server) as kling,
    ):
        outcomes = [outcome async for outcome in kling.batch(read_manifest(path))]

    (asked,) = server.of("POST")
    sent = asked.json
    assert sent.pop("external_task_id").startswith("ka-")
    assert {**sent, "negative_prompt": ""} == given
    assert [type(outcome) for outcome in outcomes] == [Succeeded]


async def test_a_picture_that_changes_before_its_turn_fails_alone(tmp_path: Path) -> None:
    """A file replaced by something else between the manifest and its turn fails its row and is not sent."""
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(png())
    rows = [{"key": name, "subject_images": [f"{name}.png"]} for name in ("good", "bad")]
    jobs = list(read_manifest(manifest(tmp_path, rows)))
    (tmp_path / "bad.png").write_text("<html>")

    async with Emulator(speed="instant", paint="stamp") as emulator, client(emulator) as kling:
        outcomes = {outcome.key: outcome async for outcome in kling.batch(jobs)}

    assert isinstance(outcomes["good"], Succeeded)
    assert isinstance(outcomes["bad"], Failed)
    assert creates(emulator) == 1


async def test_one_picture_used_by_many_jobs(folder: Path) -> None:
    """Twenty jobs with the same style picture are sent whole, each of them."""
    style = folder / "photo.jpg"
    size = len(base64.b64encode(style.read_bytes()))
    jobs = [
        MultiImage(subject_images=["https://pictures.example/a.png"], style_image=style, prompt=str(number))
        for number in range(20)
    ]

    async with (
        Plain(
            lambda asked: answer(task("t-1") if asked.method == "POST" else task("t-1", "failed"))
        ) as server,
        client(server, slots=10) as kling,
    ):
        async for _ in kling.batch(jobs):
            pass

    assert {len(asked.json["style_image"]) for asked in server.of("POST")} == {size}
    assert len(server.of("POST")) == 20
