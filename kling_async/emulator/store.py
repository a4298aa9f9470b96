"""
The books: accounts, their slots and units, and every task from its creation to its end.

Pure: time comes in as *now* (emulated seconds), dice from a seed. A task is planned when it is accepted: it is
`submitted`, then `processing`, then `succeed` or `failed`, at moments kept in one heap. *settle()* lets everything
happen that is due. Slots are held from acceptance to the end, units are taken at a success and set aside before it.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from random import Random
from typing import Literal, TypeAlias
from zlib import crc32

from attrs import Factory, define, field, frozen

from kling_async.emulator.endpoints import Endpoint
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.rules import MultiImageOrder
from kling_async.emulator.settings import EmulatedAccount, EmulatorSettings

__all__ = ["RISK", "Change", "Circumstances", "Lane", "Status", "Store", "Task"]

Status: TypeAlias = Literal["submitted", "processing", "succeed", "failed"]

# Observed reasons of failed tasks, free text of the vendor.
RISK = "Failure to pass the risk control system"

# Median and spread of a task's duration: one image of a sister endpoint was seen to take 24 s (2026-09).
_MEDIAN, _SPREAD = 24.0, 0.3
# A task with an unfit picture was seen to fail 1.65 s after its creation.
_QUICK_FAILURE = 1.65


@define(eq=False)
class Lane:
    """The slots of one account and model: what our tasks hold, and the most they ever held."""

    used: int = 0
    peak: int = 0


@define(eq=False)
class Ledger:
    """What one account has: units left and set aside, its lanes, and its tasks by either id."""

    account: EmulatedAccount
    units: float
    reserved: int = 0
    lanes: defaultdict[str, Lane] = Factory(lambda: defaultdict(Lane))
    by_id: dict[str, Task] = Factory(dict)
    by_external_id: dict[str, Task] = Factory(dict)
    listed: defaultdict[Endpoint, list[tuple[int, Task]]] = Factory(lambda: defaultdict(list))


@frozen(kw_only=True)
class Circumstances:
    """What is around a task from outside: its pictures as read, and a failure, no end, a longer time, a late appearance."""

    pictures: Sequence[object] = field(default=(), repr=False)
    fails: str = ""
    stuck: bool = False
    slower: float = 0.0
    hidden: float = 0.0


@define(eq=False, kw_only=True)
class Task:
    """One accepted task; times are emulated seconds, *stamps* the same in the milliseconds that replies show."""

    task_id: str
    endpoint: Endpoint
    ledger: Ledger
    order: MultiImageOrder
    pictures: Sequence[object] = field(default=(), repr=False)
    status: Status = "submitted"
    message: str = ""
    units: int | None = None
    empty: bool = False
    visible_at: float = 0.0
    created: float
    updated: float
    created_stamp: int
    updated_stamp: int

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in {"succeed", "failed"}

    @property
    def account(self) -> EmulatedAccount:
        """The account that the task belongs to."""
        return self.ledger.account


@frozen
class Change:
    """A task has just got a new *status*, at *stamp* (ms)."""

    task: Task
    status: Status
    at: float
    stamp: int


@frozen(order=True)
class _Due:
    at: float
    number: int
    task: Task = field(order=False)
    status: Status = field(order=False)
    message: str = field(order=False, default="")


class Store:
    """All state of an emulator; *stamp* turns an emulated moment into the milliseconds that replies show."""

    def __init__(self, settings: EmulatorSettings, *, instant: bool, stamp: Callable[[float], int]) -> None:
        self._settings = settings
        self._instant = instant
        self._stamp = stamp
        self._random = Random(settings.seed)
        self._numbers = count()
        self._last_id = 0
        self._due: list[_Due] = []
        self._measured = 0.0
        self.live_slots = 0
        self.slot_seconds = 0.0
        self.tasks: list[Task] = []
        self.ledgers = {each.name: Ledger(each, each.units) for each in settings.all_accounts()}

    def __repr__(self) -> str:
        return f"<Store with {len(self.tasks)} tasks, {self.live_slots} slots in use>"

    @property
    def peak_slots(self) -> int:
        """The most slots our tasks ever held at once in one account and model."""
        return max((lane.peak for each in self.ledgers.values() for lane in each.lanes.values()), default=0)

    def next_due(self) -> float | None:
        """Return the emulated moment of the next change, None if nothing is under way."""
        return self._due[0].at if self._due else None

    def check(self, account: EmulatedAccount, order: MultiImageOrder, now: float) -> None:
        """Refuse *order* (1100 to 1304 by the account's standing, 1201 duplicate, 1102, 1303) if it cannot be accepted."""
        ledger = self.ledgers[account.name]
        if account.standing:
            raise Refusal(account.standing)
        if self._settings.unique_external_ids and order.external_task_id in ledger.by_external_id:
            raise Refusal(1201, f"External_task_id {order.external_task_id} already exists")
        if ledger.units - ledger.reserved < order.units:
            raise Refusal(1102, "Account balance not enough")
        foreign = account.foreign_load
        held = ledger.lanes[order.model_name].used + (foreign(now) if callable(foreign) else foreign)
        if held + order.weight > account.slots:
            raise Refusal(1303, "parallel task over resource pack limit")

    def create(
        self,
        account: EmulatedAccount,
        endpoint: Endpoint,
        order: MultiImageOrder,
        now: float,
        *,
        around: Circumstances | None = None,
    ) -> Change:
        """Accept *order* or refuse it as *check()* does; returns the change into `submitted`."""
        self.check(account, order, now)
        ledger, around, stamp = self.ledgers[account.name], around or Circumstances(), self._stamp(now)
        task = Task(
            task_id=self._new_id(stamp),
            endpoint=endpoint,
            ledger=ledger,
            order=order,
            pictures=around.pictures,
            empty=order.marker[0] == "empty",
            visible_at=now + around.hidden,
            created=now,
            updated=now,
            created_stamp=stamp,
            updated_stamp=stamp,
        )
        self._enter(task)
        self._hold(task, order.weight, now)
        self._plan(task, around)
        return Change(task, "submitted", now, stamp)

    def find(self, account: EmulatedAccount, endpoint: Endpoint, either_id: str, now: float) -> Task:
        """Return the account's task with this task id or external id; Refusal as the dialect has it."""
        ledger = self.ledgers[account.name]
        task = ledger.by_id.get(either_id) or ledger.by_external_id.get(either_id)
        if task is None or task.endpoint is not endpoint or task.visible_at > now:
            code = 1203 if self._settings.dialect == "documented" else 1201
            raise Refusal(code, f"Task not found by id/external id: {either_id}")
        return task

    def page(
        self, account: EmulatedAccount, endpoint: Endpoint, start: int, size: int, now: float
    ) -> list[Task]:
        """Return *size* tasks from *start* on, in the order that the settings choose."""
        rows = self.ledgers[account.name].listed[endpoint]
        if self._settings.list_order == "newest":
            last = len(rows) - start
            chosen: Iterable[tuple[int, Task]] = reversed(rows[max(0, last - size) : max(0, last)])
        else:
            chosen = rows[start : start + size]
        return [task for _, task in chosen if task.visible_at <= now]

    def settle(self, now: float) -> list[Change]:
        """Let everything happen that is due at *now*, in order; returns the changes."""
        changes = []
        while self._due and self._due[0].at <= now:
            due = heapq.heappop(self._due)
            changes.append(self._change(due))
        return changes

    def _change(self, due: _Due) -> Change:
        task = due.task
        task.status, task.message, task.updated = due.status, due.message, due.at
        task.updated_stamp = self._stamp(due.at)
        if task.ended:
            task.units = task.order.units if task.status == "succeed" else 0
            task.ledger.units -= task.units
            task.ledger.reserved -= task.order.units
            self._hold(task, -task.order.weight, due.at)
        return Change(task, due.status, due.at, task.updated_stamp)

    def _enter(self, task: Task) -> None:
        ledger, order = task.ledger, task.order
        self.tasks.append(task)
        ledger.by_id[task.task_id] = task
        if order.external_task_id:
            ledger.by_external_id[order.external_task_id] = task
        shuffled = self._settings.list_order == "shuffled"
        place = (
            crc32(f"{self._settings.seed}{task.task_id}".encode())
            if shuffled
            else len(ledger.listed[task.endpoint])
        )
        insort(ledger.listed[task.endpoint], (place, task), key=lambda row: row[0])
        ledger.reserved += order.units

    def _hold(self, task: Task, slots: int, now: float) -> None:
        lane = task.ledger.lanes[task.order.model_name]
        self.slot_seconds += self.live_slots * (now - self._measured)
        self._measured = now
        self.live_slots += slots
        lane.used += slots
        lane.peak = max(lane.peak, lane.used)

    def _plan(self, task: Task, around: Circumstances) -> None:
        seconds = self._duration() + around.slower
        begins = task.created + min(0.1 * seconds, 1.0)
        self._push(begins, task, "processing")
        kind, text = task.order.marker
        if around.stuck or kind == "stuck":
            return
        fails = around.fails or {"risk": RISK, "fail": text or "failed as the prompt asked"}.get(kind, "")
        # A failure shows early: an unfit picture within two seconds, a refused one about half way.
        if around.fails:
            seconds = min(seconds, _QUICK_FAILURE)
        elif fails:
            seconds /= 2
        self._push(max(begins, task.created + seconds), task, "failed" if fails else "succeed", fails)

    def _push(self, at: float, task: Task, status: Status, message: str = "") -> None:
        heapq.heappush(self._due, _Due(at, next(self._numbers), task, status, message))

    def _duration(self) -> float:
        asked = self._settings.task_seconds
        if self._instant:
            return 0.0
        if callable(asked):
            return max(0.0, asked(self._random))
        return self._random.lognormvariate(math.log(_MEDIAN), _SPREAD) if asked is None else asked

    def _new_id(self, stamp: int) -> str:
        # Like the service's: eighteen digits that grow with time, so that no two emulators hand out the same.
        self._last_id = max(self._last_id + 1, stamp * 100_000)
        return str(self._last_id)
