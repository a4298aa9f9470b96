"""
The pictures of one client, taken in once however many jobs use them.

What was checked, made to fit, fetched from a store or made of a PIL image is remembered, the least recently used first
to go. A file is known by its path and by what tells it from a later content; bytes and PIL images by their own hash, if
somebody has taken it. Callers who want the same picture at once wait for one of them to take it in.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from kling_async.errors import InvalidJob
from kling_async.protocol.pictures import MOST_INPUT_BYTES, Picture, PictureRules, check_size
from kling_async.protocol.sources import ImageSource, megabytes
from kling_async.transport.larder import Larder
from kling_async.transport.opening import in_thread, stamp_of
from kling_async.transport.pictures import STRICT, inspect, inspect_now
from kling_async.transport.spool import SpooledFile
from kling_async.transport.stores import open_place, reason

if TYPE_CHECKING:
    from kling_async.transport.stores import Place

__all__ = ["Stock"]

_REMEMBERED = 4096
# What remembered pictures may take of the folder for temporary files.
_MOST_SPOOLED = 512_000_000
_SIGNED_FOR = timedelta(hours=1)


@define(eq=False)
class Stock:
    """Takes pictures in; belongs to the event loop of its first call."""

    larder: Larder = field(factory=Larder, repr=False)
    _known: OrderedDict[Hashable, Picture] = field(factory=OrderedDict, init=False, repr=False)
    _spooled: int = field(default=0, init=False)
    _taking: dict[Hashable, asyncio.Lock] = field(factory=dict, init=False, repr=False)
    _places: dict[str, Place] = field(factory=dict, init=False, repr=False)

    async def take(self, source: ImageSource, name: str, rules: PictureRules = STRICT) -> Picture | str:
        """
        Do what `look()` does for a job that is going to be sent.

        The larder hears of it, so that it knows which pictures are worth keeping.
        """
        picture = await self.look(source, name, rules)
        if isinstance(picture, Picture):
            self.larder.expect(picture)
        return picture

    async def look(self, source: ImageSource, name: str, rules: PictureRules = STRICT) -> Picture | str:
        """
        Return the picture of *source*, checked or made to fit as *rules* say, or the URL the service is to fetch.

        Raises `InvalidJob` naming the field *name*, `MissingExtra` for what is not installed, and `ConfigError` for a
        store or a folder that cannot be used.
        """
        if source.url is not None:
            return source.url
        if source.stored is not None:
            if source.presign:
                return await self._sign(source.stored, name)
            return await self._once(("stored", source.stored, rules), source, name, rules)
        if source.path is not None:
            return await self._take_file(source, name, rules)
        if source.data is not None and not rules.need_pillow:
            return await inspect(source, name)
        return await self._once((await in_thread(source.identity), rules), source, name, rules)

    async def _take_file(self, source: ImageSource, name: str, rules: PictureRules) -> Picture:
        key = (source.path, rules)
        known = self._known.get(key)
        if known is None:
            return await self._once(key, source, name, rules)
        if await in_thread(_stamp, source) != known.seen:
            # Another one by now, or gone.
            self._forget(key)
            return await self._once(key, source, name, rules)
        self._known.move_to_end(key)
        return known

    async def _once(self, key: Hashable, source: ImageSource, name: str, rules: PictureRules) -> Picture:
        """Take *source* in unless it is known under *key*; one caller at a time does."""
        async with self._turn(key):
            known = self._known.get(key)
            if known is None:
                known = await self._read(source, name, rules)
                if known.source.data is None:  # the caller's own bytes are not kept alive
                    self._remember(key, known)
            else:
                self._known.move_to_end(key)
            return known

    @asynccontextmanager
    async def _turn(self, key: Hashable) -> AsyncIterator[None]:
        lock = self._taking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._taking.get(key) is lock:
                del self._taking[key]

    async def _read(self, source: ImageSource, name: str, rules: PictureRules) -> Picture:
        if source.stored is None:
            return await inspect(source, name, rules)
        spooled = await self._fetch(source.stored, name, rules)
        local = ImageSource(path=spooled.path)
        picture = await in_thread(inspect_now, local, name, rules, source.describe())
        return picture if picture.held is not None else evolve(picture, held=spooled)

    def _remember(self, key: Hashable, picture: Picture) -> None:
        self._known[key] = picture
        self._spooled += _spooled_bytes(picture)
        while len(self._known) > _REMEMBERED or self._spooled > _MOST_SPOOLED:
            self._spooled -= _spooled_bytes(self._known.popitem(last=False)[1])

    def _forget(self, key: Hashable) -> None:
        gone = self._known.pop(key, None)
        self._spooled -= _spooled_bytes(gone) if gone is not None else 0

    # Object stores.

    def _place(self, url: str, name: str) -> Place:
        if url not in self._places:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            self._places[url] = open_place(url, name)
        return self._places[url]

    async def _sign(self, url: str, name: str) -> str:
        from obstore import sign_async

        place = self._place(url, name)
        try:
            # A store in memory has no URLs and says so.
            return str(await sign_async(place.store, "GET", place.path, _SIGNED_FOR))  # type: ignore[call-overload]
        except Exception as error:  # each store has its own
            raise _not_read(error, url, name, "signed") from error

    async def _fetch(self, url: str, name: str, rules: PictureRules) -> SpooledFile:
        place = self._place(url, name)  # tells of a missing extra first
        from obstore import get_async

        what = ImageSource(stored=url).describe()
        try:
            found = await get_async(place.store, place.path)
            size = int(found.meta["size"])
            if rules.fit is None:
                check_size(size, name, what)
            elif size > MOST_INPUT_BYTES:
                rule = f"a picture of at most {megabytes(MOST_INPUT_BYTES)} to be made to fit"
                raise InvalidJob.because(name, rule, f"{size:,} bytes ({what})", "scale it down")
            data = bytes(await found.bytes_async())
        except InvalidJob:
            raise
        except Exception as error:  # each store has its own
            raise _not_read(error, url, name, "read") from error
        return await in_thread(SpooledFile.written, lambda file: file.write(data))


def _stamp(source: ImageSource) -> tuple[int, int] | None:
    assert source.path is not None, "only files have one"
    try:
        return stamp_of(source.path.stat())
    except OSError:
        return None


def _spooled_bytes(picture: Picture) -> int:
    return picture.size if picture.held is not None else 0


def _not_read(error: Exception, url: str, name: str, verb: str) -> InvalidJob:
    found = f"{ImageSource(stored=url).describe()}, which cannot be {verb} ({reason(error)})"
    return InvalidJob.because(
        name, "a picture in a store", found, "check its key, and the credentials in the environment"
    )
