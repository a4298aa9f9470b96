"""
The emulator's callbacks: what is posted where and when, and the posting itself.

*plan()* is pure: a change and the faults that strike it become deliveries with a due moment. Documented are the body and
the signature; one try without repetition, and the order, are assumptions (the vendor says nothing).
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from attrs import evolve, field, frozen
from yarl import URL

from kling_async.emulator.faults import Dice
from kling_async.emulator.settings import is_loopback
from kling_async.emulator.store import Change
from kling_async.emulator.wire import JSON, Links, callback_body
from kling_async.protocol.callbacks import sign

__all__ = ["CallbackRecord", "Delivery", "Outbox", "plan"]

# A secret that nobody was given, for forged callbacks.
_FORGER = "whsec_Zm9yZ2VkLWZvcmdlZC1mb3JnZWQtZm9yZ2VkLTEyMzQ="
_AT_ONCE = 8
_PATIENCE = 10.0
# How far apart, in emulated seconds, callbacks overtake each other where nothing else is said.
_LATE = 5.0


@frozen(kw_only=True)
class Delivery:
    """One POST to make: *at* is when (emulated), *message_id* its `webhook-id`."""

    at: float
    url: str
    task_id: str
    status: str
    message_id: str
    body: bytes = field(repr=False)
    kind: str = "genuine"


@frozen(kw_only=True)
class CallbackRecord:
    """What became of a delivery; *answer* is the receiver's HTTP status, None if it could not be reached."""

    url: str
    task_id: str
    status: str
    message_id: str
    kind: str
    answer: int | None


def plan(change: Change, dice: Dice, links: Links) -> list[Delivery]:
    """Return what is to be posted because of *change*, faults included."""
    order = change.task.order
    if not order.callback_url:
        return []
    body = callback_body(change.task, change.status, change.stamp, links)
    genuine = Delivery(
        at=change.at,
        url=order.callback_url,
        task_id=change.task.task_id,
        status=change.status,
        message_id=f"{change.task.task_id}-{change.status}",
        body=_encode(body),
    )
    fault = dice.strike("callback", "callback", order.external_task_id)
    wait = _LATE if fault is None or fault.seconds is None else fault.seconds
    match fault.action if fault else None:
        case "lost-callback":
            return []
        case "duplicate-callback":
            return [genuine, evolve(genuine, kind="duplicate")]
        case "late-callback":
            return [evolve(genuine, at=change.at + wait, kind="late")]
        case "reordered-callback":
            # An ended task changes no more, so nothing can overtake its last callback.
            return [genuine if change.status in {"succeed", "failed"} else evolve(genuine, kind="overtaken")]
        case "forged-callback":
            claim = _encode(
                {**body, "task_status": "succeed", "task_result": {"images": [{"index": 0, "url": _EVIL}]}}
            )
            return [
                genuine,
                evolve(genuine, body=claim, message_id=f"{genuine.message_id}-forged", kind="forged"),
            ]
        case _:
            return [genuine]


# No host of this name exists, by RFC 2606.
_EVIL = "https://attacker.invalid/not-your-picture.png"


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Outbox:
    """Keeps deliveries until they are due and posts them, a few at a time."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], *, secret: str | None, remote: bool
    ) -> None:
        self._session = session
        self._secret = secret
        self._remote = remote
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._numbers = count()
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._overtaken: defaultdict[str, list[Delivery]] = defaultdict(list)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Plain tasks: an emulator may be opened and closed in different tasks (fixtures), which no task group allows.
        self._under_way: set[asyncio.Task[None]] = set()
        self.records: list[CallbackRecord] = []

    def __repr__(self) -> str:
        return f"<Outbox, {len(self._waiting)} waiting, {len(self._under_way)} under way, {len(self.records)} done>"

    def put(self, delivery: Delivery) -> None:
        """Keep *delivery* until it is due; an overtaken one until the next of its task has gone before it."""
        if delivery.kind == "overtaken":
            self._overtaken[delivery.task_id].append(delivery)
            return
        self._push(delivery)
        for held in reversed(self._overtaken.pop(delivery.task_id, [])):
            self._push(evolve(held, at=delivery.at))

    def _push(self, delivery: Delivery) -> None:
        heapq.heappush(self._waiting, (delivery.at, next(self._numbers), delivery))

    def next_due(self) -> float | None:
        """Return the emulated moment of the next delivery, None without any."""
        return self._waiting[0][0] if self._waiting else None

    def release(self, now: float, wall: float) -> None:
        """Begin to post all that is due at *now*; *wall* is the time that signatures tell."""
        while self._waiting and self._waiting[0][0] <= now:
            delivery = heapq.heappop(self._waiting)[2]
            task = asyncio.get_running_loop().create_task(self._post(delivery, round(wall)))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait until everything that was released has been posted."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Forget what waits, stop what is under way."""
        self._waiting.clear()
        self._overtaken.clear()
        for task in self._under_way:
            task.cancel()
        await self.drain()

    async def _post(self, delivery: Delivery, timestamp: int) -> None:
        answer: int | None = None
        # Those of one task go one after the other, as due; an unordered service would be a fault nobody asked for.
        turn = self._turns.setdefault(delivery.task_id, asyncio.Lock())
        async with turn, self._gate:
            if self._remote or is_loopback(URL(delivery.url).host or ""):
                answer = await self._send(delivery, self._headers(delivery, timestamp))
        shown = str(URL(delivery.url).with_query(None))
        self.records.append(
            CallbackRecord(
                url=shown,
                task_id=delivery.task_id,
                status=delivery.status,
                message_id=delivery.message_id,
                kind=delivery.kind,
                answer=answer,
            )
        )

    async def _send(self, delivery: Delivery, headers: dict[str, str]) -> int | None:
        patience = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with self._session().post(
                delivery.url, data=delivery.body, headers=headers, timeout=patience, allow_redirects=False
            ) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _headers(self, delivery: Delivery, timestamp: int) -> dict[str, str]:
        headers = {"Content-Type": JSON}
        if self._secret is not None:
            secret = _FORGER if delivery.kind == "forged" else self._secret
            headers["webhook-id"] = delivery.message_id
            headers["webhook-timestamp"] = str(timestamp)
            headers["webhook-signature"] = sign(secret, delivery.message_id, timestamp, delivery.body)
        return headers
