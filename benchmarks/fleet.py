"""
A hundred accounts of five hundred slots, and one of them shared by several processes, in virtual time; about a minute.

`python -m benchmarks.fleet` with `tests` on PYTHONPATH prints what stands in docs/scale.md.
"""

from __future__ import annotations

ACCOUNTS, SLOTS = 100, 500


def main() -> None:
    """Print a line for each case."""
    from simulation.fleet import Fleet
    from simulation.shared import Shared
    from simulation.world import lognormal, mixed

    for most, each in ((1, 10_000), (9, 2_000)):
        for common in (True, False):
            jobs = mixed(ACCOUNTS * each, most=most)
            found = Fleet(ACCOUNTS, SLOTS, jobs, common=common, seconds=lognormal).run()
            print(
                f"n = 1 to {most}, {'one queue' if common else 'a queue each'}: {found.used:.1%} held, the least busy "
                f"account {found.lowest:.1%}; {found.creates:,.0f} creates/s, {found.tasks:,} tasks at once; "
                f"ends {found.stretch - 1:.0%} after the shortest time"
            )
    for processes in (1, 4, 16):
        world = Shared(SLOTS, processes, mixed(2_000), typical=24.0)
        used = world.run()
        rate = world.exchanges / (world.now - 110.0)
        print(f"{processes} processes share {SLOTS} slots: {used:.1%} leased, {rate:.0f} exchanges/s")


if __name__ == "__main__":
    main()
