"""The parts of a client under their names: `kling.images.multi_image`, `kling.account`."""

from __future__ import annotations

from kling_async.client.creation import Rules
from kling_async.client.engine import Engine
from kling_async.client.multi_image import MultiImageResource
from kling_async.protocol.packs import Pack

__all__ = ["AccountResource", "Images"]


class Images:
    """The image endpoints of one client."""

    def __init__(self, multi_image: MultiImageResource) -> None:
        self.multi_image = multi_image


class AccountResource:
    """What the service tells about an account."""

    def __init__(self, engine: Engine, rules: Rules) -> None:
        self._engine = engine
        self._rules = rules

    async def packs(self) -> tuple[Pack, ...]:
        """Return the resource packs of the last year, of all accounts; free, and asked at most once a second."""
        self._engine.enter()
        patience = self._engine.patience(self._rules.retries, self._rules.timeouts)
        found: list[Pack] = []
        for link in self._engine.links:
            found += await link.packs(self._rules.timeouts, patience)
        return tuple(found)

    async def is_emulated(self) -> bool:
        """
        Tell whether an emulator answers, and not the service; free, and no request where the address or a reply has told.

        Raises what keeps the service from answering, but not what it refuses.
        """
        return bool((await self._engine.recognise(self._rules)).emulator)
