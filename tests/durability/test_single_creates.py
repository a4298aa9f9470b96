"""A client with a journal of its own: single creates of an application that is killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from crash_kit import Order, Zygote
from fault_server import Remote
from fault_server import catalogue as go

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
