"""When a run will end, from what is known of it: pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["seconds_left"]


def seconds_left(queued: int, ages: Sequence[float], typical: float, *, free: int = 0) -> float:
    """
    Say in how many seconds the last job ends, if each takes *typical* seconds.

    *ages* are the seconds for which the jobs in flight have run, *queued* how many more are to come, *free* how many of
    them could begin now. Jobs that end make room for those queued, one for one, so the last one begins where that many
    ends from now there is an end. Work divided by rate would forget that the last wave of jobs takes its whole time,
    however few they are.
    """
    left = sorted([max(0.0, typical - age) for age in ages] + [0.0] * min(free, queued))
    if not queued:
        return left[-1] if left else 0.0
    if not left:
        return typical
    rounds, place = divmod(queued - 1, len(left))
    return left[place] + (rounds + 1) * typical
