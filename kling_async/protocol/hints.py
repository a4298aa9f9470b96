"""
What is made of hints that a task may have ended: when to look because of one, and how seldom to look without any.

A hint comes from whoever knows an address, so it decides nothing: the task is asked. What hints prove true, by
answers, is counted: after thirty ends in succession that were told of, turns come up to four times as far apart as
without, and the first end that nobody told of within five seconds brings them back. After each such disappointment
four times as many are wanted. A task about which hints prove false is asked because of them less and less often, down to
once an interval.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from kling_async.protocol.pace import Bucket
from kling_async.protocol.watched import Row

__all__ = ["Hints"]

# Ends told of in succession before the turns are stretched most: at first, and after many disappointments; and that most.
_PROOF, _MOST_PROOF = 30, 2000
_MOST_STRETCH = 4.0
# Seconds in which the hint of an end may still come that an answer showed first.
_LATE = 5.0
# Looks on its own at a task that is said to have ended and is not shown so: an answer may lag behind a callback.
_LOOKS = 3


@define(eq=False, repr=False)
class Hints:
    """The hints of one poll book; *spacing* is the least time between two looks at a task that hints cause."""

    spacing: float
    budget: Bucket
    # Watched tasks that a hint speaks of, and the answers since then that showed them running.
    _denied: dict[str, int] = field(factory=dict, init=False)
    # Tasks to ask again because of a hint, once what is known of them now has been heard.
    _again: set[str] = field(factory=set, init=False)
    # Ends that no hint has spoken of yet, with the time they were seen.
    _untold: dict[str, float] = field(factory=dict, init=False)
    _streak: int = field(default=0, init=False)
    _wanted: int = field(default=_PROOF, init=False)

    def hear(self, task_id: str, *, out: bool) -> None:
        """Take a hint about a watched task; while a GET of it is *out*, its answer may be older than the hint."""
        self._denied.setdefault(task_id, 0)
        if out:
            self._again.add(task_id)

    def hear_late(self, task_id: str) -> None:
        """Take a hint about a task that is not watched: it may have ended just before."""
        if self._untold.pop(task_id, None) is not None:
            self._streak += 1

    def ripe(self, task_id: str, asked: float, interval: float) -> float:
        """Say when a task that was last *asked* about then may be asked because of a hint."""
        doubt: float = 2.0 ** min(self._denied.get(task_id, 0), 30)
        return asked + min(self.spacing * doubt, max(self.spacing, interval))

    def choose(self, hinted: Iterable[Row], now: float, interval: float) -> tuple[list[Row], list[Row]]:
        """Choose of the *hinted* rows those to ask now, and those that would be too many."""
        free = self.budget.refill(now)
        ripe = [row for row in hinted if now >= self.ripe(row.task_id, row.asked, interval)]
        self.budget.take(len(ripe[:free]))
        return ripe[:free], ripe[free:]

    def deny(self, task_id: str) -> None:
        """Learn from the answer to its GET that a task still runs."""
        # One that was asked before the hint came says nothing about it.
        if task_id in self._denied and task_id not in self._again:
            self._denied[task_id] += 1
            if self._denied[task_id] <= _LOOKS:
                self._again.add(task_id)

    def again(self, task_id: str) -> bool:
        """Tell whether a task that was not seen to have ended is to be asked again because of a hint."""
        wanted = task_id in self._again
        self._again.discard(task_id)
        return wanted

    def end(self, task_id: str, now: float) -> None:
        """Learn that a watched task has ended."""
        if self._denied.get(task_id, _LOOKS + 1) <= _LOOKS:
            self._streak += 1
        elif self._streak:
            self._untold[task_id] = now

    def forget(self, task_id: str) -> None:
        """Forget a task that is watched no more."""
        self._denied.pop(task_id, None)
        self._again.discard(task_id)

    def stretch(self, now: float) -> float:
        """Say how many times as far apart as without hints the turns may be: 1 to 4."""
        if self._untold and now - next(iter(self._untold.values())) > _LATE:
            self._untold.clear()
            self._streak = 0
            self._wanted = min(4 * self._wanted, _MOST_PROOF)
        beyond = max(0, self._streak - self._wanted + _PROOF)
        return 1.0 + (_MOST_STRETCH - 1.0) * min(beyond, _PROOF) / _PROOF
