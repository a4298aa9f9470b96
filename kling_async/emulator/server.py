"""
The emulator as a thing to open and close: one aiohttp server, one timer, one small thread pool.

However many tasks are live, nothing runs for them: the store keeps what is due in a heap, every request settles it
first, and a single timer settles it when no request comes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.util import find_spec
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web
from attrs import fields_dict, frozen
from yarl import URL

from kling_async.emulator.app import Api, RequestRecord
from kling_async.emulator.auth import Gate
from kling_async.emulator.callbacks import CallbackRecord, Outbox, plan
from kling_async.emulator.clock import Clock
from kling_async.emulator.faults import Dice, Fault, Faults
from kling_async.emulator.pages import Pages, http_date
from kling_async.emulator.pictures import MAX_BYTES, Reader
from kling_async.emulator.results import Gallery, LinkSigner
from kling_async.emulator.settings import EmulatedAccount, EmulatorSettings
from kling_async.emulator.store import Change, Store, Task
from kling_async.errors import ConfigError, MissingExtra
from kling_async.protocol.service import EMULATOR_HEADER

__all__ = ["BookedTask", "Emulator", "serve"]

_T = TypeVar("_T")

_PAINTERS = 2
# How long a picture on this machine may take to be fetched, and requests to end when the emulator closes (seconds).
_FETCH_PATIENCE, _CLOSING_PATIENCE = 10.0, 1.0


@frozen(kw_only=True)
class BookedTask:
    """One accepted task as the books have it now; times in milliseconds since 1970 as replies show them."""

    task_id: str
    external_task_id: str
    account: str
    model_name: str
    prompt: str
    aspect_ratio: str
    n: int
    status: str
    status_message: str
    units: int | None
    created_at: int
    updated_at: int

    @classmethod
    def from_task(cls, task: Task) -> BookedTask:
        """Copy what is known of *task*."""
        order = task.order
        return cls(
            task_id=task.task_id,
            external_task_id=order.external_task_id,
            account=task.account.name,
            model_name=order.model_name,
            prompt=order.prompt,
            aspect_ratio=order.aspect_ratio,
            n=order.n,
            status=task.status,
            status_message=task.message,
            units=task.units,
            created_at=task.created_stamp,
            updated_at=task.updated_stamp,
        )


class Emulator:
    """
    A local Kling, open for the length of an `async with`.

    Takes `EmulatorSettings`, or their fields as keywords: `Emulator(slots=9, speed=20)`. MissingExtra if composites
    are to be painted and Pillow is not installed. After closing, the books and the log can still be read.
    """

    def __init__(self, settings: EmulatorSettings | None = None, **options: Any) -> None:
        self.settings = _settings(settings, options)
        if self.settings.paint == "composite" and find_spec("PIL") is None:
            raise MissingExtra(
                "painting composites needs Pillow: pip install 'kling-async[images]', or use paint='stamp'",
                "images",
            )
        self.url = ""
        # Not seeded: it says whose memory the tasks are in.
        self._name = secrets.token_hex(8)
        self._clock = Clock(self.settings.speed, skew=self.settings.clock_skew)
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._faults = self.settings.faults
        self._log: deque[RequestRecord] = deque(maxlen=self.settings.keep_requests)
        self._store = self._new_store()
        self._api: Api | None = None
        self._outbox: Outbox | None = None

    def __repr__(self) -> str:
        state = f"at {self.url}" if self.url else "closed"
        return f"<Emulator {state}, {len(self._store.tasks)} tasks, {self._store.live_slots} slots in use>"

    async def __aenter__(self) -> Self:
        if self._api is not None:
            raise ConfigError(
                "expected an emulator that was never opened, found one that was; make a new one"
            )
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.url = ""
        await self._stack.aclose()

    @property
    def access_key(self) -> str:
        """The access key of the first account."""
        return self._first.access_key

    @property
    def secret_key(self) -> str:
        """The secret key of the first account."""
        return self._first.secret_key

    @property
    def api_key(self) -> str:
        """The plain API key of the first account."""
        return self._first.api_key

    @property
    def tasks(self) -> list[BookedTask]:
        """Every task accepted, oldest first, as it stands now."""
        self._wake()
        return [BookedTask.from_task(task) for task in self._store.tasks]

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests answered, oldest first; without bodies and secrets."""
        return list(self._log)

    @property
    def callbacks(self) -> list[CallbackRecord]:
        """The callbacks posted, oldest first."""
        return list(self._outbox.records) if self._outbox else []

    @property
    def peak_slots(self) -> int:
        """The most slots that our tasks held at once in one account and model."""
        return self._store.peak_slots

    @property
    def slot_seconds(self) -> float:
        """The slots used, times the emulated seconds for which they were, by all tasks up to their last change."""
        self._wake()
        return self._store.slot_seconds

    @property
    def faults(self) -> Faults:
        """The faults in force; setting them starts their counts anew."""
        return self._faults

    @faults.setter
    def faults(self, value: Faults | str | Iterable[Fault]) -> None:
        self._faults = Faults.of(value)
        if self._api is not None:
            self._api.dice = Dice(self._faults, self.settings.seed)

    @property
    def fault_hits(self) -> list[int]:
        """How often each fault in force has struck."""
        return list(self._api.dice.hits) if self._api else [0] * len(self._faults)

    @property
    def clock_skew(self) -> float:
        """How far the service's clock is ahead of this machine's, in seconds; can be set at any time."""
        return self._clock.skew

    @clock_skew.setter
    def clock_skew(self, seconds: float) -> None:
        self._clock.skew = seconds

    def accepted(self, external_task_id: str) -> int:
        """Return how many tasks were ever accepted under *external_task_id*: more than one is a double charge."""
        return sum(task.order.external_task_id == external_task_id for task in self._store.tasks)

    async def advance(self, seconds: float) -> None:
        """Let *seconds* of emulated time pass at once; returns when the callbacks due in them have been posted."""
        self._clock.advance(seconds)
        self._wake()
        if self._outbox is not None:
            await self._outbox.drain()

    async def reset(self) -> None:
        """Forget all tasks, requests, callbacks and counts; settings and faults stay, units are full again."""
        self._store, self._name = self._new_store(), secrets.token_hex(8)
        self._log.clear()
        if self._api is not None and self._outbox is not None:
            self._api.store = self._store
            self._api.dice = Dice(self._faults, self.settings.seed)
            await self._outbox.close()
            self._outbox.records.clear()

    @property
    def _first(self) -> EmulatedAccount:
        return next(iter(self.settings.all_accounts()))

    def _new_store(self) -> Store:
        return Store(self.settings, instant=self._clock.instant, stamp=self._clock.stamp)

    async def _open(self, stack: AsyncExitStack) -> None:
        settings, closing = self.settings, asyncio.Event()
        pool = stack.enter_context(ThreadPoolExecutor(_PAINTERS, thread_name_prefix="kling-emulator"))
        stack.push_async_callback(self._close_session)
        self._outbox = Outbox(
            self._client, secret=settings.webhook_secret, remote=settings.allow_remote_callbacks
        )
        stack.push_async_callback(self._outbox.close)
        stack.callback(self._disarm)
        self._api = self._new_api(pool, closing)
        app = web.Application(client_max_size=settings.max_body)
        app.add_routes([*Pages(self).routes(), *self._api.routes()])
        app.on_response_prepare.append(self._date)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING_PATIENCE)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        # First of all on the way out: whoever waits in a hanging request is let go.
        stack.callback(closing.set)
        await web.TCPSite(runner, settings.host, settings.port).start()
        self.url = _address(settings.host, runner.addresses[0][1])
        self._api.signer = LinkSigner(settings.public_url or self.url, settings, self._clock.now)

    def _new_api(self, pool: ThreadPoolExecutor, closing: asyncio.Event) -> Api:
        settings = self.settings

        async def in_thread(work: Callable[..., _T], *args: object) -> _T:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *args)

        return Api(
            settings=settings,
            clock=self._clock,
            store=self._store,
            dice=Dice(self._faults, settings.seed),
            gate=Gate(settings.all_accounts()),
            reader=Reader(_shrinker(settings.paint), self._fetch, in_thread),
            gallery=Gallery(settings, pool),
            signer=LinkSigner("", settings, self._clock.now),
            wake=self._wake,
            noticed=self._noticed,
            closing=closing,
            opened=self._clock.wall(),
            log=self._log,
            request_ids=Random(f"{settings.seed}:request"),
        )

    def _wake(self) -> None:
        """Let everything happen that is due, and set the timer for what is due next."""
        now = self._clock.now()
        for change in self._store.settle(now):
            self._post(change)
        if self._outbox is not None and self.url:
            self._outbox.release(now, self._clock.wall())
            self._arm()

    def _noticed(self, change: Change) -> None:
        self._post(change)
        self._wake()

    def _post(self, change: Change) -> None:
        if self._api is not None and self._outbox is not None:
            for delivery in plan(change, self._api.dice, self._api.signer.links):
                self._outbox.put(delivery)

    def _arm(self) -> None:
        assert self._outbox is not None
        due = min(
            (each for each in (self._store.next_due(), self._outbox.next_due()) if each is not None),
            default=None,
        )
        delay = None if due is None else self._clock.delay(due)
        if due is None or delay is None or due == self._timer_at:
            return
        self._disarm()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer_at = float("inf")
        self._wake()

    def _disarm(self) -> None:
        self._timer_at = float("inf")
        if self._timer is not None:
            self._timer.cancel()

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = http_date(int(self._clock.wall()))
        response.headers["Server"] = "kling-emulator"
        response.headers[EMULATOR_HEADER] = self._name

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Only this machine is ever asked unless callbacks may leave it, so no proxy comes between.
            self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def _close_session(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, url: str) -> bytes | None:
        patience = aiohttp.ClientTimeout(total=_FETCH_PATIENCE)
        try:
            async with self._client().get(url, timeout=patience, allow_redirects=False) as reply:
                if reply.status != 200:
                    return None
                data = (
                    await reply.content.read(MAX_BYTES + 1)
                    if reply.content_length is None
                    else await reply.read()
                )
                return data if len(data) <= MAX_BYTES else None
        except (aiohttp.ClientError, TimeoutError):
            return None


def _settings(settings: EmulatorSettings | None, options: dict[str, Any]) -> EmulatorSettings:
    if settings is not None and options:
        raise ConfigError(f"expected settings or options, found both: {', '.join(options)}")
    known = fields_dict(EmulatorSettings)
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(
            f"expected options of EmulatorSettings ({', '.join(known)}), found {', '.join(unknown)}"
        )
    return settings or EmulatorSettings(**options)


def _shrinker(paint: str) -> Callable[[bytes], bytes | None]:
    if paint == "stamp":
        return lambda _data: None
    from kling_async.emulator.painter import shrink

    return shrink


def _address(host: str, port: int) -> str:
    # An address to listen on everywhere is no address to go to.
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return str(URL.build(scheme="http", host=shown, port=port)).rstrip("/")


async def serve(settings: EmulatorSettings, *, started: Callable[[Emulator], object] | None = None) -> None:
    """Run an emulator until this is cancelled; *started* is told when its address is known."""
    async with Emulator(settings) as emulator:
        if started is not None:
            started(emulator)
        await asyncio.Event().wait()
