"""Metrics in the real registry: what a scrape shows of a client's life."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from socket_kit import client, job

from kling_async.emulator import Emulator, Fault
from kling_async.errors import ConfigError, KlingError, MissingExtra, TaskFailed
from kling_async.integrations import prometheus
from kling_async.integrations.prometheus import Metrics
from kling_async.protocol.events import Missed, Waiting

pytestmark = pytest.mark.anyio

LANE = {"account": "default", "model": "kling-v2-1"}
ACCOUNT = {"account": "default"}


async def test_a_scrape_shows_slots_tasks_and_spend(tmp_path: Path) -> None:
    """After jobs: how many tasks were made and ended how, what they cost, how long all took, and slots held and free."""
    registry = CollectorRegistry()
    value = registry.get_sample_value
    faults = [Fault(action="fail-task", times=1)]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=Metrics(registry), slots=7) as kling,
    ):
        with pytest.raises(TaskFailed):
            await kling.images.multi_image.run(job())
        done = await kling.images.multi_image.run(job(n=3))
        path = await done.images[0].save(tmp_path)
        running = await kling.images.multi_image.create(job(n=2))
        held = value("kling_slots_held", LANE)
        await running

    assert (value("kling_slots_limit", LANE), held) == (7, 2)
    assert value("kling_tasks_submitted_total", ACCOUNT) == 3
    assert value("kling_tasks_finished_total", {**ACCOUNT, "status": "succeed"}) == 2
    assert value("kling_tasks_finished_total", {**ACCOUNT, "status": "failed"}) == 1
    assert value("kling_units_total", ACCOUNT) == 16 * 5
    assert value("kling_task_seconds_count", ACCOUNT) == value("kling_lag_seconds_count", ACCOUNT) == 3
    assert value("kling_queue_seconds_count", ACCOUNT) == 3
    assert value("kling_requests_total", {**ACCOUNT, "route": "create", "outcome": "ok"}) == 3
    assert (value("kling_request_seconds_count", {"route": "create"}) or 0) == 3
    assert value("kling_picture_bytes_total", ACCOUNT) == path.stat().st_size


async def test_trouble_is_counted_by_its_kind() -> None:
    """Refusals, retries, recoveries and drops are counted, each with its code or the kind of its error."""
    registry = CollectorRegistry()
    value = registry.get_sample_value
    faults = [
        Fault(action="refuse", code=1303, times=1, match_external_id="full"),
        Fault(action="reset-after-accept", match_external_id="lost"),
        Fault(action="refuse", code=1301, match_external_id="bad"),
    ]

    async with (
        Emulator(speed="instant", paint="stamp", faults=faults) as emulator,
        client(emulator, on_event=Metrics(registry)) as kling,
    ):
        for name in ("full", "lost"):
            await kling.images.multi_image.run(job(external_task_id=name))
        with pytest.raises(KlingError):
            await kling.images.multi_image.run(job(external_task_id="bad"))

    assert value("kling_creates_refused_total", {**ACCOUNT, "code": "1303"}) == 1
    assert value("kling_tasks_recovered_total", ACCOUNT) == 1
    assert value("kling_jobs_dropped_total", {**ACCOUNT, "reason": "1301"}) == 1
    outcomes = {
        sample.labels["outcome"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "kling_requests_total" and sample.labels["route"] == "create"
    }
    assert outcomes == {"ok": 1, "1303": 1, "TransportError": 1, "1301": 1}


async def test_one_object_serves_several_clients() -> None:
    """Two clients with one Metrics add up; a second Metrics in the same registry is refused, with what to do."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    async with Emulator(speed="instant", paint="stamp") as emulator:
        for _ in range(2):
            async with client(emulator, on_event=metrics) as kling:
                await kling.images.multi_image.run(job())

    assert registry.get_sample_value("kling_tasks_submitted_total", ACCOUNT) == 2
    with pytest.raises(ConfigError, match="one Metrics to all clients"):
        Metrics(registry)
    Metrics(registry, namespace="other")
    assert registry.get_sample_value("other_events_missed_total") == 0


async def test_no_id_is_a_label() -> None:
    """However many jobs there were, ids and keys are in no label, so that the number of series stays small."""
    registry = CollectorRegistry()

    async with (
        Emulator(speed="instant", paint="stamp") as emulator,
        client(emulator, on_event=Metrics(registry)) as kling,
    ):
        one = await kling.images.multi_image.run(job(key="row-1"))
        before = len(generate_latest(registry).splitlines())
        for number in range(5):
            await kling.images.multi_image.run(job(key=f"row-{number}"))
        after = generate_latest(registry).decode()

    assert len(after.splitlines()) == before
    assert not [name for name in (one.task_id, one.external_task_id, "row-1") if name in after]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that wait for ever are forgotten, oldest first; events that were lost are counted."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    monkeypatch.setattr(prometheus, "_MOST", 2)

    for number in range(5):
        metrics(Waiting(account="default", key="", external_task_id=f"ka-{number}", slots=1))
    metrics(Missed(count=3))

    assert list(metrics._since) == ["ka-3", "ka-4"]
    assert registry.get_sample_value("kling_events_missed_total") == 3


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prometheus-client the construction fails and names the command."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(MissingExtra, match=r"pip install 'kling-async\[prometheus\]'") as caught:
        Metrics()
    assert caught.value.extra == "prometheus"
