"""Runs killed at random moments, up to five times in a row, under random trouble at the service."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import pytest
from attrs import evolve
from crash_kit import Work, Zygote, assert_kept
from fault_server import Fault, Remote
from fault_server import catalogue as go

# A nox session asks for more.
RUNS = int(os.environ.get("KLING_TEST_KILLS", "20"))

# Seconds that six jobs take when nothing disturbs them, and a little more, so that some kills come too late.
_SPAN = 0.25


def _troubles() -> list[Fault]:
    kinds = [
        go.cut("rst", "accepted"),
        go.cut("rst", "read"),
        go.html(502),
        go.html(504, accepted=True),
        go.refuse(1303),
        go.html(502, "get"),
        go.html(502, "list"),
        go.truncate("length", "result"),
    ]
    return [evolve(kind, probability=1 / 25, times=None) for kind in kinds]


@pytest.mark.parametrize("seed", range(RUNS))
def test_killed_at_random_moments(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], seed: int
) -> None:
    """Whenever and however often a run is killed, each job is paid once, ends, and has its files (seed in the name)."""
    dice = random.Random(seed)
    service.change(unique=dice.random() < 0.5)
    if dice.random() < 0.5:
        service.break_with(*_troubles())

    for _ in range(dice.randint(1, 5)):
        zygote.live(work.order(service), kill_after=dice.uniform(0, _SPAN))
    service.order("/clear", {})
    last = zygote.live(work.order(service))

    assert last.code == 0, last.report
    assert_kept(service, work, undisturbed, posts=12)
