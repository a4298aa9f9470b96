"""The first ten lines of every user, against the emulator and against servers that answer what the seed shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from socket_kit import PATH, Asked, Plain, answer, client, creates, job, leaves_nothing, png, reply, until

from kling_async import Kling, TaskStatus
from kling_async.emulator import Emulator
from kling_async.errors import TaskTimeout

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
WOMAN = "https://v1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test/multi-1.png"


def sample(case: str) -> Any:
    """Return the seed's own example reply."""
    return json.loads((SAMPLES / case / "200.json").read_text())


async def test_ten_lines_bring_a_picture(tmp_path: Path) -> None:
    """Create, await, save: the picture is a whole PNG on disk, and one create was made for it."""
    (tmp_path / "dress.png").write_bytes(png())

    async with (
        leaves_nothing(),
        Emulator(speed=100, paint="stamp") as emulator,
        Kling(api_key=emulator.api_key, base_url=emulator.url) as kling,
    ):
        handle = await kling.images.multi_image.create(
            subject_images=[tmp_path / "dress.png"], prompt="a red dress", n=2, aspect_ratio="9:16"
        )
        task = await handle
        paths = [await image.save(tmp_path / "out") for image in task.images]

    assert (handle.task_id, handle.external_task_id) == (task.task_id, emulator.tasks[0].external_task_id)
    assert [path.read_bytes()[:8] for path in paths] == [b"\x89PNG\r\n\x1a\n"] * 2
    assert sorted(path.name for path in paths) == [
        f"{task.external_task_id}_0.png",
        f"{task.external_task_id}_1.png",
    ]
    assert creates(emulator) == 1


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_as_people_write_it(suffix: str) -> None:
    """A base URL with `/` or `/v1` at its end is the same service."""
    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, base_url=emulator.url + suffix) as kling,
    ):
        task = await kling.images.multi_image.run(job(), wait_timeout=30)

    assert task.status == TaskStatus.SUCCEED


def seed_server(create: Any, single: Any, listing: Any) -> Callable[[Asked], bytes]:
    """Answer as the page shows; the result is on the same server."""

    def say(asked: Asked) -> bytes:
        if asked.path.endswith(".png"):
            return reply(200, png(), kind="image/png")
        if asked.method == "POST":
            return reply(200, json.dumps(create).encode())
        return reply(200, json.dumps(listing if asked.path == PATH else single).encode())

    return say


async def test_the_seeds_own_replies_are_a_whole_life(tmp_path: Path) -> None:
    """The page's example JSON, with a usable status and address, is created, awaited and saved."""
    create, single, listing = sample("seed_create"), sample("seed_single"), sample("seed_list")

    async with leaves_nothing(), Plain(seed_server(create, single, listing)) as server:
        create["data"]["task_status"] = "submitted"
        for entry in (single["data"], listing["data"][0]):
            entry["task_status"] = "succeed"
            entry["task_result"]["images"][0]["url"] = f"{server.url}/made.png?sign=1"
        async with client(server) as kling:
            handle = await kling.images.multi_image.create(subject_images=[WOMAN], prompt="a red dress")
            task = await handle.wait(timeout=30)
            path = await task.images[0].save(tmp_path)

    moment = datetime(2024, 8, 4, 11, 5, 57, 708_000, tzinfo=UTC)
    assert (handle.task_id, task.task_id, task.external_task_id) == ("string", "string", "string")
    assert (task.status, task.created_at, task.updated_at) == (TaskStatus.SUCCEED, moment, moment)
    assert (task.units, task.status_message, task.request_id) == (None, "string", "string")
    assert task.raw["watermark_info"] == {"enabled": True}
    assert path.read_bytes() == png()
    assert len(server.of("POST")) == 1


async def test_the_seeds_placeholders_are_survived() -> None:
    """Where every value is the word "string" the handle is known, the status keeps its text, and a wait is bounded."""
    replies = sample("seed_create"), sample("seed_single"), sample("seed_list")

    async with leaves_nothing(), Plain(seed_server(*replies)) as server, client(server) as kling:
        handle = await kling.images.multi_image.create(subject_images=[WOMAN])
        found = await kling.images.multi_image.retrieve("string")
        listed = await kling.images.multi_image.list()
        with pytest.raises(TaskTimeout) as caught:
            await handle.wait(timeout=0.2)

    assert handle.task_id == caught.value.task_id == "string"
    assert (found.status, found.status.value, found.ended) == (TaskStatus.UNKNOWN, "string", False)
    assert [image.url for image in found.images] == ["string"]
    assert [task.task_id for task in listed] == ["string"]
    assert len(server.of("POST")) == 1


async def test_the_seeds_request_is_what_is_sent() -> None:
    """The page's curl, field for field, is the body; only the external id is added."""
    given = json.loads((SAMPLES / "seed_job" / "request.json").read_text())
    pictures = given["subject_image_list"]

    async with Plain(lambda _: answer({"task_id": "t-1"})) as server, client(server) as kling:
        _ = await kling.images.multi_image.create(
            model_name=given["model_name"],
            prompt=given["prompt"],
            negative_prompt=given["negative_prompt"],
            subject_images=[picture["subject_image"] for picture in pictures],
            scene_image=given["scene_image"],
            style_image=given["style_image"],
            n=given["n"],
            aspect_ratio=given["aspect_ratio"],
        )
        await until(lambda: server.asked)
        asked = server.asked[0]

    sent = asked.json
    assert sent.pop("external_task_id").startswith("ka-")
    assert sent == given
    assert (asked.method, asked.target) == ("POST", PATH)
    assert asked.headers["authorization"] == "Bearer plain-api-key"
    assert asked.headers["content-type"] == "application/json"
