"""
Where tasks stand now, for whoever wants to watch them live.

Only the latest state of each task is kept, and a reader is no more than a number: up to which change it has read. So
one that is slow skips what was in between and costs no memory, and one that comes again goes on where it was.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from attrs import define, evolve, field, frozen

from kling_async.client.engine import Engine
from kling_async.client.kling import Kling
from kling_async.errors import ApiError, ConfigError, SubmissionUnknown
from kling_async.protocol import events

__all__ = ["Board", "Live", "Reader", "TaskState", "live", "state_after"]

# Tasks whose state is kept; those that changed least recently go first.
_MOST = 10_000
# States that are read in one go, some 10 KB of text.
_AT_ONCE = 64
# A job that left without a task; the only end after which the same id may begin again.
_DROPPED = "dropped"


@frozen(kw_only=True)
class TaskState:
    """
    Where one task stands; *version* numbers the change.

    *status* is the service's word, or `waiting` before there is a task, `dropped` if none comes of it and `unknown` while
    nobody can tell.
    Whoever watches sees what `public()` returns, which has no address and no picture.
    """

    external_task_id: str
    task_id: str = ""
    key: str = ""
    status: str = "waiting"
    reason: str = ""
    ended: bool = False
    version: int = 0

    def public(self, *, with_key: bool = False) -> dict[str, Any]:
        """Return what a browser is told; the caller's own *key* only where everything is shown."""
        shown: dict[str, Any] = {
            "id": self.external_task_id,
            "task_id": self.task_id,
            "status": self.status,
            "ended": self.ended,
        }
        if self.reason:
            shown["reason"] = self.reason
        return shown | {"key": self.key} if with_key else shown


def state_after(event: events.Event) -> TaskState | None:
    """Return the state that *event* tells of; None if it tells of none."""
    match event:
        case events.Waiting() | events.Refused():
            return _state(event)
        case events.Dropped(error=SubmissionUnknown()):
            return _state(event, status="unknown")
        case events.Dropped(error=error):
            # Other messages may name files and hosts.
            reason = error.message if isinstance(error, ApiError) else ""
            return _state(event, status=_DROPPED, reason=reason, ended=True)
        case events.Submitted() | events.Resumed():
            return _state(event, task_id=event.task_id, status="submitted")
        case events.StatusChanged():
            return _state(event, task_id=event.task_id, status=event.status)
        case events.Finished():
            return _state(event, task_id=event.task_id, status=event.status, reason=event.reason, ended=True)
        case _:
            return None


def _state(
    event: events.Waiting
    | events.Refused
    | events.Dropped
    | events.Submitted
    | events.Resumed
    | events.StatusChanged
    | events.Finished,
    **changes: Any,
) -> TaskState:
    return TaskState(external_task_id=event.external_task_id, key=event.key, **changes)


@define(eq=False)
class Reader:
    """Follows some tasks of *board*, or all; *version* is the last change that was read."""

    board: Board = field(repr=False)
    ids: frozenset[str] | None
    version: int = 0
    _news: asyncio.Event = field(factory=asyncio.Event, init=False, repr=False)

    def take(self) -> list[TaskState]:
        """Return the latest states that were not read yet, oldest first; not more than some at once."""
        self._news.clear()
        states = self.board.since(self.version, self.ids)
        if len(states) > _AT_ONCE:
            self._news.set()
        states = states[:_AT_ONCE]
        if states:
            self.version = states[-1].version
        return states

    @property
    def finished(self) -> bool:
        """Whether everything that is followed has ended, and was read."""
        if self.ids is None:
            return False
        states = [self.board.find(name) for name in self.ids]
        return all(state is not None and state.ended and state.version <= self.version for state in states)

    def wake(self) -> None:
        """Tell the reader that there is something."""
        self._news.set()

    async def changed(self) -> None:
        """Wait until there is something to take."""
        await self._news.wait()


