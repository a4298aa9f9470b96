"""
The account's tasks: how they live, what they show when looked at, and how much weight they hold.

A life runs by time (*seconds*), by the number of looks (*polls*; a list page is a look, too) or by a *script* of
statuses, one a look, of which the last one stays; `vanish` in a script means not found.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from typing import Any, Literal

from attrs import define, field, frozen

__all__ = ["Life", "Listing", "Task", "Tasks"]

UNITS = 16
ENDS = frozenset({"succeed", "succeeded", "failed"})


def _statuses(value: Any) -> tuple[str, ...]:
    return tuple(value)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value)


@frozen(kw_only=True)
class Life:
    """How a task goes; *images* is how many are shown (None: n), *indexes* their numbers where they are odd."""

    seconds: float | None = None
    polls: int = 1
    script: tuple[str, ...] = field(default=(), converter=_statuses)
    end: str = "succeed"
    reason: str = ""
    images: int | None = None
    indexes: tuple[int, ...] = field(default=(), converter=_numbers)
    watermark: bool = True

    @classmethod
    def endless(cls) -> Life:
        """Make a life that never ends."""
        return cls(seconds=math.inf)


@frozen(kw_only=True)
class Listing:
    """The oddities of list pages: *miss* and *repeat* are probabilities a task, *shift* moves later pages by as many."""

    order: Literal["newest", "oldest", "shuffled"] = "newest"
    miss: float = 0.0
    repeat: float = 0.0
    shift: int = 0


@define(eq=False)
class Task:
    """One accepted create. *live* until its end by time has come or a terminal status was shown."""

    task_id: str
    external_id: str
    n: int
    watermark: bool
    life: Life
    born: float
    created: int
    live: bool = True
    looks: int = 0
    misses: int = 0
    label: str = ""
    _shown: tuple[str, str, bytes] | None = None

    def due(self) -> float:
        """Return when it ends by the clock; infinity where looks decide."""
        return math.inf if self.life.seconds is None or self.life.script else self.born + self.life.seconds

    def look(self, now: float) -> str:
        """Count a look and return the status it shows."""
        looks, self.looks = self.looks, self.looks + 1
        life = self.life
        if life.script:
            return life.script[min(looks, len(life.script) - 1)]
        if life.seconds is None:
            early = looks < life.polls
            return life.end if not early else "submitted" if looks == 0 else "processing"
        age = now - self.born
        return life.end if age >= life.seconds else "submitted" if age < life.seconds / 5 else "processing"

    def created_view(self) -> dict[str, Any]:
        """Return `data` as the create answers it."""
        return {
            "task_id": self.task_id,
            "task_info": {"external_task_id": self.external_id} if self.external_id else {},
            "task_status": "submitted",
            "created_at": self.created,
            "updated_at": self.created,
        }

    def text(self, status: str, host: str, wall: float, signature: str) -> bytes:
        """Return the JSON that shows *status* with links of this *signature*, built anew only when one has changed."""
        if self._shown is None or self._shown[:2] != (status, signature):
            view = json.dumps(self._view(status, host, wall, signature)).encode()
            self._shown = status, signature, view
        return self._shown[2]

    def _view(self, status: str, host: str, wall: float, signature: str) -> dict[str, Any]:
        view = self.created_view() | {
            "task_status": status,
            "task_status_msg": "",
            "updated_at": int(wall * 1000),
        }
        view["watermark_info"] = {"enabled": self.watermark}
        view["task_result"] = {}
        if status in {"succeed", "succeeded"}:
            view["task_result"] = {"images": self._images(host, signature)}
            view["final_unit_deduction"] = str(UNITS * self.n)
        elif status == "failed":
            view["task_status_msg"] = self.life.reason or "Failure to pass the risk control system"
            view["final_unit_deduction"] = "0"
        return view

    def _images(self, host: str, signature: str) -> list[dict[str, Any]]:
        count = self.n if self.life.images is None else self.life.images
        indexes = self.life.indexes or range(count)
        address = f"{host}/results/{self.task_id}"
        images: list[dict[str, Any]] = []
        for index in indexes:
            image: dict[str, Any] = {"index": index, "url": f"{address}/{index}.png?ksSecret={signature}"}
            if self.watermark and self.life.watermark:
                image["watermark_url"] = f"{address}/{index}-watermark.png?ksSecret={signature}"
            images.append(image)
        return images


@define(eq=False)
class Tasks:
    """All tasks of the account, by both ids, and the weight that is in flight."""

    seed: int = 0
    weight: int = 0
    by_id: dict[str, Task] = field(factory=dict)
    by_external: dict[str, Task] = field(factory=dict)
    _ends: list[tuple[float, int, Task]] = field(factory=list)
    _numbers: itertools.count[int] = field(factory=lambda: itertools.count(866_361_099_762_000_001))
    _dice: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def add(self, external_id: str, n: int, life: Life, now: float, wall: float, *, watermark: bool) -> Task:
        """Accept a task; it holds *n* slots from now."""
        number = next(self._numbers)
        task = Task(str(number), external_id, n, watermark, life, now, int(wall * 1000))
        self.by_id[task.task_id] = task
        if external_id:
            self.by_external[external_id] = task
        self.weight += n
        if task.due() < math.inf:
            heapq.heappush(self._ends, (task.due(), number, task))
        return task

    def settle(self, now: float) -> int:
        """Free the slots of tasks whose time is over; return the weight still held."""
        while self._ends and self._ends[0][0] <= now:
            self.release(heapq.heappop(self._ends)[2])
        return self.weight

    def release(self, task: Task) -> None:
        """Free the slots of *task*, once."""
        if task.live:
            task.live = False
            self.weight -= task.n

    def find(self, name: str) -> Task | None:
        """Return the task with this task id or (the newest with this) external id."""
        return self.by_id.get(name) or self.by_external.get(name)

    def show(self, task: Task, host: str, now: float, wall: float, signature: str = "signed") -> bytes | None:
        """Look at *task* and return its JSON, links signed with *signature*; None where it has vanished."""
        status = task.look(now)
        if status in ENDS:
            self.release(task)
        return None if status == "vanish" else task.text(status, host, wall, signature)

    def page(self, number: int, size: int, oddities: Listing) -> list[Task]:
        """Return one list page with its *oddities*."""
        start = max(0, (number - 1) * size + (oddities.shift if number > 1 else 0))
        everything = list(self.by_id.values())
        if oddities.order == "newest":
            everything.reverse()
        elif oddities.order == "shuffled":
            self._dice.shuffle(everything)
        page = everything[start : start + size]
        if not oddities.miss and not oddities.repeat:
            return page
        seen = [task for task in page if self._dice.random() >= oddities.miss]
        return [task for task in seen for _ in range(1 + (self._dice.random() < oddities.repeat))]

    def end_all(self) -> None:
        """End every live task now, as succeeded."""
        for task in self.by_id.values():
            if task.live:
                task.life = Life(polls=0)
                self.release(task)
