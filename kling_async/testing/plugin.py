"""
The pytest plugin: fixtures `kling_emulator`, `kling_emulator_session` and `kling_env`.

pytest loads it in every project where this package is installed, so it imports nothing before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kling_async.testing.running import RunningEmulator

__all__ = ["kling_emulator", "kling_emulator_session", "kling_emulator_settings", "kling_env"]

_MARKER = "kling_emulator(**settings): settings of this test's emulator, such as slots=3 or faults='1303:5%'"
_NAMES = ("API_KEY", "ACCESS_KEY", "SECRET_KEY")
# Whatever else a client reads: a developer's own settings must not reach into a test.
_FOREIGN = (
    *(f"{maker}_{name}" for maker in ("KLING", "KLINGAI") for name in _NAMES),
    "KLING_BASE_URL",
    "KLING_REGION",
    "KLING_SLOTS",
    "KLING_WEBHOOK_SECRET",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def kling_emulator(request: pytest.FixtureRequest) -> Iterator[RunningEmulator]:
    """
    Run a local Kling of the test's own, for sync tests and async ones on any loop.

    Tasks end at once and pictures are tiny unless the marker says otherwise, as in
    `@pytest.mark.kling_emulator(speed=20, paint="composite", slots=3)`.
    """
    from kling_async.testing.running import running_emulator

    marker = request.node.get_closest_marker("kling_emulator")
    with running_emulator(**(marker.kwargs if marker else {})) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def kling_emulator_settings() -> Mapping[str, Any]:
    """Return settings for the emulator of the session; redefine it in a `conftest.py` to give some."""
    return {}


@pytest.fixture(scope="session")
def kling_emulator_session(kling_emulator_settings: Mapping[str, Any]) -> Iterator[RunningEmulator]:
    """
    Run a local Kling for the whole session, for an application that is started once.

    Tests share its tasks, requests and units; `reset()` forgets them.
    """
    from kling_async.testing.running import running_emulator

    with running_emulator(**kling_emulator_settings) as emulator:
        yield emulator


@pytest.fixture
def kling_env(kling_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> RunningEmulator:
    """Point `Kling()` at the test's own emulator, through the environment; returns the emulator."""
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name, value in kling_emulator.env.items():
        monkeypatch.setenv(name, value)
    return kling_emulator
