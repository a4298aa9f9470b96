"""
An emulator in a thread and loop of its own, for tests that are sync or run on a loop of any kind.

Its server answers while the test blocks, and the test's own loop sees nothing of it but HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import checkpoint
from attrs import define, field

from kling_async.client.kling import Kling
from kling_async.emulator.app import RequestRecord
from kling_async.emulator.callbacks import CallbackRecord
from kling_async.emulator.faults import Fault, Faults
from kling_async.emulator.server import BookedTask, Emulator

__all__ = ["RunningEmulator", "running_emulator"]

_T = TypeVar("_T")


@define(eq=False, repr=False)
class RunningEmulator:
    """
    A local Kling that is up; made by `running_emulator()` and the fixture `kling_emulator`.

    Every member returns at once and may be used from any thread, inside a running loop too.
    """

    _emulator: Emulator
    _portal: BlockingPortal = field()

    def __repr__(self) -> str:
        return f"<Running{repr(self._emulator).removeprefix('<')}"

    @property
    def url(self) -> str:
        """The address to give as *base_url*."""
        return self._emulator.url

    @property
    def api_key(self) -> str:
        """The plain API key of the first account."""
        return self._emulator.api_key

    @property
    def access_key(self) -> str:
        """The access key of the first account."""
        return self._emulator.access_key

    @property
    def secret_key(self) -> str:
        """The secret key of the first account."""
        return self._emulator.secret_key

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which `Kling()` finds this emulator."""
        return {"KLING_API_KEY": self.api_key, "KLING_BASE_URL": self.url}

    @property
    def tasks(self) -> list[BookedTask]:
        """Every task accepted, oldest first, as it stands now."""
        return self._ask(lambda: self._emulator.tasks)

    @property
    def tasks_created(self) -> int:
        """How many tasks were accepted: what would have been paid for."""
        return len(self.tasks)

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests answered, oldest first; without bodies and secrets."""
        return self._ask(lambda: self._emulator.requests)

    @property
    def callbacks(self) -> list[CallbackRecord]:
        """The callbacks posted, oldest first."""
        return self._ask(lambda: self._emulator.callbacks)

    @property
    def peak_slots(self) -> int:
        """The most slots that tasks held at once in one account and model."""
        return self._ask(lambda: self._emulator.peak_slots)

    @property
    def slot_seconds(self) -> float:
        """The slots used, times the emulated seconds for which they were, by all tasks up to their last change."""
        return self._ask(lambda: self._emulator.slot_seconds)

    @property
    def faults(self) -> Faults:
        """The faults in force; setting them, also by text such as `"1303:5%"`, starts their counts anew."""
        return self._ask(lambda: self._emulator.faults)

    @faults.setter
    def faults(self, value: Faults | str | Iterable[Fault]) -> None:
        self._ask(lambda: setattr(self._emulator, "faults", value))

    def client(self, **options: Any) -> Kling:
        """
        Make a client of this emulator; takes the options of `Kling`.

        It asks for its tasks every 0.02 s unless *min_poll_interval* says otherwise, since no test likes to wait.
        """
        known: dict[str, Any] = {
            "api_key": self.api_key,
            "base_url": self.url,
            "min_poll_interval": 0.02,
            "trust_env": False,
        }
        return Kling(**known | options)

    def accepted(self, external_task_id: str) -> int:
        """Return how many tasks were ever accepted under *external_task_id*: more than one is a double charge."""
        return self._ask(lambda: self._emulator.accepted(external_task_id))

    def advance(self, seconds: float) -> None:
        """
        Let *seconds* of emulated time pass at once.

        When this returns, tasks have changed and callbacks are on their way. It does not wait for those: their
        receiver may live in the loop that this call blocks.
        """
        self._portal.start_task_soon(self._emulator.advance, seconds)
        # Tasks of a loop start in the order of their making, so the one above has begun when this one has.
        self._portal.call(checkpoint)

    def reset(self) -> None:
        """Forget all tasks, requests, callbacks and counts; settings and faults stay, units are full again."""
        self._portal.call(self._emulator.reset)

    def _ask(self, question: Callable[[], _T]) -> _T:
        return self._portal.call(question)


@contextmanager
def running_emulator(**options: Any) -> Iterator[RunningEmulator]:
    """
    Run an emulator in a thread for the length of the `with` block; takes the fields of `EmulatorSettings`.

    Tasks end at once and pictures are tiny unless *speed* and *paint* say otherwise.
    """
    emulator = Emulator(**{"speed": "instant", "paint": "stamp"} | options)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(emulator):
        yield RunningEmulator(emulator, portal)
