"""
How full the account's slots are kept (S4): in the simulator, and once on sockets beside a script with a plain semaphore.

The simulator counts from the first job until the queue ran dry, the server until the longest task time before the end.
"""

from __future__ import annotations

from typing import Any

from benchmarks import jobs
from benchmarks.harness import Figure, Variants, compare, main

_NAME = "benchmarks.slots"


def simulated(options: dict[str, Any]) -> dict[str, float]:
    """Run a lane in virtual time against a service with so many slots."""
    from simulation.world import Scenario, constant, mixed, simulate

    from kling_async.protocol.limits import Limit

    slots, most = options["slots"], options["most"]
    known = Limit.known(slots) if options["known"] else Limit.learned()
    found = simulate(
        Scenario(
            limit=known,
            true=slots,
            weights=mixed(max(400, 40 * slots // (1 + most)), most=most),
            seconds=constant,
            ahead=128,
        )
    )
    return {"utilisation": found.utilisation, "refusals": found.refusals, "creates": len(found.posts)}


VARIANTS: Variants = {"simulated": simulated, "ours": jobs.ours, "script": jobs.script}


def measure(repeat: int) -> list[Figure]:
    """Try lanes of 9, 50 and 1,000 slots with one picture a job and with one to nine."""
    figures = [_lane(slots, most) for slots in (9, 50, 1_000) for most in (1, 9)]
    learned = compare(_NAME, ["simulated"], {"slots": 50, "most": 1, "known": False}, repeat=1)["simulated"]
    refusals = learned["refusals"]
    figures.append(
        Figure("S4", "refusals while a limit of 50 is learned", "≤ 20", f"{refusals:.0f}", refusals <= 20)
    )
    return figures + _on_sockets(repeat)


def _lane(slots: int, most: int) -> Figure:
    run = compare(_NAME, ["simulated"], {"slots": slots, "most": most, "known": True}, repeat=1)["simulated"]
    wanted = 0.98 if most == 1 else 0.95
    what = f"slots used, simulated, {slots:,} slots, n = {'1' if most == 1 else '1 to 9'}"
    return Figure("S4", what, f"≥ {wanted}", f"{run['utilisation']:.3f}", run["utilisation"] >= wanted)


def _on_sockets(repeat: int) -> list[Figure]:
    options = {"jobs": 200, "in_flight": 50, "poll": 0.06}
    server = {"slots": 50, "shortest": 2.6, "longest": 3.4}
    runs = compare(_NAME, ("ours", "script"), options, repeat=repeat, server=server)
    mine, hand = runs["ours"]["utilisation"], runs["script"]["utilisation"]
    what = f"slots used, sockets, 50 slots, n = 1 (script {hand:.3f})"
    return [Figure("S4", what, "≥ 0.98", f"{mine:.3f}", mine >= 0.98)]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=2)
