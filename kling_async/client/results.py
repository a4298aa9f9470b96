"""Result pictures of one client: fetched on a limiter of their own, so that a slow disk holds no slot (R13)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from os import PathLike
from pathlib import Path
from typing import TypedDict, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from kling_async._frames import without_frames
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.errors import DownloadError, KlingError, LinkExpired
from kling_async.protocol.events import Saved, SaveFailed
from kling_async.protocol.naming import file_stem
from kling_async.protocol.retry import Pacing
from kling_async.protocol.tasks import ResultImage, Task
from kling_async.transport.results import FetchRules, ResultSession, SavedFile

__all__ = ["Downloads", "Keeper"]

T = TypeVar("T")


class _Names(TypedDict):
    account: str
    key: str
    external_task_id: str
    task_id: str


_PACING = Pacing(base=0.5, cap=8.0)
_TRIES = 4
_AT_ONCE = 16


@define(eq=False)
class Downloads:
    """Fetches result pictures, some at once; transfers that break are tried again."""

    _session: ResultSession
    clock: Clock = field(repr=False)
    emitter: Emitter = field(repr=False)
    _limiter: anyio.CapacityLimiter | None = field(default=None, init=False, repr=False)

    @classmethod
    def under(cls, rules: FetchRules, clock: Clock, emitter: Emitter) -> Downloads:
        """Fetch pictures under *rules*."""
        return cls(ResultSession(rules, 2 * _AT_ONCE), clock, emitter)

    async def save(self, url: str, folder: Path, stem: str) -> SavedFile:
        """Write the picture at *url* to *folder* as *stem* with the extension of its content."""
        return await self._try(lambda session: session.save(url, folder=folder, stem=stem))

    async def read(self, url: str) -> bytes:
        """Return the bytes of the picture at *url*."""
        return await self._try(lambda session: session.read(url))

    async def _try(self, fetch: Callable[[ResultSession], Awaitable[T]]) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        for attempt in range(1, _TRIES):
            try:
                async with self._limiter:
                    return await fetch(self._session)
            except DownloadError as error:
                if not error.retryable:
                    raise
            await self.clock.sleep(_PACING.pause(attempt, self.clock.dice()))
        async with self._limiter:
            return await fetch(self._session)

    async def aclose(self) -> None:
        """Close the session; safe to call again."""
        await self._session.aclose()


@frozen(eq=False)
class Keeper:
    """
    Fetches the pictures of one task, asking the task for a fresh link where the old one no longer works.

    *retrieve* asks the service for the task as it is now.
    """

    _downloads: Downloads
    _stem: str
    _task: Task
    _account: str
    _retrieve: Callable[[], Awaitable[Task]]

    async def save(self, image: ResultImage, folder: str | PathLike[str], name: str | None = None) -> Path:
        """Write *image* into *folder*; see `ResultImage.save()`."""
        stem = file_stem("{key}_{index}", self._stem, image.index) if name is None else _plain(name)
        saved = await self.keep(image, Path(folder), stem)
        return saved.path

    async def keep(self, image: ResultImage, folder: Path, stem: str, *, key: str = "") -> SavedFile:
        """Write *image* into *folder* as *stem* and tell what was written, to watchers as a picture of the job *key*."""
        downloads, begin = self._downloads, self._downloads.clock.now()
        try:
            await anyio.to_thread.run_sync(lambda: folder.mkdir(parents=True, exist_ok=True))
            saved = await self._renewing(image, lambda url: downloads.save(url, folder, stem))
        except KlingError as error:
            if downloads.emitter.active:
                seconds = downloads.clock.now() - begin
                downloads.emitter.emit(SaveFailed(**self._named(key), error=error, seconds=seconds))
            raise
        if downloads.emitter.active:
            seconds = downloads.clock.now() - begin
            downloads.emitter.emit(
                Saved(**self._named(key), path=str(saved.path), size=saved.size, seconds=seconds)
            )
        return saved

    def _named(self, key: str) -> _Names:
        return {
            "account": self._account,
            "key": key,
            "external_task_id": self._task.external_task_id,
            "task_id": self._task.task_id,
        }

    async def read(self, image: ResultImage) -> bytes:
        """Return the bytes of *image*."""
        return await self._renewing(image, self._downloads.read)

    async def _renewing(self, image: ResultImage, fetch: Callable[[str], Awaitable[T]]) -> T:
        try:
            return await self._fetched(image, fetch)
        except (KlingError, asyncio.CancelledError) as error:
            # The frames below have the signed URL among their variables.
            raise without_frames(error)  # noqa: B904  # the same error, with what led to it

    async def _fetched(self, image: ResultImage, fetch: Callable[[str], Awaitable[T]]) -> T:
        try:
            return await fetch(image.url)
        except LinkExpired:
            fresh = next((one for one in (await self._retrieve()).images if one.index == image.index), None)
            if fresh is None or fresh.url == image.url:
                raise
        return await fetch(fresh.url)


def _plain(name: str) -> str:
    # The caller's own name for one picture is sanitised like any other.
    return file_stem("{key}_{index}", Path(name).stem, 0).removesuffix("_0")
