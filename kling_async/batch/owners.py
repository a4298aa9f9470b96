"""
Whose results a folder has: those of the service, or emulated ones, which never mix.

It is remembered in the folder, or, where a batch keeps only a journal, in that; from the first create that was answered.
"""

from __future__ import annotations

from functools import partial

from attrs import define, field

from kling_async.batch.sinks import Folder
from kling_async.client.queries import Queries
from kling_async.journal.journal import Journal
from kling_async.journal.storage import Storage
from kling_async.protocol.service import Service

__all__ = ["Owner", "meet"]


async def meet(kept: Service, queries: Queries) -> Service:
    """Return who answers now, where *kept* did before; one request at most, which is free."""
    engine = queries.engine
    if engine.service is None and kept.vouches_for(engine.origin):
        return kept
    return await engine.recognise(queries.rules)


@define(eq=False)
class Owner:
    """Knows whose results are in *journal*, and in *folder* if there is one."""

    _queries: Queries
    _journal: Journal
    _folder: Folder | None
    _kept: Service | None = field(default=None, init=False)
    _signed: bool = field(default=False, init=False)

    async def has_changed(self) -> bool:
        """
        Tell whether another emulator answers than the one whose tasks are in the journal: those went with it.

        Raises `ConfigError` where real and emulated results would mix, and what keeps the service from answering.
        """
        self._kept = self._folder.service if self._folder else await self._journal.ask(_kept)
        if self._kept is None:
            return False
        now = await meet(self._kept, self._queries)
        self._kept.check(now, str(self._folder.path if self._folder else self._journal.path))
        return self._kept.emulator != now.emulator

    async def check_memory(self) -> None:
        """Raise `ConfigError` unless who answers can know the tasks in the journal."""
        if await self.has_changed():
            assert self._kept is not None, "nobody else has come"
            now = await meet(self._kept, self._queries)
            self._kept.check_memory(now, str(self._folder.path if self._folder else self._journal.path))

    async def sign(self) -> None:
        """Write down who answers, once that is known."""
        if self._signed or (now := self._queries.engine.service) is None:
            return
        # Once: an emulator that takes the place of another one meanwhile does not know the tasks of this run.
        self._signed = True
        if self._kept is not None and self._kept.as_json() == now.as_json():
            return
        if self._folder is not None:
            await self._folder.sign(now)
        else:
            await self._journal.ask(partial(Storage.set_meta, values=now.as_json()))


def _kept(storage: Storage) -> Service | None:
    return Service.from_json(storage.meta())
