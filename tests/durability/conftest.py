"""One service and one source of clients for all proofs of durability."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

# `crash_kit` and `fault_server` are packages of the tests, which are none themselves.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash_kit import Work, Zygote, open_service
from crash_kit.proof import pictures, refresh
from fault_server import FaultServer, Remote

Undisturbed: TypeAlias = Callable[[Work], Mapping[str, str]]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """What clients are forked from."""
    with Zygote.spawn() as zygote:
        yield zygote


@pytest.fixture(scope="session")
def only_service() -> Iterator[Remote]:
    """The process of the service."""
    with open_service() as server:
        yield server


@pytest.fixture
def service(only_service: Remote) -> Remote:
    """A service with empty books, four slots that it does not enforce, and tasks that end at once."""
    refresh(only_service)
    return only_service


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Six jobs of different weight."""
    return Work(out=tmp_path / "out")


@pytest.fixture(scope="session")
def undisturbed(
    zygote: Zygote, only_service: Remote, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The pictures of a run of the six jobs that nothing disturbs."""
    refresh(only_service)
    work = Work(out=tmp_path_factory.mktemp("undisturbed") / "out")
    death = zygote.live(work.order(only_service))
    assert death.code == 0, death.report
    return pictures(work.out)


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A service in this process, whose clock and books are at hand."""
    async with FaultServer() as server:
        yield server
