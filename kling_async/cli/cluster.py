"""`run --engine dask://…`: the same manifest, journal and folder, the jobs done by the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import click

from kling_async.cli.earlier import Command
from kling_async.cli.environment import writable_folder
from kling_async.cli.interrupts import two_stages
from kling_async.cli.money import plural
from kling_async.cli.voice import SOME_FAILED, Voice, error_fields, exit_code
from kling_async.errors import ClusterLost, ConfigError, KlingError, MissingExtra
from kling_async.scale.driver import Driver
from kling_async.scale.stage import KlingStage

if TYPE_CHECKING:
    from kling_async.cli.environment import Connection
    from kling_async.cli.running import Settings

__all__ = ["run_on_cluster", "scheduler_of"]

_SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
# Seconds to reach the scheduler.
_CONNECT = 20.0


def scheduler_of(engine: str) -> str:
    """Return Dask's address for *engine*; raises `ConfigError` for what is none."""
    scheme, separator, rest = engine.partition("://")
    if not separator or not rest or scheme not in _SCHEMES:
        raise ConfigError(f"--engine: expected dask://host:8786 or dask+tls://host:8786, found {engine}")
    return f"{_SCHEMES[scheme]}://{rest}"


async def run_on_cluster(settings: Settings, voice: Voice) -> int:
    """Run the manifest on the cluster to its end and return the exit code."""
    from kling_async.cli.intake import open_manifest
    from kling_async.scale.dask import DaskEngine

    assert settings.engine is not None, "called for an engine"
    if isinstance(settings.out, str):
        raise ConfigError(
            f"-o: expected a folder that this machine and all workers see, found {settings.out}; a cluster knows no stores"
        )
    rows = open_manifest(settings.manifest, {})
    stage = KlingStage(
        run="",  # the folder has the name
        slots_store=settings.slots_store,
        limit=settings.slots,
        base_url=settings.connection.base_url,
        region=settings.connection.region,  # type: ignore[arg-type]  # click has checked it
    )
    async with _connected(scheduler_of(settings.engine)) as client:
        writable_folder(settings.out)
        Command(manifest=str(settings.manifest.absolute()), emulated=False).keep(
            settings.out, emulated=await _is_emulated(settings.connection)
        )
        voice.say(f"engine    {settings.engine}")
        voice.say(f"output    {settings.out}, as the workers see it too")
        if settings.asks and not click.confirm("Go on?", err=True):
            voice.say("nothing was sent")
            return 0
        driver = Driver(
            DaskEngine(client),
            stage,
            settings.out,
            journal_path=settings.journal,
            budget=settings.budget,
            on_row=_Teller(voice).tell,
        )
        error: KlingError | None = None
        scope = anyio.CancelScope()
        with two_stages(driver.stop, scope.cancel, os._exit) as interruption, scope:
            try:
                await driver.run(rows)
            except KlingError as trouble:
                error = trouble
    code = interruption.exit_code or (exit_code(error) if error else 0)
    return _report(settings, driver, voice, error, code)


async def _is_emulated(connection: Connection) -> bool:
    try:
        async with connection.open() as kling:
            return await kling.account.is_emulated()
    except KlingError:
        return False  # only the workers have credentials


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("--engine needs Dask: pip install 'kling-async[cli,dask]'", "dask") from error
    try:
        make: Any = Client  # which has no types
        client = await make(address, asynchronous=True, timeout=_CONNECT, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ClusterLost(
            f"expected a Dask scheduler at {address}, found none; start it and run again"
        ) from error
    try:
        yield client
    finally:
        with anyio.move_on_after(5, shield=True):
            await client.close(timeout=2)


class _Teller:
    """Says how far the run is, every hundredth row."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._rows = 0

    def tell(self, row: Mapping[str, Any]) -> None:
        """Take in one row."""
        self._rows += 1
        if row["error"] is not None:
            self._voice.warn(f"{row['key']}: {row['error']['message']}")
        if self._rows % 100 == 0:
            self._voice.say(f"{self._rows:,} rows")


def _report(settings: Settings, driver: Driver, voice: Voice, error: KlingError | None, code: int) -> int:
    from kling_async.cli.gallery import write_at_the_end

    counts = driver.counts
    gallery = write_at_the_end(settings.home, sum(counts.values()) - counts["unfinished"], voice)
    undone = counts["failed"] + counts["failed before"] + counts["unfinished"]
    code = code or (SOME_FAILED if undone else 0)
    if voice.json:
        voice.emit(
            {
                "succeeded": counts["succeeded"],
                "failed": counts["failed"],
                "unfinished": counts["unfinished"],
                "skipped": counts["done before"] + counts["failed before"],
                "failed_before": counts["failed before"],
                "units": driver.units,
                "out": str(settings.out),
                "error": error_fields(error) if error else None,
                "exit_code": code,
            }
        )
    voice.say(
        f"{plural(counts['succeeded'], 'job')} done, {counts['failed']:,} failed, {counts['done before']:,} done before",
        bold=True,
    )
    if gallery is not None:
        voice.say(f"gallery   {gallery.page}")
    if error is not None:
        voice.warn(f"error: {error}")
    if code:
        voice.say(f"go on     {settings.again()}")
    return code
