"""J11: a batch in an application that is interrupted or terminated, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from crash_kit import Order, Work, Zygote, assert_kept, states
from fault_server import Remote
from fault_server import catalogue as go

_TESTS = Path(__file__).resolve().parents[1]


@define
class Ending:
    """How a client ended: its exit *code*, the *report* it still wrote, the *seconds* since the last signal."""

    code: int
    report: dict[str, Any]
    seconds: float


def signalled(
    order: Order, server: Remote, signals: list[signal.Signals], *, when: Callable[[dict[str, Any]], bool]
) -> Ending:
    """Start a client as users do, send it *signals* one after the other once *when* holds for the books, await its end."""
    path = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    report = Path(f"{order.out}.report")
    report.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "crash_kit", order.text()],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 30
        while not when(server.books()):
            assert process.poll() is None, "the client ended too early"
            assert time.monotonic() < deadline, "what was awaited did not come"
            time.sleep(0.01)  # another process's doing, which nothing announces
        for each in signals:
            process.send_signal(each)
            # Two signals at once are one.
            time.sleep(0.1)
        begun = time.monotonic()
        code = process.wait(timeout=30)
        seconds = time.monotonic() - begun
    return Ending(code, json.loads(report.read_bytes()) if report.exists() else {}, seconds)


def creating(count: int) -> Callable[[dict[str, Any]], bool]:
    """Wait for *count* creates that are under way."""
    return lambda books: len(books["charges"]) >= count


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_creates_under_way_are_awaited_and_written_down(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str], stop: signal.Signals
) -> None:
    """
    Interrupted once, nothing more is sent, answers under way are awaited, and their tasks are on the disk.

    SIGTERM does so where the application stops the batch; SIGINT by what asyncio makes of it.
    """
    # Accepted at once, answered late: three creates fill the four slots.
    service.break_with(go.delay(0.6, times=None))
    order = work.order(service, drain=stop is signal.SIGTERM)

    ending = signalled(order, service, [stop], when=creating(3))
    sent = service.books()["requests"]["create"]
    after = states(work.out)
    service.order("/clear", {})
    again = zygote.live(work.order(service))

    assert ending.code == (3 if stop is signal.SIGINT else 0)
    assert ending.report["error"] == ("KeyboardInterrupt" if stop is signal.SIGINT else "")
    assert sent == 3
    assert "submitting" not in after.values()
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_stopping_collects_what_runs(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """A batch that is stopped at SIGTERM brings in the tasks that run, leaves the rest undone, and ends well."""
    service.change(life={"seconds": 0.8})

    ending = signalled(work.order(service, drain=True), service, [signal.SIGTERM], when=creating(3))
    done = [key for key, state in states(work.out).items() if state == "done"]
    service.change(life={"seconds": 0.02})
    again = zygote.live(work.order(service))

    assert ending.code == 0, ending.report
    assert len(ending.report["outcomes"]) == len(done) == 3
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_without_a_word_from_the_application_sigterm_kills(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """SIGTERM that nobody handles ends the process there and then, as a crash does, and costs as little."""
    service.break_with(go.delay(0.6, times=None))

    ending = signalled(work.order(service), service, [signal.SIGTERM], when=creating(3))
    service.order("/clear", {})
    again = zygote.live(work.order(service))

    assert ending.code == -signal.SIGTERM
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)


def test_a_second_interrupt_leaves_at_once(
    zygote: Zygote, service: Remote, work: Work, undisturbed: Mapping[str, str]
) -> None:
    """Interrupted twice, the process does not wait for a service that says nothing; nothing is lost by it either."""
    service.break_with(go.cut("hang", "accepted", times=None))
    order = work.order(service, client={"timeout": 60})

    ending = signalled(order, service, [signal.SIGINT] * 2, when=creating(3))
    service.order("/clear", {})
    again = zygote.live(work.order(service))

    # Neither the answers nor the grace for creates under way were waited for.
    assert ending.seconds < 5
    assert ending.code != 0
    assert again.code == 0, again.report
    assert_kept(service, work, undisturbed)
