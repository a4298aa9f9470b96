"""The client itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from attrs import evolve

from kling_async.client.assembly import (
    callbacks_of,
    engine_of,
    network_of,
    picture_rules,
    share,
    watchers_of,
)
from kling_async.client.clock import Clock
from kling_async.client.creation import Rules
from kling_async.client.multi_image import MultiImageResource
from kling_async.client.queries import Queries
from kling_async.client.resources import AccountResource, Images
from kling_async.client.settings import Account, gather, proxy_of, shared, verifier_of
from kling_async.errors import ConfigError
from kling_async.protocol.endpoints import Timeouts, count, seconds
from kling_async.protocol.jobs import MultiImage
from kling_async.transport.sessions import Connection

if TYPE_CHECKING:
    import aiohttp

    from kling_async.batch.batch import Batch
    from kling_async.batch.entries import Input
    from kling_async.batch.fetching import Fetched
    from kling_async.batch.upkeep import Rebuilt
    from kling_async.client.callbacks import Callbacks
    from kling_async.client.subscriptions import Watcher
    from kling_async.slots.store import SlotStore
    from kling_async.transport.stand_in import StandIn

__all__ = ["Kling"]


class Kling:
    """
    A client of the Kling image API, for one event loop and as long as you like.

    Credentials come from the arguments or else from the environment (`KLING_API_KEY`; `KLING_ACCESS_KEY` and `KLING_SECRET_KEY`;
    the same with `KLINGAI_`). Making a client needs neither network nor loop. Use it as `async with`, or call `aclose()` in the end.

    *slots* is how many the account has: a number, or `"auto"` to read it from the resource packs and learn it; or a
    store of `kling_async.slots` that shares them with other processes.
    *timeout* is the seconds of one request or a `Timeouts`; waits for tasks have their own. *max_retries* counts
    repetitions of what can heal; 0 means none. *min_poll_interval* is in seconds. A borrowed *session* (of aiohttp,
    or in tests a `ScriptedTransport`) is never closed. *journal* is a file that keeps the state of every single `create()`, so that after a crash
    `images.multi_image.pending()` has the handles of what was left. *on_event*, sync or async, is told what happens;
    several may be given as a list.

    *callback_url* is where the outside world reaches the app that takes in callbacks (`kling_async.integrations`); a segment
    that nobody can guess is added to it, and each create without an address of its own names the result, `callbacks.address`.
    With *webhook_secret*, or `KLING_WEBHOOK_SECRET`, only callbacks signed with it are heeded.

    *fit* `"auto"` brings pictures within the rules and tells what it changed, *verify* `"full"` decodes each one once, and
    each result, to see that it is sound; both need the extra `images`. *picture_cache* is how many bytes of pictures that several jobs
    use are kept ready to be sent.

    Raises `ConfigError` for credentials or options that cannot work.
    """

    # Where all its pauses come from; a test that is in a hurry has clients with another one.
    _clock = Clock()

    def __init__(
        self,
        *,
        api_key: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        accounts: Sequence[Account] | None = None,
        base_url: str | None = None,
        region: Literal["global", "cn"] | None = None,
        slots: int | Literal["auto"] | SlotStore = "auto",
        timeout: float | Timeouts | None = None,
        max_retries: int = 2,
        min_poll_interval: float = 0.5,
        session: aiohttp.ClientSession | StandIn | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        journal: str | PathLike[str] | None = None,
        callback_url: str | None = None,
        webhook_secret: str | None = None,
        on_event: Watcher | Iterable[Watcher] | None = None,
        fit: Literal["auto"] | None = None,
        verify: Literal["header", "full"] = "header",
        picture_cache: int = 64_000_000,
    ) -> None:
        self._store = None if isinstance(slots, int | str) else shared(slots)
        # A traceback may show local variables, so what is secret is in none from here on.
        given = Account("default", api_key=api_key, access_key=access_key, secret_key=secret_key)
        del api_key, access_key, secret_key
        try:
            settings = gather(
                api_key=given.api_key,
                access_key=given.access_key,
                secret_key=given.secret_key,
                accounts=accounts,
                slots=slots if self._store is None else "auto",
                address=base_url,
                region=region,
            )
            connection = Connection(base_url=settings.base_url, proxy=proxy_of(proxy), trust_env=trust_env)
            verifier = verifier_of(webhook_secret)
        except ConfigError as error:
            raise error.with_traceback(None) from None
        finally:
            del proxy, base_url, webhook_secret
        watchers, pictures = watchers_of(on_event), picture_rules(fit, verify)
        self._base_url = settings.base_url
        self._rules = Rules(
            timeouts=Timeouts.of(timeout), retries=count("max_retries", max_retries), pictures=pictures
        )
        self._engine = engine_of(
            settings,
            network_of(connection, session, count("picture_cache", picture_cache), self._clock),
            self._rules,
            seconds("min_poll_interval", min_poll_interval),
        )
        if self._store is not None:
            share(self._engine, self._store)
        self._engine.journal_path = None if journal is None else Path(journal)
        self._callbacks = callbacks_of(self._engine, callback_url, verifier)
        for watcher in watchers:
            self._engine.emitter.subscribe(watcher)
        caller = sys._getframe(1)  # noqa: SLF001  # to name the line in the warning about a client left open
        self._made_at = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        self._is_view = False
        self._asking: dict[str, Queries] = {}

    def _queries(self, path: str) -> Queries:
        if path not in self._asking:
            self._asking[path] = Queries(self._engine, self._rules, path)
        return self._asking[path]

    @property
    def images(self) -> Images:
        """The image endpoints."""
        return Images(MultiImageResource(self._queries(MultiImage.path)))

    @property
    def account(self) -> AccountResource:
        """What the service tells about the account."""
        return AccountResource(self._engine, self._rules)

    @property
    def callbacks(self) -> Callbacks:
        """What takes in callbacks, for apps and frameworks to drive."""
        return self._callbacks.get()

    def with_options(
        self,
        *,
        timeout: float | Timeouts | None = None,
        max_retries: int | None = None,
        fit: Literal["auto"] | None = None,
        verify: Literal["header", "full"] | None = None,
    ) -> Kling:
        """Return a view of this client with other limits or ways with pictures: same sessions, slots and poller."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._is_view = True
        view._asking = {}
        if timeout is not None:
            view._rules = evolve(view._rules, timeouts=Timeouts.of(timeout))
        if max_retries is not None:
            view._rules = evolve(view._rules, retries=count("max_retries", max_retries))
        now = view._rules.pictures
        if fit is not None or verify is not None:
            view._rules = evolve(view._rules, pictures=picture_rules(fit or now.fit, verify or now.verify))
        return view

    def batch(
        self,
        jobs: Iterable[Input] | AsyncIterable[Input],
        *,
        out: str | PathLike[str] | None = None,
        name: str = "{key}_{index}",
        journal: str | PathLike[str] | None = None,
        update: bool = False,
        total: int | None = None,
        budget: int | None = None,
        split: bool = False,
        in_order: bool = False,
        errors: Literal["collect", "raise"] = "collect",
        max_failures: int | None = None,
        task_timeout: float | None = 1800.0,
        stall_after: float = 600.0,
        fit: Literal["auto"] | None = None,
        verify: Literal["header", "full"] | None = None,
    ) -> Batch:
        """
        Run many jobs; outcomes come as they finish, from an iterable that may be endless.

        Use `async with kling.batch(jobs) as batch: async for outcome in batch`, or the loop alone. With *out*, a folder,
        pictures are saved to `out/images`, called *name*, and a line for each job to `out/results.jsonl`. *out* may also be
        an object store (`s3://`, `gs://`, `az://`; extra `cloud`); the lines are then beside the journal. *journal*, by default
        `out/journal.db`, keeps every job's state: the same jobs with the same journal continue where they were left,
        even by a crash. A job that changed under its key since then is an error unless *update*. *budget* is the most
        units to commit, earlier runs included; *total* how many jobs there are, for the statistics. A job of more pictures
        than the account has slots for is refused, or, with *split*, made as several tasks that come back as one outcome.
        *in_order* yields in the order of the jobs. `errors="raise"` ends the batch with the first failed
        job's error; *max_failures* after more failures than that. *task_timeout* bounds, in seconds, the wait for one
        task. After *stall_after* seconds in which the service accepted nothing, the batch ends with that error and
        the rest of the jobs stays undone. *fit* and *verify*, which also holds for results, are as for the client; each outcome tells what was
        `fitted`.
        """
        # The face of the package lies above its body: the one import that points downwards, made late.
        from kling_async.batch.batch import Batch, BatchOptions

        options = BatchOptions(
            out=out,
            name=name,
            journal=journal,
            update=update,
            total=total,
            budget=budget,
            split=split,
            in_order=in_order,
            errors=errors,
            max_failures=max_failures,
            task_timeout=task_timeout,
            stall_after=stall_after,
        )
        view = self.with_options(fit=fit, verify=verify)
        return Batch(self._engine, view._queries(MultiImage.path), jobs, options)  # noqa: SLF001  # a view of this client

    async def recover(
        self,
        jobs: Iterable[Input] | AsyncIterable[Input],
        *,
        out: str | PathLike[str],
        journal: str | PathLike[str] | None = None,
    ) -> Rebuilt:
        """
        Rebuild the lost or damaged journal of the run in *out* from its jobs and what the service has of them.

        Submits nothing, and moves the old journal aside. Takes what `batch()` took. Raises `JournalError` while a run holds it.
        """
        from kling_async.batch.options import BatchOptions
        from kling_async.batch.upkeep import rebuild

        options = BatchOptions(out=out, journal=journal)
        return await rebuild(self._engine, self._queries(MultiImage.path), jobs, options)

    async def fetch(
        self,
        *,
        out: str | PathLike[str],
        name: str = "{key}_{index}",
        verify: Literal["header", "full"] | None = None,
        journal: str | PathLike[str] | None = None,
    ) -> Fetched:
        """
        Fetch the pictures of the run in *out* that were never saved, are missing, or are damaged.

        Works for 30 days, and submits nothing. Takes what `batch()` took. Raises `JournalError` while a run holds the journal,
        `ConfigError` where there is none, `DownloadError` for a full disk.
        """
        from kling_async.batch.fetching import fetch
        from kling_async.batch.options import BatchOptions

        options = BatchOptions(out=out, name=name, journal=journal)
        view = self.with_options(verify=verify)
        return await fetch(view._queries(MultiImage.path), options)  # noqa: SLF001  # a view of this client

    async def __aenter__(self) -> Self:
        self._engine.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        Close the client: creates under way are waited for up to ten seconds, then everything ends. Safe to call again.

        Tasks that run at the service go on and will be charged.
        """
        try:
            await self._engine.aclose()
        finally:
            if self._store is not None:
                await self._store.aclose()

    def __repr__(self) -> str:
        if "_engine" not in self.__dict__:
            return "<Kling, not made>"  # in a traceback of what kept it from being made
        state = "closed" if self._engine.closed else f"{self._engine.watching} tasks"
        accounts = ", ".join(link.name for link in self._engine.links)
        return f"<Kling at {self._base_url}, accounts: {accounts}, {state}>"

    def __del__(self) -> None:
        # Nothing is cleaned up here: no loop may be running, and a task of its own would outlive everything.
        engine = self.__dict__.get("_engine")
        if engine is not None and not self._is_view and engine.is_open:
            warnings.warn(
                f"client made at {self._made_at} was not closed; use 'async with' or aclose()",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
