"""Jobs in parts, killed at each step between and in their parts, and the same command again."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from crash_kit import Order, Work, Zygote, states
from crash_kit.proof import lines, pictures
from fault_server import Remote

POINTS = {
    "before the first part": ("after-slots", 1),
    "first intent": ("after-intent", 1),
    "between two parts, in the writer": ("submitted", 2),
    "second part sent": ("after-post", 2),
    "second part answered": ("before-submitted", 2),
    "third intent": ("after-intent", 3),
    "a part has succeeded": ("succeeded", 1),
    "the whole has succeeded": ("succeeded", 4),
    "in the middle of its pictures": ("after-fsync", 4),
    "its parts are done": ("done", 2),
    "before its line": ("after-done", 1),
}


def of_weights(work: Work, *weights: Any) -> Work:
    return Work(out=work.out, weights=weights)


def order(work: Work, server: Remote, **changes: Any) -> Order:
    options: dict[str, Any] = {"options": {"split": True}}
    return work.order(server, **(options | changes))


def assert_whole(server: Remote, work: Work, parts: int) -> None:
    """Hold the books: nothing is paid twice, every picture is there, and each job has one line and one page that counts."""
    books = server.books()
    paid = Counter(charge["label"] for charge in books["charges"])
    sums = {prompt: sum(c["n"] for c in books["charges"] if c["label"] == prompt) for prompt in paid}
    assert books["paid_twice"] == {}
    assert sums == {prompt: n for _, prompt, n in work.rows}, "no picture is paid twice, and none is missing"
    assert max(paid.values()) == parts
    assert books["overruns"] == 0
    assert {key: state for key, state in states(work.out).items() if "\x1f" not in key} == dict.fromkeys(
        work.keys, "done"
    )
    assert set(states(work.out).values()) == {"done"}
    assert sorted(line["key"] for line in lines(work.out)) == sorted(work.keys)
    expected = [f"{key}_{index}.png" for key, _, n in work.rows for index in range(n)]
    assert sorted(pictures(work.out)) == sorted(expected)


@pytest.mark.parametrize("unique", [True, False], ids=["unique", "not unique"])
@pytest.mark.parametrize(("point", "nth"), POINTS.values(), ids=POINTS)
def test_a_job_in_parts_survives_a_kill(
    zygote: Zygote, service: Remote, work: Work, point: str, nth: int, *, unique: bool
) -> None:
    """Killed anywhere in or between its parts, the same command ends the job with each part paid once."""
    service.change(unique=unique)
    work = of_weights(work, 9)

    first = zygote.live(order(work, service, crash=point, nth=nth))
    second = zygote.live(order(work, service))

    assert first.killed
    assert second.code == 0, second.report
    assert_whole(service, work, parts=3)


def test_jobs_in_parts_survive_kill_after_kill(zygote: Zygote, service: Remote, work: Work) -> None:
    """Killed over and over at ever later moments, with slots that change in between, no part is made anew."""
    service.change(life={"seconds": 0.1}, unique=False)
    work = of_weights(work, 9, 1, 5, 6, 2)

    deaths = [
        zygote.live(order(work, service, slots=slots), kill_after=0.05 + 0.03 * number)
        for number, slots in zip(range(12), itertools.cycle((4, 6, 5)), strict=False)
    ]
    last = zygote.live(order(work, service, options={}))

    assert any(death.killed for death in deaths)
    assert last.code == 0, last.report
    assert service.books()["paid_twice"] == {}
    sums = Counter[str]()
    for charge in service.books()["charges"]:
        sums[charge["label"]] += charge["n"]
    assert dict(sums) == {prompt: n for _, prompt, n in work.rows}
    assert sorted(line["key"] for line in lines(work.out)) == sorted(work.keys)
