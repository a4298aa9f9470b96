"""The session for result hosts, which knows nothing of the service's credentials."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from attrs import define, field

from kling_async.transport.downloads import (
    FetchRules,
    SavedFile,
    open_result_session,
    read_picture,
    save_picture,
)

__all__ = ["FetchRules", "ResultSession", "SavedFile"]


@define(eq=False)
class ResultSession:
    """Fetches result pictures under *rules*; opened at the first one, closed once."""

    rules: FetchRules
    limit: int
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)

    async def save(self, url: str, *, folder: Path, stem: str) -> SavedFile:
        """Write the picture at *url* into *folder*; see `save_picture()`."""
        return await save_picture(self._opened(), url, folder=folder, stem=stem, rules=self.rules)

    async def read(self, url: str) -> bytes:
        """Return the bytes of the picture at *url*; see `read_picture()`."""
        return await read_picture(self._opened(), url, rules=self.rules)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_result_session(self.rules, limit=self.limit)
        return self._session

    async def aclose(self) -> None:
        """Close what was opened; safe to call again."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
