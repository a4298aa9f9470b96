"""A client with a journal of its own: single creates of an application that is killed, or does the same twice at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crash_kit import Order, Zygote
from fault_kit import client_of, job
from fault_server import FaultServer, Remote
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once
from socket_kit import until

from kling_async import TaskHandle
from kling_async.errors import ContentRefusal, InvalidJob

ROWS = [("", "job 0.", 1), ("", "job 1.", 2)]


def order(server: Remote, folder: Path, **changes: object) -> Order:
    values = {
        "url": server.url,
        "api_key": server.api_key,
        "out": str(folder / "app"),
        "rows": ROWS,
        "action": "create",
        "client": {"journal": str(folder / "app.db")},
    }
    return Order(**(values | changes))  # type: ignore[arg-type]  # of many types


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("point", ["after-intent", "after-post", "before-submitted", "submitted", "mid-poll"])
def test_what_a_killed_application_left_is_pending(
    zygote: Zygote, service: Remote, tmp_path: Path, point: str, *, unique: bool
) -> None:
    """After a kill at any step `pending()` has the task that exists, and says of the other that there is none."""
    service.change(unique=unique)

    killed = zygote.live(order(service, tmp_path, crash=point))
    paid = {charge["task_id"] for charge in service.books()["charges"]}
    again = zygote.live(order(service, tmp_path, rows=[]))
    third = zygote.live(order(service, tmp_path, rows=[]))

    outcomes = again.report["outcomes"].values()
    assert killed.killed
    assert {task for kind, task, _ in outcomes if kind == "Succeeded"} == paid
    assert [kind for kind, _, _ in outcomes if kind == "Failed"] == ["Failed"] * (1 - len(paid))
    assert {name for kind, name, _ in outcomes if kind == "Failed"} <= {"TaskNotFound"}
    assert third.report["outcomes"] == {}
    assert service.books()["requests"].get("create", 0) <= 1


def test_an_application_that_goes_on_pays_once(zygote: Zygote, service: Remote, tmp_path: Path) -> None:
    """Killed while the answer to its create is lost, an application that takes up what is pending pays for it once."""
    service.change(unique=False)
    service.break_with(go.cut("rst", "accepted", match="job 1."))

    zygote.live(order(service, tmp_path, crash="after-post", nth=2))
    again = zygote.live(order(service, tmp_path, rows=[("", "job 2.", 1)]))

    assert [kind for kind, _, _ in again.report["outcomes"].values()] == ["Succeeded"] * 2
    assert Counter(charge["label"] for charge in service.books()["charges"]) == {
        "job 0.": 1,
        "job 1.": 1,
        "job 2.": 1,
    }


@pytest.mark.anyio
@pytest.mark.parametrize("with_journal", [True, False])
async def test_of_two_creates_at_once_under_one_id_one_is_made(
    server: FaultServer, tmp_path: Path, *, with_journal: bool
) -> None:
    """An id that a create is using is refused to another, so a service that takes an id twice bills one of them."""
    server.change(unique=False)
    options: dict[str, Any] = {"journal": tmp_path / "app.db"} if with_journal else {}

    async with client_of(server, **options) as kling:
        images = kling.images.multi_image
        made = await asyncio.gather(
            *(images.create(job("order-1")) for _ in range(20)), return_exceptions=True
        )
        handles = [each for each in made if isinstance(each, TaskHandle)]
        tasks = [await handle.wait(timeout=10) for handle in handles]
        left = await images.pending()

    refused = [each for each in made if isinstance(each, InvalidJob)]
    assert (len(tasks), len(refused)) == (1, 19)
    assert {error.field for error in refused} == {"external_task_id"}
    assert left == []
    assert_paid_once(server.books, ["order-1"])


@pytest.mark.anyio
async def test_an_id_stays_taken_while_its_create_goes_on_without_its_caller(
    server: FaultServer, tmp_path: Path
) -> None:
    """A create that its caller has left still holds its id; once it has ended, the journal knows the id as used."""
    server.change(unique=False)
    server.break_with(go.delay(0.3))

    async with client_of(server, journal=tmp_path / "app.db") as kling:
        images = kling.images.multi_image
        first = asyncio.ensure_future(images.create(job("order-1")))
        await until(lambda: server.books.charges)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = await first
        with pytest.raises(InvalidJob, match="is using"):
            _ = await images.create(job("order-1"))
        await until(lambda: not kling._engine.claims._held)
        with pytest.raises(InvalidJob, match="not used before"):
            _ = await images.create(job("order-1"))
        (handle,) = await images.pending()
        await handle.wait(timeout=10)

    assert_paid_once(server.books, ["order-1"])


@pytest.mark.anyio
async def test_an_id_whose_create_made_nothing_is_free_again(server: FaultServer, tmp_path: Path) -> None:
    """After a refusal, the same id may be used for another try."""
    server.break_with(go.refuse(1301))

    async with client_of(server, journal=tmp_path / "app.db") as kling:
        images = kling.images.multi_image
        with pytest.raises(ContentRefusal, match="1301"):
            _ = await images.create(job("order-1"))
        handle = await images.create(job("order-1"))
        await handle.wait(timeout=10)

    assert_paid_once(server.books, ["order-1"])
