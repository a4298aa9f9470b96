"""A client over a script instead of sockets: what it sends, what it makes of replies, and of connections that break."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from pathlib import Path

import pytest
from socket_kit import collect, leaves_nothing, png

from kling_async import Failed, Kling, MultiImage, Outcome, Succeeded
from kling_async.errors import (
    ContentRefusal,
    DownloadError,
    LinkExpired,
    MalformedReply,
    NoFreeSlot,
    RequestTimeout,
    SubmissionUnknown,
    TaskFailed,
    TransportError,
)
from kling_async.testing import Answer, Broken, ScriptedRequest, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "https://pictures.example/robot.png"


def over(script: ScriptedTransport, **options: object) -> Kling:
    """Make a client over *script*."""
    return Kling(session=script, **{"api_key": "secret", "slots": 9, **options})  # type: ignore[arg-type]  # of the test


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may open a connection."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


async def test_without_a_script_all_goes_well(tmp_path: Path) -> None:
    """A task is made, succeeds, and its picture is saved, by a client that opens no connection and leaves nothing behind."""
    script = ScriptedTransport()
    async with over(script) as kling:
        task = await kling.images.multi_image.run(subject_images=[URL], prompt="hello", n=2)
        paths = [await image.save(tmp_path) for image in task.images]

    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG"] * 2
    assert script.requests[0].route == "create"
    assert script.tasks_created == 1
    (create,) = script.of("create")
    assert (create.method, create.path) == ("POST", "/v1/images/multi-image2image")
    assert create.json["prompt"] == "hello"
    assert create.headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(script.requests)


async def test_pictures_are_sent_as_they_are() -> None:
    """The body that a test sees is the one that a server would have read, base64 and length included."""
    script, picture = ScriptedTransport(), png()
    async with over(script) as kling:
        _ = await kling.images.multi_image.create(subject_images=[picture])

    (create,) = script.of("create")
    sent = json.loads(create.body)["subject_image_list"][0]["subject_image"]
    assert base64.b64decode(sent) == picture


async def test_lists_are_for_the_first_requests_in_turn() -> None:
    """After the last line of a list all goes well again."""
    script = ScriptedTransport(create=[Answer.refused(1301), Answer.refused(1301)])
    refused = 0
    async with over(script) as kling:
        for _ in range(3):
            try:
                _ = await kling.images.multi_image.create(subject_images=[URL])
            except ContentRefusal as error:
                refused += error.code == 1301

    assert refused == 2
    assert len(script.of("create")) == 3
    assert script.tasks_created == 1


async def test_a_reply_that_was_lost_is_asked_about() -> None:
    """A create that broke after it was sent and accepted is found by its external id, and is not sent again."""
    script = ScriptedTransport(create=[Broken(accepted=True)])
    async with over(script) as kling:
        handle = await kling.images.multi_image.create(subject_images=[URL], external_task_id="mine")
        task = await handle

    assert task.external_task_id == "mine"
    assert len(script.of("create")) == script.tasks_created == 1
    assert script.of("get")[0].path.endswith("/mine")


async def test_what_never_left_is_sent_again() -> None:
    """A connection that breaks before anything was sent costs nothing, and needs no asking."""
    script = ScriptedTransport(create=[Broken(ConnectionRefusedError(), sent=False)])
    async with over(script) as kling:
        _ = await kling.images.multi_image.create(subject_images=[URL])

    assert [request.route for request in script.requests] == ["create"]


async def test_nothing_at_all_is_known() -> None:
    """A create that breaks, at a service that does not answer any more, ends as SubmissionUnknown."""
    script = ScriptedTransport(pace=1000, create=Broken(), get=Broken(TimeoutError()), list=Broken())
    async with over(script, max_retries=0) as kling:
        with pytest.raises(SubmissionUnknown):
            _ = await kling.images.multi_image.create(subject_images=[URL])


async def test_errors_are_those_of_real_connections() -> None:
    """Time limits hold for a script that takes too long, and each kind of trouble has its class."""

    async def dawdle(_: ScriptedRequest) -> None:
        await asyncio.sleep(60)

    troubles = {
        TransportError: Broken(),
        RequestTimeout: dawdle,
        MalformedReply: Answer(200, b"<html>"),
        NoFreeSlot: Answer.refused(1303, status=429),
    }
    for kind, lines in troubles.items():
        script = ScriptedTransport(get=lines)  # type: ignore[arg-type]  # one of four kinds
        async with over(script, max_retries=0, timeout=0.05) as kling:
            with pytest.raises(kind):
                await kling.images.multi_image.retrieve("some-task")


async def test_a_function_answers_what_it_sees() -> None:
    """It may be sync or async, and leaves to the script what it returns None for."""

    def by_prompt(request: ScriptedRequest) -> Answer | None:
        return Answer.refused(1301) if "rude" in request.json["prompt"] else None

    script = ScriptedTransport(create=by_prompt)
    async with over(script) as kling:
        _ = await kling.images.multi_image.create(subject_images=[URL], prompt="polite")
        with pytest.raises(ContentRefusal):
            _ = await kling.images.multi_image.create(subject_images=[URL], prompt="rude")

    assert script.tasks_created == 1


async def test_a_task_goes_its_way() -> None:
    """What the poller is shown in turn is what the handle tells."""
    shown = [
        Answer.task("scripted-1", "submitted", external_task_id="mine"),
        Answer.task("scripted-1", "processing", external_task_id="mine"),
        Answer.task("scripted-1", "failed", external_task_id="mine", message="no face"),
    ]
    script = ScriptedTransport(get=shown)
    async with over(script) as kling:
        handle = await kling.images.multi_image.create(subject_images=[URL], external_task_id="mine")
        statuses = [task.status.value async for task in handle.events()]
        with pytest.raises(TaskFailed, match="no face"):
            await handle

    assert statuses[-1] == "failed"
    assert "processing" in statuses


async def test_results_are_scripted_too() -> None:
    """A link that expired and what is no picture reach the caller as from a real result host, which gets no credentials."""
    script = ScriptedTransport(result=[Answer(404), Answer(200, b"<html>no picture</html>")])
    async with over(script) as kling:
        task = await kling.images.multi_image.run(subject_images=[URL])
        with pytest.raises(LinkExpired):
            await task.images[0].read()
        with pytest.raises(DownloadError, match="PNG, JPEG or WebP"):
            await task.images[0].read()

    assert script.of("result")[0].path.endswith("/scripted-1/0.png")
    assert "authorization" not in script.of("result")[0].headers


async def test_a_result_host_that_breaks_off_fails_one_picture(tmp_path: Path) -> None:
    """The trouble is a `DownloadError` of its job; the others of the batch are saved."""
    script = ScriptedTransport(pace=1000, result=[Broken()] * 12)
    outcomes: list[Outcome] = []
    async with over(script) as kling:
        task = await kling.images.multi_image.run(subject_images=[URL])
        with pytest.raises(DownloadError, match="the download failed"):
            await task.images[0].read()
        jobs = [MultiImage(key=f"k{number}", subject_images=[URL]) for number in range(6)]
        async with kling.batch(jobs, out=tmp_path) as batch:
            await collect(batch, outcomes)

    assert len(outcomes) == 6
    assert all(isinstance(each.error, DownloadError) for each in outcomes if isinstance(each, Failed))


async def test_a_whole_batch_runs_over_it(tmp_path: Path) -> None:
    """Forty jobs with pictures from memory, three of them refused for want of slots and two for good, are each made once."""
    lines = [Answer.refused(1303, status=429)] * 3 + [Answer.refused(1301)] * 2
    script = ScriptedTransport(create=lines)
    jobs = [MultiImage(key=f"k{number}", subject_images=[png()]) for number in range(40)]
    outcomes: list[Outcome] = []
    async with leaves_nothing():
        async with over(script) as kling, kling.batch(jobs, out=tmp_path) as batch:
            await collect(batch, outcomes)

    assert sum(isinstance(outcome, Succeeded) for outcome in outcomes) == script.tasks_created == 38
    assert sum(isinstance(outcome, Failed) for outcome in outcomes) == 2
    names = [request.json["external_task_id"] for request in script.of("create")]
    assert len(set(names)) == 40
    assert len(list((tmp_path / "images").iterdir())) == 38


def test_unknown_routes_are_refused() -> None:
    """A script for a route that there is none of would never be read."""
    with pytest.raises(TypeError, match="expected routes among create, get, list"):
        ScriptedTransport(post=Answer())  # type: ignore[call-arg]  # the mistake