@define(eq=False)
class Board:
    """Keeps the latest state of *most* tasks; *name* tells boards apart that number their changes alike."""

    most: int = _MOST
    name: str = field(factory=lambda: secrets.token_hex(4))
    closed: bool = field(default=False, init=False)
    _version: int = field(default=0, init=False)
    # By external id, those that changed last at the end.
    _states: OrderedDict[str, TaskState] = field(factory=OrderedDict, init=False, repr=False)
    _names: dict[str, str] = field(factory=dict, init=False, repr=False)
    # By the id they follow; those that follow everything are under None.
    _readers: defaultdict[str | None, set[Reader]] = field(
        factory=lambda: defaultdict(set), init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self._states)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(set().union(*self._readers.values()))

    def see(self, event: events.Event) -> None:
        """Take in an event of a client."""
        state = state_after(event)
        # A task that is taken up again may be further than its beginning.
        if state is not None and not (isinstance(event, events.Resumed) and self.find(event.task_id)):
            self.post(state)

    def post(self, state: TaskState) -> None:
        """Take in *state*; a task that has ended stays so, and what says nothing new is passed over."""
        known = self._states.get(state.external_task_id)
        if known is not None:
            over = known.ended and known.status != _DROPPED
            if over or evolve(state, version=known.version) == known:
                return
        self._version += 1
        self._states[state.external_task_id] = evolve(state, version=self._version)
        self._states.move_to_end(state.external_task_id)
        if state.task_id:
            self._names[state.task_id] = state.external_task_id
        while len(self._states) > self.most:
            _, oldest = self._states.popitem(last=False)
            self._names.pop(oldest.task_id, None)
        for name in (None, state.external_task_id, state.task_id):
            for reader in self._readers.get(name, ()):
                reader.wake()

    def find(self, name: str) -> TaskState | None:
        """Return the state of the task with this external id or task id."""
        return self._states.get(name) or self._states.get(self._names.get(name, ""))

    def since(self, version: int, ids: Iterable[str] | None = None) -> list[TaskState]:
        """Return the states that changed after *version*, of all tasks or those of *ids*, oldest change first."""
        if ids is not None:
            found = {state.version: state for state in map(self.find, ids) if state is not None}
            return [found[number] for number in sorted(found) if number > version]
        newer: list[TaskState] = []
        for state in reversed(self._states.values()):
            if state.version <= version:
                break
            newer.append(state)
        newer.reverse()
        return newer

    @contextmanager
    def follow(self, ids: Iterable[str] | None, version: int = 0) -> Iterator[Reader]:
        """Follow the tasks with *ids*, or all, from what came after *version*."""
        reader = Reader(self, None if ids is None else frozenset(ids), version)
        names = [None] if reader.ids is None else reader.ids
        for name in names:
            self._readers[name].add(reader)
        try:
            yield reader
        finally:
            for name in names:
                self._readers[name].discard(reader)
                if not self._readers[name]:
                    del self._readers[name]

    def close(self) -> None:
        """Tell all readers that nothing more will come."""
        self.closed = True
        for readers in self._readers.values():
            for reader in readers:
                reader.wake()


class Live(Protocol):
    """What can be watched: a board, and a memory for tasks that are not on it any more."""

    @property
    def board(self) -> Board:
        """Where tasks stand."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        ...

    async def recall(self, name: str) -> TaskState | None:
        """Return the state of a task that is not on the board."""
        ...


@define(eq=False)
class _Client:
    """The tasks of one client; those of earlier runs it does not know."""

    board: Board
    _engine: Engine

    @property
    def closed(self) -> bool:
        return self._engine.closed or self.board.closed

    async def recall(self, name: str) -> TaskState | None:  # noqa: ARG002  # nothing is kept
        return None


# One board a client, however often it is asked for: each costs something for every event.
_boards: WeakKeyDictionary[Engine, Board] = WeakKeyDictionary()


def live(source: Kling | Live) -> Live:
    """Return what can be watched of *source*: a client's tasks, or what has a board of its own."""
    if not isinstance(source, Kling):
        return source
    engine = source._engine  # noqa: SLF001  # the client's own events, without a second public way to them
    if engine.closed:
        raise ConfigError("this client is closed; make a new one and pass that")
    board = _boards.get(engine)
    if board is None:
        board = _boards[engine] = Board()
        engine.emitter.subscribe(board.see)
    return _Client(board, engine)
