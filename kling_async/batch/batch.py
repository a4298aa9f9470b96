"""The batch in the hands of whoever runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import anyio

from kling_async.batch.entries import Input
from kling_async.batch.options import BatchOptions
from kling_async.batch.outcomes import Outcome
from kling_async.batch.runner import Runner
from kling_async.batch.statistics import Statistics
from kling_async.client.engine import Engine
from kling_async.client.queries import Queries
from kling_async.errors import ConfigError, KlingError

__all__ = ["Batch", "BatchOptions"]

_SHOWN_WAITING = 8


class Batch:
    """
    Many jobs at once; iterate to get their outcomes as they come.

    Use it as `async with` to be able to leave early: then what was not sent stays undone and what is under way is
    cancelled and awaited. After the last outcome the iteration raises what stopped the batch, if anything did:
    an `AccountError` or `AuthError`, a `TransportError` or `ServerError` after a long outage, `BudgetSpent`, or what
    the iterable of jobs itself raised.
    """

    def __init__(
        self,
        engine: Engine,
        queries: Queries,
        jobs: Iterable[Input] | AsyncIterable[Input],
        options: BatchOptions,
    ) -> None:
        self._runner = Runner.of(engine, queries, jobs, options)
        self._engine = engine
        self._started = False
        self._gone = anyio.Event()

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.cancel()
        with anyio.CancelScope(shield=True):
            await self._gone.wait()

    def __aiter__(self) -> AsyncIterator[Outcome]:
        self._start()
        return self

    async def __anext__(self) -> Outcome:
        self._start()
        outcome = await self._runner.outbox.take()
        if outcome is not None:
            self._runner.taken()
            return outcome
        await self._gone.wait()
        error, self._runner.error = self._runner.error, None
        if error is not None:
            raise _single(error)
        raise StopAsyncIteration

    def statistics(self) -> Statistics:
        """Return where the batch stands; takes no time worth mentioning, at any moment, also after the end."""
        runner = self._runner
        named, ages = runner.waiting.longest(_SHOWN_WAITING), runner.waiting.ages()
        trouble = runner.error if isinstance(runner.error, KlingError) else runner.halted
        stopped_by = None if self._gone.is_set() else trouble
        return runner.counts.statistics(named, ages, runner.party, stopped_by)

    def stop(self) -> None:
        """Submit nothing more; what runs is collected and the iteration ends after it."""
        self._runner.stop()

    def _start(self) -> None:
        if not self._started:
            self._engine.enter()
            self._started = True
            # Not a method of this object: whoever drops the batch must not be kept from it by its own task.
            life = self._engine.background.begin(self._runner.run())
            life.add_done_callback(partial(_ended, self._runner, self._gone))
        elif self._engine.closed and not self._gone.is_set():
            raise ConfigError("the client of this batch is closed; keep it open until the batch is done")

    def __del__(self) -> None:
        # A loop that was left by `break` without `async with`: nothing more must be paid for. Whoever was told of no
        # outcome cannot be told of this either, so the batch is only stopped; the client awaits what is left of it.
        runner = getattr(self, "_runner", None)
        if runner is not None and self._started and not self._gone.is_set():
            with suppress(RuntimeError):  # without a loop nothing runs that could be stopped
                runner.cancel()


def _ended(runner: Runner, gone: anyio.Event, life: asyncio.Task[None]) -> None:
    # Not the last lines of the life itself, which has none if it is cancelled before its first step.
    if life.cancelled():
        # Only the end of the client cancels it; leaving the batch cancels a scope inside.
        runner.error = runner.error or ConfigError(
            "the client of this batch was closed before the batch was done; keep it open until then"
        )
        runner.outbox.close()
    gone.set()


def _single(error: BaseException) -> BaseException:
    """Take a lone error out of the groups that task groups make."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
