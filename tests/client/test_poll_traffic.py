"""What the poller sends: how many pages at once, in which order they are heard, and how fast single tasks are asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
from attrs import define, field
from fault_server import Remote
from socket_kit import QUICK, client, job

from kling_async.client.background import Background
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.client.poller import Poller, _Desk
from kling_async.client.tracked import Tracked
from kling_async.errors import ConfigError, RequestTimeout
from kling_async.protocol.codec import Reply
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.flows import Flow, Send
from kling_async.protocol.polling import PollBook, Seen
from kling_async.protocol.turns import Look

pytestmark = pytest.mark.anyio

PATH = "/v1/images/multi-image2image"
SIZE = 10


@define
class Service:
    """A link to a list of *count* tasks that have all ended; page *broken* is never answered. Later pages answer first."""

    count: int
    broken: int = 0
    name: str = "only"
    under_way: int = 0
    peak: int = 0
    asked: list[int] = field(factory=list)
    dice: Random = field(factory=lambda: Random(5))

    async def drive(self, flow: Flow[Any], _timeouts: Timeouts) -> Any:
        step = next(flow)
        assert isinstance(step, Send)
        query = dict(step.request.query)
        assert query, "with whole pages of ended tasks nothing is asked one by one"
        page = int(query["pageNum"])
        self.asked.append(page)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        for _ in range(self.dice.randint(2, 9)):
            await asyncio.sleep(0)
        self.under_way -= 1
        try:
            if page == self.broken:
                flow.throw(RequestTimeout("silence", sent=True))
            body = json.dumps({"code": 0, "data": self._page(page)}).encode()
            flow.send(Reply(status=200, headers={}, body=body))
        except StopIteration as end:
            return end.value
        raise AssertionError("one reply is enough")

    def _page(self, page: int) -> list[dict[str, Any]]:
        return [
            {
                "task_id": f"t-{number}",
                "task_status": "succeed",
                "task_result": {"images": [{"index": 0, "url": "https://x.example/0.png"}]},
            }
            for number in range(self.count - SIZE * (page - 1), max(0, self.count - SIZE * page), -1)
        ]


class Ear(PollBook):
    """A poll book that notes which pages it hears of, in their order."""

    @property
    def heard(self) -> list[int]:
        return self.__dict__.setdefault("pages", [])  # type: ignore[no-any-return]  # a list, see above

    def saw_page(self, page: int, glances: Sequence[Look], now: float) -> Seen:
        self.heard.append(page)
        return super().saw_page(page, glances, now)


async def watch(service: Any) -> tuple[list[int], list[Tracked]]:
    """Have a poller watch all tasks of *service* until they have ended; returns the order in which pages were heard."""
    background = Background()
    poller = Poller(Clock(), background, Emitter(background), QUICK, 0.01)
    poller.bind = lambda _link, _path, task: task
    book = Ear(min_interval=0.01, page_size=SIZE)
    poller._desks[service.name, PATH] = _Desk(service, PATH, book)
    rows = [
        Tracked(path=PATH, ask_for=f"t-{number}", external_task_id="", since=Clock().now())
        for number in range(1, service.count + 1)
    ]
    for row in rows:
        poller.watch(service, row)
    async with asyncio.timeout(30):
        for row in rows:
            await row.wait()
    poller.close(ConfigError("closed"))
    await background.aclose(1)
    return book.heard, rows


@pytest.mark.parametrize(("pages", "at_once"), [(12, 4), (3, 1)])
async def test_many_pages_are_read_four_at_a_time(pages: int, at_once: int) -> None:
    """A sweep of twelve pages has four under way, one of three reads them one by one; either is heard in order."""
    service = Service(pages * SIZE)

    heard, rows = await watch(service)

    assert service.peak == at_once
    assert service.asked == heard
    assert set(heard) == set(range(1, pages + 1))
    assert all(row.task is not None and row.error is None for row in rows)


async def test_a_page_that_is_not_answered_costs_only_its_own_tasks() -> None:
    """When one of many pages breaks, the others of the same sweep are heard, and its tasks are asked for again."""
    service = Service(12 * SIZE, broken=6)

    async def mend() -> None:
        while 6 not in service.asked:  # noqa: ASYNC110 - a fake announces nothing
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        service.broken = 0

    mending = asyncio.ensure_future(mend())
    heard, rows = await watch(service)
    await mending

    assert heard[heard.index(5) + 1] == 7, "the sweep went on"
    assert heard.index(6) > heard.index(12)
    assert all(row.task is not None for row in rows)


@pytest.fixture(scope="module")
def service() -> Iterator[Remote]:
    """A service in a process of its own, whose list shows nothing, so that each task must be asked for by itself."""
    with Remote.spawn(slots=None, life={"seconds": 1.5}, listing={"miss": 1.0}) as server:
        yield server


async def test_t10_single_gets_stay_within_their_budget(service: Remote) -> None:
    """T10: sixty tasks begun together are asked for at 20 GETs a second at most, spread, not in bursts."""
    server: Any = service
    async with client(server, slots=60, min_poll_interval=0.05) as kling:
        async with kling.batch(job(key=f"{number}") for number in range(60)) as batch:
            outcomes = [outcome async for outcome in batch]

    books = await asyncio.to_thread(service.books)
    gets = sorted(entry["at"] for entry in books["log"] if entry["route"] == "get")
    lists = sorted(entry["at"] for entry in books["log"] if entry["route"] == "list")
    assert len(outcomes) == 60
    assert len(gets) >= 60
    assert most_within(gets, 1.0) <= 20 + 5 + 1, "a second's budget, and what the bucket holds"
    assert most_within(gets, 0.05) <= 5 + 2, "never more at once than the bucket holds"
    assert most_within(lists, 1.0) <= 25, "a turn each poll interval at most"


def most_within(times: list[float], seconds: float) -> int:
    return max(
        sum(start <= other < start + seconds for other in times[place:]) for place, start in enumerate(times)
    )
