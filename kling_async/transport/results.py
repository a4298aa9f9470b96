"""The session for result hosts, which knows nothing of the service's credentials."""

from __future__ import annotations

import aiohttp
from attrs import define, field

from kling_async.transport.downloads import (
    FetchRules,
    ResultHosts,
    open_result_session,
    read_picture,
    save_picture,
)
from kling_async.transport.shelves import SavedFile, Shelf
from kling_async.transport.stand_in import StandInSession

__all__ = ["ResultSession"]


@define(eq=False)
class ResultSession:
    """Fetches result pictures under *rules*, or from a *stand_in*; opened at the first one, closed once."""

    rules: FetchRules
    limit: int
    stand_in: StandInSession | None = None
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)

    async def save(self, url: str, *, shelf: Shelf, stem: str, full: bool = False) -> SavedFile:
        """Put the picture at *url* onto *shelf*; see `save_picture()`."""
        session = self._opened()
        return await save_picture(session, url, shelf=shelf, stem=stem, rules=self.rules, full=full)

    async def read(self, url: str) -> bytes:
        """Return the bytes of the picture at *url*; see `read_picture()`."""
        return await read_picture(self._opened(), url, rules=self.rules)

    def _opened(self) -> ResultHosts:
        if self.stand_in is not None:
            return self.stand_in
        if self._session is None:
            self._session = open_result_session(self.rules, limit=self.limit)
        return self._session

    async def aclose(self) -> None:
        """Close what was opened; safe to call again."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
