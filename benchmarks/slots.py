"""
How full the account's slots are kept (S4): in the simulator, and on sockets beside a script with a plain semaphore.

The simulator counts from the first job until the queue ran dry, the server until the longest task time before the end. With jobs
of one to nine pictures no order fills every slot, so what is reached is compared with the best order that is known: heaviest
first, all of them known beforehand.
"""

from __future__ import annotations

from random import Random
from typing import Any

from benchmarks import jobs
from benchmarks.harness import Figure, Variants, compare, main

_NAME = "benchmarks.slots"


def simulated(options: dict[str, Any]) -> dict[str, float]:
    """Run a lane in virtual time against a service with so many slots, and the best order beside it."""
    from attrs import evolve
    from simulation.world import Scenario, constant, mixed, simulate

    from kling_async.protocol.limits import Limit

    slots, most = options["slots"], options["most"]
    weights = mixed(max(2_000, 40 * slots // (1 + most)), most=most)
    ours = Scenario(
        limit=Limit.known(slots) if options["known"] else Limit.learned(),
        true=slots,
        weights=weights,
        seconds=constant,
        ahead=128,
    )
    best = evolve(ours, limit=Limit.known(slots), weights=sorted(weights, reverse=True), ahead=len(weights))
    found = simulate(ours)
    return {
        "utilisation": found.utilisation,
        "best": simulate(best).utilisation,
        "refusals": found.refusals,
        "creates": len(found.posts),
    }


def foretold(options: dict[str, Any]) -> dict[str, float]:
    """Simulate what is run on sockets: the same slots, jobs, times and polls."""
    from simulation.world import Scenario, simulate

    from kling_async.protocol.limits import Limit

    def seconds(dice: Random) -> float:
        return dice.uniform(options["shortest"], options["longest"])

    scenario = Scenario(
        limit=Limit.known(options["in_flight"]),
        true=options["in_flight"],
        weights=[1] * options["jobs"],
        seconds=seconds,
        latency=0.004,
        look_every=options["poll"],
    )
    return {"utilisation": simulate(scenario).utilisation}


VARIANTS: Variants = {"simulated": simulated, "foretold": foretold, "ours": jobs.ours, "script": jobs.script}


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
    if most == 1:
        found, what, wanted = run["utilisation"], "slots used, n = 1", 0.98
    else:
        share = run["utilisation"]
        what = f"slots used, n = 1 to 9 ({share:.3f}), of the best order's {run['best']:.3f}"
        found, wanted = share / run["best"], 0.95
    return Figure("S4", f"{what}, simulated, {slots:,} slots", f"≥ {wanted}", f"{found:.3f}", found >= wanted)


def _on_sockets(repeat: int) -> list[Figure]:
    options: dict[str, Any] = {"jobs": 200, "in_flight": 50, "poll": 0.06}
    times = {"shortest": 2.6, "longest": 3.4}
    server = {"slots": 50, **times}
    runs = compare(_NAME, ("ours", "script"), options, repeat=repeat, server=server)
    mine, hand = runs["ours"]["utilisation"], runs["script"]["utilisation"]
    model = compare(_NAME, ["foretold"], options | times, repeat=1)["foretold"]["utilisation"]
    off = abs(mine - model) / model
    return [
        Figure(
            "S4",
            f"slots used, sockets, 50 slots, n = 1 (script {hand:.3f})",
            "≥ 0.98",
            f"{mine:.3f}",
            mine >= 0.98,
        ),
        Figure(
            "S4",
            f"how far the simulator is from that ({model:.3f})",
            "≤ 3 %",
            f"{100 * off:.1f} %",
            off <= 0.03,
        ),
    ]


if __name__ == "__main__":
    main(VARIANTS, measure, repeat=2)
