"""Opening, closing and running an emulator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from emulator_kit import Opener

from kling_async.emulator import Emulator, EmulatorSettings, serve, server
from kling_async.errors import ConfigError, MissingExtra

pytestmark = pytest.mark.anyio


async def test_an_emulator_closes_and_leaves_nothing() -> None:
    """After closing no task and no timer is left, the books can be read, and it cannot be opened again."""
    before = asyncio.all_tasks()
    async with Emulator(speed=20, paint="stamp") as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")
        assert emulator.url in repr(emulator)

    assert asyncio.all_tasks() == before
    assert emulator.tasks == []
    assert emulator.callbacks == []
    assert "closed" in repr(emulator)
    with pytest.raises(ConfigError, match="make a new one"):
        await emulator.__aenter__()


async def test_a_timer_left_over_is_stopped(emulate: Opener) -> None:
    """Closing with tasks under way cancels the one timer."""
    kling = await emulate(speed=1, task_seconds=3600.0)
    await kling.create()
    timer = kling.emulator._timer
    assert timer is not None

    await kling.emulator.__aexit__(None, None, None)

    assert timer.cancelled()


async def test_an_emulator_can_be_looked_at_before_it_is_opened() -> None:
    """Keys, empty books and faults are there from the start; time and reset work without a server."""
    emulator = Emulator(EmulatorSettings(paint="stamp", speed="manual", faults="1303:x1"))

    await emulator.advance(10)
    await emulator.reset()
    emulator.faults = emulator.faults + emulator.faults

    assert emulator.fault_hits == [0, 0]
    assert (emulator.access_key, emulator.api_key) == ("emulated-access-key", "emulated-api-key")
    assert len(emulator.secret_key) >= 32


async def test_a_taken_port_is_told_and_nothing_stays_open(emulate: Opener) -> None:
    """An emulator that cannot listen raises OSError and leaves no thread and no socket."""
    kling = await emulate()
    port = int(kling.emulator.url.rpartition(":")[2])

    with pytest.raises(OSError, match="address already in use"):
        async with Emulator(port=port, paint="stamp"):
            pass


async def test_links_carry_the_public_address(emulate: Opener) -> None:
    """Behind a forwarded port, links are made with the address that the outside knows."""
    kling = await emulate(public_url="http://kling.test:8080/")

    shown = await kling.finished()

    assert kling.emulator.url.startswith("http://127.0.0.1:")
    assert shown["task_result"]["images"][0]["url"].startswith("http://kling.test:8080/results/")


async def test_a_public_host_must_be_asked_for() -> None:
    """Other machines are let in only with allow_remote, and the address given to clients is one to go to."""
    async with Emulator(host="0.0.0.0", allow_remote=True, paint="stamp") as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")


async def test_composites_need_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the constructor says which extra to install; stamps do without."""
    monkeypatch.setattr(server, "find_spec", lambda _name: None)

    with pytest.raises(MissingExtra, match=r"kling-async\[images\]") as caught:
        Emulator()

    assert caught.value.extra == "images"
    assert Emulator(paint="stamp").settings.paint == "stamp"


async def test_stamps_are_served_without_loading_pillow() -> None:
    """An emulator with stamps never imports Pillow."""
    program = (
        "import asyncio, sys, json, urllib.request as u\n"
        "from kling_async.emulator import Emulator\n"
        "async def main():\n"
        "    async with Emulator(paint='stamp', speed='instant') as e:\n"
        "        def call(path, body=None):\n"
        "            h = {'Authorization': 'Bearer ' + e.api_key, 'Content-Type': 'application/json'}\n"
        "            return u.urlopen(u.Request(path if '://' in path else e.url + path, body, h)).read()\n"
        "        p = '/v1/images/multi-image2image'\n"
        "        b = json.dumps({'subject_image_list': [{'subject_image': 'https://x.example/a.png'}]}).encode()\n"
        "        t = json.loads(await asyncio.to_thread(call, p, b))['data']['task_id']\n"
        "        i = json.loads(await asyncio.to_thread(call, p + '/' + t))['data']['task_result']['images'][0]['url']\n"
        "        assert (await asyncio.to_thread(call, i)).startswith(b'\\x89PNG')\n"
        "    assert 'PIL' not in sys.modules\n"
        "asyncio.run(main())\n"
    )

    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", "-c", program], check=True, timeout=60
    )


async def test_serve_runs_until_it_is_cancelled() -> None:
    """serve() tells when it has started and closes when it is cancelled."""
    told: asyncio.Future[Emulator] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(serve(EmulatorSettings(paint="stamp"), started=told.set_result))
    emulator = await told
    url = emulator.url

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert url.startswith("http://")
    assert emulator.url == ""


async def test_serve_needs_no_listener() -> None:
    """serve() works without being asked to tell."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(serve(EmulatorSettings(paint="stamp")), 0.05)


async def test_five_thousand_tasks_need_one_timer(emulate: Opener) -> None:
    """Live tasks cost no asyncio task each: five thousand are held by one heap."""
    kling = await emulate(speed=1, slots=10_000, task_seconds=3600.0)
    emulator: Any = kling.emulator
    before = len(asyncio.all_tasks())
    store, account = emulator._store, emulator._first
    first = (await kling.create()).data
    order, endpoint = store.tasks[0].order, store.tasks[0].endpoint

    for _ in range(4_999):
        store.create(account, endpoint, order, emulator._clock.now())

    assert len(emulator.tasks) == 5_000
    assert len(asyncio.all_tasks()) <= before + 2
    assert (await kling.get(first["task_id"])).status == 200
    await emulator.advance(3600)
    assert {task.status for task in emulator.tasks} == {"succeed"}
    assert "0 slots in use" in repr(store)
