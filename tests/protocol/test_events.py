"""Events as values."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any, get_args

import attrs
import pytest

from kling_async import protocol
from kling_async.errors import KlingError, NoFreeSlot, TransportError
from kling_async.protocol import events
from kling_async.protocol.pictures import Fitted

JOB = {"account": "main", "key": "row 1", "external_task_id": "ka-1"}
SEEN: list[Any] = [
    events.Waiting(**JOB, slots=2),
    events.PicturesFitted(
        **JOB, fitted=(Fitted(field="style_image", picture="a.webp", changes=("WebP saved as PNG",)),)
    ),
    events.Submitted(**JOB, task_id="77", slots=2),
    events.Refused(**JOB, code=1303, pause=None),
    events.Retried(**JOB, error=TransportError("reset"), attempt=1, pause=0.5),
    events.Recovered(**JOB, task_id="77"),
    events.Dropped(**JOB, error=None),
    events.Resumed(**JOB, task_id="77"),
    events.Requested(account="main", route="get", seconds=0.1, status=200, request_id="r-1"),
    events.StatusChanged(**JOB, task_id="77", status="processing"),
    events.Polled(account="main", requests=1, waiting=2, ended=1),
    events.Finished(
        **JOB, task_id="77", status="succeed", reason="", seconds=24.5, units=Decimal(32), lag=0.5
    ),
    events.Detached(**JOB, task_id="77", error=TransportError("reset")),
    events.Saved(**JOB, task_id="77", path="out/a.png", size=1, seconds=0.2),
    events.SaveFailed(**JOB, task_id="77", error=TransportError("reset"), seconds=0.2),
    events.LaneMoved(account="main", model="kling-v2-1", limit=5, held=3, waiting=0),
    events.LaneChanged(account="main", model="kling-v2-1", before=5, after=3, reason="refused"),
    events.LaneStopped(account="main", model="kling-v2-1", error=NoFreeSlot("x")),
    events.Missed(count=3),
]


def test_there_is_one_of_each() -> None:
    """The union names every event, and so does `__all__`."""
    names = {kind.__name__ for kind in get_args(events.Event)}

    assert {type(event) for event in SEEN} == set(get_args(events.Event))
    assert names | {"Event"} == set(events.__all__)


@pytest.mark.parametrize("event", SEEN, ids=lambda event: type(event).__name__)
def test_events_are_values(event: Any) -> None:
    """An event cannot be changed, and another process reads the same."""
    again = pickle.loads(pickle.dumps(event))

    same = {name: value for name, value in attrs.asdict(event).items() if not isinstance(value, KlingError)}
    assert same.items() <= attrs.asdict(again).items()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(event, attrs.fields(type(event))[0].name, "other")


def test_events_are_a_name_of_the_package_that_is_loaded_late() -> None:
    """Who tells of events takes them from the package, which loads them then; it has no other such name."""
    assert vars(protocol)["__getattr__"]("events") is events
    with pytest.raises(AttributeError, match="no attribute 'evens'"):
        vars(protocol)["__getattr__"]("evens")
