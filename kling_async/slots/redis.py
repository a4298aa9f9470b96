"""
Slots shared by any number of machines, in Redis (5 or newer) or Valkey; extra `[redis]`.

Every exchange is one script, so it happens whole or not at all, by the server's clock. All keys of a lane have the same
hash tag, and lie on one node of a cluster. What is kept are external ids and counts: no key, no prompt, no picture.
"""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from kling_async.errors import ConfigError, MissingExtra, SlotStoreError
from kling_async.protocol.claims import Grant, Report, Ruling, Terms
from kling_async.slots.store import checked_limit

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

__all__ = ["CLOCK", "RedisSlots", "script_text"]

# The server's time in seconds.
CLOCK = "local function clock() local t = redis.call('TIME') return t[1] + t[2] / 1000000 end\n"
# Each lane of a process has one exchange under way at a time, so few connections serve many accounts.
_CONNECTIONS = 4
# Seconds for one exchange, for a connection, and to wait for one that is in use.
_ANSWER, _CONNECT, _QUEUE = 5.0, 3.0, 10.0
_KEYS = ("meta", "owners", "leases", "queue", "asks", "lost", "orphans")


def script_text(clock: str = CLOCK) -> str:
    """Return the script, with the definition of its *clock*."""
    return clock + resources.files(__package__).joinpath("lease.lua").read_text(encoding="utf-8")


@define(eq=False)
class RedisSlots:
    """
    Shares *limit* slots of each lane between all processes that name the same server: `redis://`, `rediss://`, `unix://`.

    Without a *limit*, that of the other processes counts. *prefix* begins the names of all keys. Connects at the first
    use; raises `MissingExtra` without redis-py, and `ConfigError` for an address that is none.
    """

    _url: str = field(repr=False)
    limit: int | None = field(default=None, converter=checked_limit)
    prefix: str = field(default="kling", kw_only=True)
    terms: Terms = field(factory=Terms, kw_only=True)
    _clock: str = field(default=CLOCK, kw_only=True, repr=False)
    _redis: Redis | None = field(default=None, init=False, repr=False)
    _script: AsyncScript | None = field(default=None, init=False, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._pool().reset()

    @property
    def heal(self) -> float:
        """Seconds in which a store that forgot listens before it grants."""
        return self.terms.settle

    async def exchange(self, lane: str, report: Report) -> Ruling:
        """Take in *report* on *lane* and rule; raises `SlotStoreError` if the server cannot be reached now."""
        from redis.exceptions import RedisError

        keys = [f"{self.prefix}:{{{lane}}}:{name}" for name in _KEYS]
        texts = [json.dumps(asdict(report)), json.dumps(asdict(self.terms))]
        try:
            answer = await self._opened()(keys=keys, args=texts)
        except (TimeoutError, RedisError, OSError) as error:
            raise SlotStoreError(f"the store of slots does not answer ({_reason(error)})") from None
        return _ruling(json.loads(answer))

    def _opened(self) -> AsyncScript:
        loop = asyncio.get_running_loop()
        if self._script is None or self._loop is not loop:
            from redis.asyncio import Redis

            self._redis = Redis(connection_pool=self._pool())
            self._script = self._redis.register_script(script_text(self._clock))
            self._loop = loop
        return self._script

    def _pool(self) -> Any:
        try:
            from redis.asyncio import BlockingConnectionPool
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise MissingExtra(
                "RedisSlots needs redis-py: pip install 'kling-async[redis]'", "redis"
            ) from error
        try:
            return BlockingConnectionPool.from_url(
                self._url,
                max_connections=_CONNECTIONS,
                timeout=_QUEUE,
                socket_timeout=_ANSWER,
                socket_connect_timeout=_CONNECT,
                # Who exchanges decides when to try again.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            # Its message may show the address, and that a password.
            message = "slots: expected redis://host:port/db, rediss:// or unix://, found something else"
            raise ConfigError(message) from None

    async def aclose(self) -> None:
        """Close the connections; the next exchange opens them again."""
        redis, self._redis, self._script = self._redis, None, None
        if redis is not None:
            await redis.aclose(close_connection_pool=True)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _ruling(found: dict[str, Any]) -> Ruling:
    # An empty list of Lua's is an empty object.
    return Ruling(
        generation=found["generation"],
        turn=int(found["turn"]),
        forgotten=found["forgotten"],
        granted=tuple(Grant(job, token, inherited) for job, token, inherited in found["granted"]),
        lost=tuple(found["lost"]),
        opened=dict(tuple(pair) for pair in found["opened"]),
        limit=int(found["limit"]),
        ceiling=int(found["ceiling"]),
        held=int(found["held"]),
        waiting=int(found["waiting"]),
        owners=int(found["owners"]),
        pause=float(found["pause"]),
    )
