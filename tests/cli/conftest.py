"""A folder with a picture and, for the tests that talk, an emulator of its own process-wide loop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from attrs import define

from kling_async.emulator import Emulator, EmulatorSettings

sys.path.insert(0, str(Path(__file__).parent))  # the kit beside this file; tests are no package

from cli_kit import picture


@define(eq=False)
class Service:
    """An emulator in a thread, so that commands in processes of their own can call it."""

    emulator: Emulator

    @property
    def env(self) -> dict[str, str]:
        return {"KLING_BASE_URL": self.emulator.url, "KLING_API_KEY": self.emulator.api_key}

    @property
    def accepted(self) -> int:
        return sum(request.method == "POST" and request.status == 200 for request in self.emulator.requests)

    @property
    def creates(self) -> int:
        return sum(request.method == "POST" for request in self.emulator.requests)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good picture, `a.png`."""
    picture(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def service() -> Iterator[Service]:
    """An instant service that paints quickly."""
    yield from serve(EmulatorSettings(speed="instant", paint="stamp"))


@pytest.fixture
def slow_service() -> Iterator[Service]:
    """A service whose tasks take about a second."""
    yield from serve(EmulatorSettings(speed=20, task_seconds=20.0, paint="stamp"))


@pytest.fixture
def signing_service() -> Iterator[Service]:
    """A service whose tasks take a tenth of a second and whose callbacks are signed."""
    secret = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
    yield from serve(EmulatorSettings(speed=100, task_seconds=10.0, paint="stamp", webhook_secret=secret))


def serve(settings: EmulatorSettings) -> Iterator[Service]:
    """Serve until the test is over."""
    ready = threading.Event()
    found: list[Service] = []
    ends: list[object] = []

    async def live() -> None:
        import asyncio

        async with Emulator(settings) as emulator:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            found.append(Service(emulator))
            ends.append(lambda: loop.call_soon_threadsafe(stop.set))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=anyio.run, args=(live,), daemon=True)
    thread.start()
    assert ready.wait(20), "the emulator did not open"
    try:
        yield found[0]
    finally:
        end = ends[0]
        assert callable(end)
        end()
        thread.join(20)
