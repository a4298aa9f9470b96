"""Result pictures of one client: fetched on a limiter of their own, so that a slow disk holds no slot (R13)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypedDict, TypeVar

import anyio
from attrs import define, field, frozen

from kling_async._frames import without_frames
from kling_async.client.clock import Clock
from kling_async.client.emitter import Emitter
from kling_async.errors import ApiError, ConfigError, DownloadError, KlingError, LinkExpired
from kling_async.protocol.codes import is_not_found
from kling_async.protocol.events import Saved, SaveFailed
from kling_async.protocol.naming import TEMPLATE, file_stem
from kling_async.protocol.retry import Pacing
from kling_async.protocol.tasks import ResultImage, Task
from kling_async.transport.downloads import FetchRules
from kling_async.transport.files import FolderShelf
from kling_async.transport.results import ResultSession
from kling_async.transport.shelves import SavedFile, Shelf
from kling_async.transport.stand_in import StandInSession

__all__ = ["Downloads", "Keeper", "gone"]

T = TypeVar("T")


class _Names(TypedDict):
    account: str
    key: str
    external_task_id: str
    task_id: str


_PACING = Pacing(base=0.5, cap=8.0)
_TRIES = 4
_AT_ONCE = 16


def _url(image: ResultImage) -> str:
    return image.url


def _watermark_url(image: ResultImage) -> str:
    return image.watermark_url or ""


@define(eq=False)
class Downloads:
    """Fetches result pictures, some at once; transfers that break are tried again."""

    _session: ResultSession
    clock: Clock = field(repr=False)
    emitter: Emitter = field(repr=False)
    _limiter: anyio.CapacityLimiter | None = field(default=None, init=False, repr=False)

    @classmethod
    def under(cls, rules: FetchRules, clock: Clock, emitter: Emitter, way: object = None) -> Downloads:
        """Fetch pictures under *rules*, or through *way* if that stands in for every host there is."""
        stand_in = way if isinstance(way, StandInSession) else None
        return cls(ResultSession(rules, 2 * _AT_ONCE, stand_in), clock, emitter)

    async def save(self, url: str, shelf: Shelf, stem: str, *, full: bool = False) -> SavedFile:
        """Put the picture at *url* onto *shelf* as *stem* with the extension of its content; *full* decodes it first."""
        return await self._try(lambda session: session.save(url, shelf=shelf, stem=stem, full=full))

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

    *retrieve* asks the service for the task as it is now; with *full* pictures are decoded before they are kept.
    """

    _downloads: Downloads
    _stem: str
    _task: Task
    _account: str
    _retrieve: Callable[[], Awaitable[Task]]
    _full: bool = False

    async def save(self, image: ResultImage, folder: str | PathLike[str], name: str | None = None) -> Path:
        """Write *image* into *folder*; see `ResultImage.save()`."""
        if "://" in str(folder):
            raise ConfigError(
                f"folder: expected a folder of this machine, found {str(folder)!r}; batches save to object stores (out=)"
            )
        stem = file_stem(TEMPLATE, self._stem, image.index) if name is None else _plain(name)
        saved = await self.keep(image, FolderShelf(Path(folder)), stem)
        assert isinstance(saved.location, Path), "a folder keeps files"
        return saved.location

    async def keep(
        self, image: ResultImage, shelf: Shelf, stem: str, *, key: str = "", watermarked: bool = False
    ) -> SavedFile:
        """
        Put *image* onto *shelf* as *stem* and tell what is there, to watchers as a picture of the job *key*.

        *watermarked* takes the other picture, with the service's watermark, which there must be.
        """
        downloads, begin = self._downloads, self._downloads.clock.now()
        which = _watermark_url if watermarked else _url
        fetch = partial(downloads.save, shelf=shelf, stem=stem, full=self._full)
        try:
            saved = await self._renewing(image, fetch, which)
        except KlingError as error:
            if downloads.emitter.active:
                seconds = downloads.clock.now() - begin
                downloads.emitter.emit(SaveFailed(**self._named(key), error=error, seconds=seconds))
            raise
        if downloads.emitter.active:
            seconds, path = downloads.clock.now() - begin, str(saved.location)
            downloads.emitter.emit(Saved(**self._named(key), path=path, size=saved.size, seconds=seconds))
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

    async def _renewing(
        self,
        image: ResultImage,
        fetch: Callable[[str], Awaitable[T]],
        which: Callable[[ResultImage], str] = _url,
    ) -> T:
        try:
            return await self._fetched(image, fetch, which)
        except (KlingError, asyncio.CancelledError) as error:
            # The frames below have the signed URL among their variables.
            raise without_frames(error)  # noqa: B904  # the same error, with what led to it

    async def _fetched(
        self,
        image: ResultImage,
        fetch: Callable[[str], Awaitable[T]],
        which: Callable[[ResultImage], str],
    ) -> T:
        try:
            return await fetch(which(image))
        except LinkExpired as expired:
            url = which(await self._renewed(image, expired))
            if url == which(image):
                raise
        return await fetch(url)

    async def _renewed(self, image: ResultImage, expired: LinkExpired) -> ResultImage:
        """Ask the task for *image* again; the image as it was if it is not shown any more."""
        try:
            task = await self._retrieve()
        except ApiError as error:
            if not is_not_found(error.code, error.message):
                raise
            raise gone(error, expired.url) from error
        return next((one for one in task.images if one.index == image.index), image)


def gone(reason: ApiError, url: str = "") -> LinkExpired:
    """Make the error for pictures whose task the service has deleted; *reason* is how it said so."""
    return LinkExpired(
        f"the service no longer has the task and its pictures, which it keeps for 30 days ({reason.message}); "
        "'retry' makes them anew, at their full price",
        url,
        gone=True,
    )


def _plain(name: str) -> str:
    # The caller's own name for one picture is sanitised like any other.
    return file_stem(TEMPLATE, Path(name).stem, 0).removesuffix("_0")
