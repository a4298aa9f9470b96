"""The multi-image endpoint: create, run, retrieve, list, iter, handle."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeAlias, Unpack, overload

from attrs import define, evolve, field

from kling_async import protocol
from kling_async.client.creation import Order
from kling_async.client.emitter import Emitter
from kling_async.client.fields import ImageInput, MultiImageFields, job_of
from kling_async.client.handles import DEFAULT_WAIT, TaskHandle
from kling_async.client.queries import Queries
from kling_async.errors import KlingError
from kling_async.protocol.bodies import Body
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.pictures import Fitted, Picture
from kling_async.protocol.requests import LARGEST_PAGE, LAST_PAGE, find_request
from kling_async.protocol.tasks import Task
from kling_async.protocol.verdict import Verdict, judge

# What keeps a journal, or gives replies as they came, is loaded by the clients that do so.
if TYPE_CHECKING:
    from kling_async.client.raw import RawReplies
    from kling_async.journal.ledger import Ledger

__all__ = ["ImageInput", "MultiImageFields", "MultiImageResource", "prepare"]

_log = logging.getLogger("kling_async")

# Ends of a create after which there may be a task under its external id.
_MAY_EXIST = frozenset({Verdict.AMBIGUOUS, Verdict.DUPLICATE})

_Tasks: TypeAlias = list[Task]
_Handles: TypeAlias = list[TaskHandle]


async def prepare(
    queries: Queries,
    job: MultiImage,
    external_task_id: str,
    *,
    key: str = "",
    ledger: Ledger | None = None,
    veto: Callable[[], KlingError | None] | None = None,
) -> Order:
    """Take in the pictures of *job* and put its order together; raises `InvalidJob`, and nothing was sent."""
    pictures: dict[str, Picture | str] = {}
    fitted: tuple[Fitted, ...] = ()
    for name, source in job.pictures():
        if source.url is not None:
            pictures[name] = source.url
            continue
        found = pictures[name] = await queries.engine.stock.take(source, name, queries.rules.pictures)
        if isinstance(found, Picture) and found.changes:
            fitted += (Fitted(field=name, picture=found.name, changes=found.changes),)
    if fitted:
        _tell(queries.engine.emitter, key or job.key or "", external_task_id, fitted)
    if ledger is not None and (fitted or ledger.record.result):
        # Whoever takes the job up after a crash is to tell of it too.
        told = {"fitted": [each.as_json() for each in fitted]} if fitted else None
        ledger.record = ledger.record.revised(result=told)
    fields = job.body(external_task_id, pictures)
    if queries.engine.callback_url is not None:
        fields.setdefault("callback_url", queries.engine.callback_url)
    return Order(
        path=job.path,
        model=job.model_name,
        body=Body.from_json(fields),
        external_task_id=external_task_id,
        slots=job.slots,
        key=key or job.key or "",
        adopt=job.external_task_id is None,
        units=job.units,
        ledger=ledger,
        veto=veto,
        fitted=fitted,
    )


def _tell(emitter: Emitter, key: str, external_task_id: str, fitted: tuple[Fitted, ...]) -> None:
    for each in fitted:
        _log.info("job %s: made to fit: %s", key or external_task_id, each)
    if emitter.active:
        emitter.emit(
            protocol.events.PicturesFitted(
                account="", key=key, external_task_id=external_task_id, fitted=fitted
            )
        )


@define(eq=False)
class MultiImageResource:
    """
    `/v1/images/multi-image2image` of one client: `kling.images.multi_image`.

    Every call raises `ConfigError` from another event loop or after closing, `ApiError` when the service refuses,
    `TransportError` when it cannot be reached, and `MalformedReply` for an answer that cannot be read.
    """

    _queries: Queries = field(repr=False)

    @overload
    async def create(self, job: MultiImage, /, *, priority: int = 1) -> TaskHandle: ...

    @overload
    async def create(self, /, *, priority: int = 1, **fields: Unpack[MultiImageFields]) -> TaskHandle: ...

    async def create(
        self, job: MultiImage | None = None, /, *, priority: int = 1, **fields: Unpack[MultiImageFields]
    ) -> TaskHandle:
        """
        Make one task, as soon as the account has slots for it, and return its handle.

        Give a `MultiImage` or its fields. A higher *priority* passes the queue; batches have 0. The wait for slots has no limit of
        its own: put `asyncio.timeout()` around it. Every create carries an external id, so a lost reply is cleared up by asking
        and never by sending blindly again. A caller that is cancelled leaves at once while a create under way goes on; its
        external id is in the note of the cancellation.

        With a client's *journal*, the create is on the disk before it leaves.

        Raises `InvalidJob` before anything is sent, also for an external id that another create is using; `ApiError` and its
        kinds when the service refuses, which costs nothing; `TransportError` when it could not be reached, and no task was made;
        `SubmissionUnknown` when nobody knows.
        """
        job = job_of("create", job, fields)
        external_task_id = job.external_task_id or f"ka-{secrets.token_hex(12)}"
        queries = self._queries
        queries.engine.enter()
        try:
            with queries.engine.claims.claim(external_task_id):
                ledger = await self._page(job, external_task_id)
                order = await prepare(queries, job, external_task_id, ledger=ledger)
                link, row = await queries.engine.submit(order, evolve(queries.rules, priority=priority))
        except BaseException as error:
            if not isinstance(error, KlingError) or judge(error) in _MAY_EXIST:
                error.add_note(f"external_task_id: {external_task_id}")
            raise
        if ledger is not None:
            from kling_async.client.pages import close_page_with

            close_page_with(row, ledger)
        return TaskHandle(row.ask_for, external_task_id, queries, link, row, fitted=order.fitted)

    @overload
    async def run(
        self, job: MultiImage, /, *, wait_timeout: float | None = DEFAULT_WAIT, priority: int = 1
    ) -> Task: ...

    @overload
    async def run(
        self,
        /,
        *,
        wait_timeout: float | None = DEFAULT_WAIT,
        priority: int = 1,
        **fields: Unpack[MultiImageFields],
    ) -> Task: ...

    async def run(
        self,
        job: MultiImage | None = None,
        /,
        *,
        wait_timeout: float | None = DEFAULT_WAIT,
        priority: int = 1,
        **fields: Unpack[MultiImageFields],
    ) -> Task:
        """
        Make one task and wait for its end, at most *wait_timeout* seconds (None: for ever) from when it was accepted.

        This is `create()` and `TaskHandle.wait()` in one, and raises what they raise.
        """
        job = job_of("run", job, fields)
        handle = await self.create(job, priority=priority)
        return await handle.wait(wait_timeout)

    async def retrieve(self, task_or_external_id: str) -> Task:
        """
        Ask the service for one task by either of its ids.

        Raises `TaskNotFound` if no account of this client has it.
        """
        return (await self._queries.find(task_or_external_id))[1]

    async def list(self, *, page: int = 1, page_size: int = 30) -> _Tasks:
        """
        Return one page of the account's tasks of this endpoint: *page* 1 to 1000, *page_size* 1 to 500, else `ConfigError`.

        The order is the service's own and not documented; pages shift while tasks are made. With several accounts,
        the page of each, one after another.
        """
        found: _Tasks = []
        for link in self._queries.engine.links:
            found += self._queries.read_page(link, await self._queries.page(link, page, page_size))
        return found

    async def iter(self, *, page_size: int = LARGEST_PAGE) -> AsyncIterator[Task]:
        """Yield all tasks of this endpoint, each once, reading pages of *page_size* (1 to 500) as they are needed; no more than 1000."""
        for link in self._queries.engine.links:
            seen: set[str] = set()
            for page in range(1, LAST_PAGE + 1):
                envelope = await self._queries.page(link, page, page_size)
                for task in self._queries.read_page(link, envelope):
                    if task.task_id not in seen:
                        seen.add(task.task_id)
                        yield task
                if len(envelope.data or ()) < page_size:
                    break

    def handle(self, task_or_external_id: str) -> TaskHandle:
        """Attach to a task by either of its ids; nothing is asked before the handle is used, which then may raise `TaskNotFound`."""
        find_request(MultiImage.path, task_or_external_id)
        return TaskHandle(task_or_external_id, "", self._queries)

    async def pending(self) -> _Handles:
        """
        Return handles of the tasks that this client's journal has as not ended, of this run and earlier ones.

        A create of which nobody knows whether it made a task is among them: waiting for it raises `TaskNotFound` if
        it made none. Empty without a journal.
        """
        journal = await self._queries.engine.journal()
        if journal is None:
            return []
        from kling_async.journal.ledger import Ledger
        from kling_async.journal.storage import Storage

        wall = self._queries.engine.clock.wall
        return [self._left_over(Ledger(journal, record, wall)) for record in await journal.ask(Storage.live)]

    async def _page(self, job: MultiImage, external_task_id: str) -> Ledger | None:
        if self._queries.engine.journal_path is None:
            return None
        from kling_async.client.pages import open_page

        return await open_page(self._queries.engine, job, external_task_id)

    def _left_over(self, ledger: Ledger) -> TaskHandle:
        record = ledger.record
        return TaskHandle(record.task_id, record.external_task_id, self._queries, ledger=ledger)

    @property
    def with_raw_response(self) -> RawReplies:
        """The calls that read, returning replies as they came."""
        from kling_async.client.raw import RawReplies

        return RawReplies(self._queries)
