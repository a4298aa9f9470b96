"""Replies as they came, for who needs their headers or their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeAlias, TypeVar

from attrs import define, field, frozen

from kling_async.client.queries import Queries
from kling_async.protocol.codec import Reply
from kling_async.protocol.requests import find_request
from kling_async.protocol.tasks import Task

__all__ = ["RawReplies", "RawReply"]

T = TypeVar("T")
_Tasks: TypeAlias = list[Task]


@frozen
class RawReply(Generic[T]):
    """One reply; `parse()` makes of it what the plain call returns."""

    _reply: Reply = field(repr=False)
    request_id: str
    _parse: Callable[[], T] = field(repr=False)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with lower-case names."""
        return self._reply.headers

    @property
    def body(self) -> bytes:
        """The body, decompressed."""
        return self._reply.body

    def parse(self) -> T:
        """Return the value that the plain call returns."""
        return self._parse()


@define(eq=False)
class RawReplies:
    """The calls of a resource that read; with several accounts, they ask the first one."""

    _queries: Queries

    async def retrieve(self, task_or_external_id: str) -> RawReply[Task]:
        """Ask for one task; raises as the plain call does."""
        queries, link = self._queries, self._queries.engine.links[0]
        envelope = await queries.get(link, find_request(queries.path, task_or_external_id))
        return RawReply(envelope.reply, envelope.request_id, lambda: queries.read(link, envelope))

    async def list(self, *, page: int = 1, page_size: int = 30) -> RawReply[_Tasks]:
        """Ask for one page; raises as the plain call does."""
        queries, link = self._queries, self._queries.engine.links[0]
        envelope = await queries.page(link, page, page_size)
        return RawReply(envelope.reply, envelope.request_id, lambda: queries.read_page(link, envelope))
