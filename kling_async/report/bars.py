"""
What ran when, in which slot: the numbers behind a timeline.

Pure, but for `read_bars()`, which looks into a journal.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from attrs import evolve, frozen

from kling_async.journal.storage import Storage
from kling_async.protocol.lifecycle import JobRecord, JobState
from kling_async.protocol.parts import shown_key

__all__ = ["Bar", "Figures", "Placed", "bars_of", "figures", "place", "read_bars"]

# Where no slot is free one may be taken so many seconds before the books say that it is free: an end is written down a
# little after it was seen.
_SLACK = 0.25
_STATES: Mapping[JobState, str] = {
    JobState.SUCCEEDED: "succeeded",
    JobState.DONE: "succeeded",
    JobState.FAILED: "failed",
    JobState.LOST: "failed",
    JobState.SUBMITTED: "running",
    JobState.SUBMITTING: "running",
    JobState.UNKNOWN: "running",
}


@frozen(kw_only=True)
class Bar:
    """One task: it held *slots* slots from *start* to *end*, in seconds; *state* is succeeded, failed or running."""

    start: float
    end: float
    slots: int = 1
    key: str = ""
    state: str = "succeeded"


@frozen
class Placed:
    """A bar in its slots: *rows* counts from 0, *turn* is how many bars its first slot had before."""

    bar: Bar
    rows: tuple[int, ...]
    turn: int


@frozen(kw_only=True)
class Figures:
    """
    A run in numbers.

    *slots* is the limit that was given, else the most that were held at once. *utilisation* is the slot-seconds used ÷
    those there were, from the first start to the last end; *utilisation_filled* ends where the last task began, since
    from there on nothing is left to fill slots with. *held* is the mean of slots held in each of so many equal parts
    of the *seconds*.
    """

    tasks: int
    slots: int
    seconds: float
    utilisation: float
    utilisation_filled: float
    typical_seconds: float
    states: Mapping[str, int]
    held: tuple[float, ...]


def read_bars(journal: Path) -> tuple[Bar, ...]:
    """
    Read the tasks in *journal*, in the order in which they began, with times from 0.

    Of a job that was tried several times only the last task is known. Raises `JournalError` for a damaged journal.
    """
    storage = Storage.read_only(journal)
    try:
        return bars_of(storage.all())
    finally:
        storage.close()


def bars_of(pages: Iterable[JobRecord]) -> tuple[Bar, ...]:
    """Return the tasks that the journal's *pages* tell of, in the order in which they began, with times from 0."""
    records = [record for record in pages if record.submitted_at is not None and record.task_id]
    if not records:
        return ()
    last = max(max(record.submitted_at or 0.0, record.ended_at or 0.0) for record in records)
    bars = sorted((_bar(record, last) for record in records), key=lambda bar: (bar.start, bar.end))
    first = bars[0].start
    return tuple(evolve(bar, start=bar.start - first, end=bar.end - first) for bar in bars)


def _bar(record: JobRecord, last: float) -> Bar:
    start = record.submitted_at or 0.0
    return Bar(
        start=start,
        end=max(start, last if record.ended_at is None else record.ended_at),
        slots=record.slots,
        key=shown_key(record.key),
        state=_STATES.get(record.state, "running"),
    )


def place(bars: Sequence[Bar]) -> tuple[Placed, ...]:
    """Give each bar the lowest slots that are free at its start, side by side where there is room for that."""
    free: list[int] = []
    busy: list[tuple[float, tuple[int, ...]]] = []
    turns: list[int] = []
    placed = []
    slack = min(_SLACK, 0.05 * _median([bar.end - bar.start for bar in bars]))
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        while busy and (
            busy[0][0] <= bar.start or (len(free) < bar.slots and busy[0][0] <= bar.start + slack)
        ):
            for row in heapq.heappop(busy)[1]:
                heapq.heappush(free, row)
        while len(free) < bar.slots:
            heapq.heappush(free, len(turns))
            turns.append(0)
        rows = _choose(free, bar.slots)
        placed.append(Placed(bar, rows, turns[rows[0]]))
        for row in rows:
            turns[row] += 1
        heapq.heappush(busy, (bar.end, rows))
    return tuple(placed)


def _choose(free: list[int], count: int) -> tuple[int, ...]:
    """Take *count* rows out of the heap *free*: the lowest block there is, else the lowest rows."""
    if count == 1:
        return (heapq.heappop(free),)
    rows = sorted(free)
    blocks = (rows[at : at + count] for at in range(len(rows) - count + 1))
    chosen = next((block for block in blocks if block[-1] - block[0] == count - 1), rows[:count])
    left = set(rows) - set(chosen)
    free[:] = sorted(left)
    return tuple(chosen)


def figures(bars: Sequence[Bar], *, slots: int | None = None, steps: int = 200) -> Figures:
    """Add up *bars* on *slots* slots, by default as many as were held at once."""
    end = max((bar.end for bar in bars), default=0.0)
    last_start = max((bar.start for bar in bars), default=0.0)
    limit = slots or _peak(bars) or 1
    used = sum((bar.end - bar.start) * bar.slots for bar in bars)
    filled = sum(max(0.0, min(bar.end, last_start) - bar.start) * bar.slots for bar in bars)
    return Figures(
        tasks=len(bars),
        slots=limit,
        seconds=end,
        utilisation=used / (limit * end) if end else 0.0,
        utilisation_filled=filled / (limit * last_start) if last_start else 0.0,
        typical_seconds=_median([bar.end - bar.start for bar in bars]),
        states=dict(Counter(bar.state for bar in bars)),
        held=_held(bars, end, steps),
    )


def _changes(bars: Sequence[Bar]) -> list[tuple[float, int]]:
    """Return when how many slots were taken (above 0) and given back; at one moment the latter first."""
    return sorted(change for bar in bars for change in ((bar.start, bar.slots), (bar.end, -bar.slots)))


def _peak(bars: Sequence[Bar]) -> int:
    held = peak = 0
    for _, change in sorted(_changes(bars), key=lambda item: (round(item[0], 2), item[1])):
        held += change
        peak = max(peak, held)
    return peak


def _held(bars: Sequence[Bar], end: float, steps: int) -> tuple[float, ...]:
    """Return the mean of slots held in each of *steps* equal parts of the time."""
    if not end:
        return ()
    width, sums, held = end / steps, [0.0] * steps, 0
    for (at, change), (until, _) in pairwise([*_changes(bars), (end, 0)]):
        held += change
        for step in range(int(at / width), min(int(until / width), steps - 1) + 1):
            sums[step] += held * max(0.0, min(until, (step + 1) * width) - max(at, step * width))
    return tuple(value / width for value in sums)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
