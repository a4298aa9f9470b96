"""Real replies for the pure tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kling_async.protocol.codec import Reply

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture
def sample() -> Callable[..., Reply]:
    """Read the reply kept as `samples/<case>/<status>.json`."""

    def read(case: str, status: int = 200, **headers: str) -> Reply:
        body = (SAMPLES / case / f"{status}.json").read_bytes()
        return Reply(
            status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}, body=body
        )

    return read
