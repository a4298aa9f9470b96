"""Callbacks: when they are posted, with what, and how they go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from attrs import Factory, define
from emulator_kit import Opener

from kling_async.protocol.callbacks import sign

pytestmark = pytest.mark.anyio

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


@define
class Receiver:
    """A web server on this machine that keeps what is posted to it."""

    url: str = ""
    got: list[tuple[Mapping[str, str], bytes]] = Factory(list)
    ended: asyncio.Event = Factory(asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers, await request.read()))
        if b'"succeed"' in self.got[-1][1]:
            self.ended.set()
        return web.Response(status=204)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]

    @property
    def statuses(self) -> list[str]:
        return [body["task_status"] for body in self.bodies]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?key=abc"
    yield receiver
    await runner.cleanup()


async def test_each_change_is_posted_as_the_bare_task(emulate: Opener, receiver: Receiver) -> None:
    """Submitted, processing and succeed come in order, bare, without watermark links, and unsigned without a secret."""
    kling = await emulate()

    await kling.finished(
        callback_url=receiver.url, external_task_id="a-1", n=2, watermark_info={"enabled": True}
    )

    assert receiver.statuses == ["submitted", "processing", "succeed"]
    first, _, last = receiver.bodies
    assert "code" not in last
    assert last["task_info"] == {"external_task_id": "a-1"}
    assert last["final_unit_deduction"] == "32"
    assert [set(image) for image in last["task_result"]["images"]] == [{"index", "url"}] * 2
    assert (first["task_result"], "final_unit_deduction" in first) == ({}, False)
    assert first["updated_at"] < last["updated_at"]
    assert receiver.got[0][0]["Content-Type"] == "application/json; charset=utf-8"
    assert "webhook-id" not in receiver.got[0][0]
    assert {(each.answer, each.kind) for each in kling.emulator.callbacks} == {(204, "genuine")}
    assert "abc" not in repr(kling.emulator.callbacks)


async def test_a_failed_task_tells_why(emulate: Opener, receiver: Receiver) -> None:
    """The last callback of a failed task has the reason and a deduction of nothing."""
    kling = await emulate()

    await kling.finished(callback_url=receiver.url, prompt="[[risk]]")

    last = receiver.bodies[-1]
    assert (last["task_status"], last["task_status_msg"], last["final_unit_deduction"]) == (
        "failed", "Failure to pass the risk control system", "0"
    )  # fmt: skip


async def test_callbacks_are_signed_with_a_secret(emulate: Opener, receiver: Receiver) -> None:
    """With a webhook secret each callback has the three headers and a signature that holds."""
    kling = await emulate(webhook_secret=SECRET)

    await kling.finished(callback_url=receiver.url)

    for headers, body in receiver.got:
        stamp = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == sign(SECRET, headers["webhook-id"], stamp, body)
        assert abs(stamp - kling.emulator._clock.wall()) < 30
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3


@pytest.mark.parametrize(
    ("spec", "statuses"),
    [
        ("dup-callback", ["submitted", "submitted", "processing", "processing", "succeed", "succeed"]),
        ("lost-callback:x1", ["processing", "succeed"]),
        ("late-callback=5:x1", ["processing", "submitted", "succeed"]),
        ("late-callback:x1", ["processing", "submitted", "succeed"]),
        ("reordered-callback:x1", ["processing", "submitted", "succeed"]),
        ("reordered-callback", ["succeed", "processing", "submitted"]),
        ("forged-callback:x1", ["submitted", "succeed", "processing", "succeed"]),
    ],
)
async def test_callbacks_go_wrong(
    emulate: Opener, receiver: Receiver, spec: str, statuses: list[str]
) -> None:
    """Each callback fault changes what arrives, and in what order."""
    kling = await emulate(faults=spec, webhook_secret=SECRET)

    await kling.finished(callback_url=receiver.url)

    assert receiver.statuses == statuses


async def test_a_forged_callback_does_not_verify(emulate: Opener, receiver: Receiver) -> None:
    """The forger has another secret and points elsewhere."""
    kling = await emulate(faults="forged-callback:x1", webhook_secret=SECRET)
    await kling.create(callback_url=receiver.url)
    await kling.emulator.advance(0)

    headers, body = next(each for each in receiver.got if b"attacker.invalid" in each[1])

    assert headers["webhook-signature"] != sign(
        SECRET, headers["webhook-id"], int(headers["webhook-timestamp"]), body
    )


async def test_callbacks_stay_on_this_machine(emulate: Opener) -> None:
    """An address elsewhere is not asked unless allowed, one that is closed is noted; the task does not mind."""
    here, anywhere = await emulate(), await emulate(allow_remote_callbacks=True)

    await here.finished(callback_url="https://shop.example/hook")
    closed = await here.finished(callback_url="http://127.0.0.1:1/hook")
    await anywhere.finished(callback_url="http://127.0.0.1:1/hook")

    assert closed["task_status"] == "succeed"
    assert {each.answer for each in (*here.emulator.callbacks, *anywhere.emulator.callbacks)} == {None}
    assert len(here.emulator.callbacks) == 6


async def test_callbacks_come_without_a_request(emulate: Opener, receiver: Receiver) -> None:
    """When time passes by itself, callbacks come although nobody asks anything."""
    kling = await emulate(speed=1000, task_seconds=20.0)
    await kling.create(callback_url=receiver.url)

    async with asyncio.timeout(30):
        await receiver.ended.wait()

    assert receiver.statuses == ["submitted", "processing", "succeed"]


async def test_closing_stops_what_is_under_way(emulate: Opener) -> None:
    """A receiver that never answers does not keep the emulator open, and a reset forgets what waits."""
    forever = asyncio.Event()

    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forever.wait()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    kling = await emulate()
    await kling.create(callback_url=url)
    await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await kling.emulator.reset()
        await kling.create(callback_url=url)
        await kling.emulator.__aexit__(None, None, None)
    forever.set()
    server.close()

    assert kling.emulator.callbacks == []
    assert "0 under way" in repr(kling.emulator._outbox)
