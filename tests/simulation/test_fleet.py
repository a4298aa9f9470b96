"""Many accounts at once: one queue for all of them keeps them full, and they all end together."""

from __future__ import annotations

from .fleet import Fleet
from .world import lognormal, mixed


def test_one_queue_keeps_many_accounts_full() -> None:
    """Ten accounts of fifty slots behind one queue use 0.95 of them, each as much as the others, and end together."""
    jobs = mixed(4000)

    found = Fleet(10, 50, jobs, common=True, seconds=lognormal).run()

    assert found.used >= 0.95
    assert found.lowest >= 0.93
    assert found.stretch <= 1.25


def test_a_queue_for_each_account_ends_with_the_slowest() -> None:
    """When keys say who does what, accounts run dry one by one; with many jobs each that costs little."""
    jobs = mixed(4000)

    common, split = (Fleet(10, 50, jobs, common=way, seconds=lognormal).run() for way in (True, False))

    assert split.used >= 0.95
    assert common.stretch < split.stretch <= 1.5
