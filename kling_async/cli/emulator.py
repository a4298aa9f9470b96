"""`emulator`: the local copy of the Kling API, for anything that speaks HTTP."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from kling_async.cli.voice import UsageError, Voice, speaks
from kling_async.errors import ConfigError

if TYPE_CHECKING:
    from kling_async.emulator import Emulator, EmulatorSettings

__all__ = ["emulator_command"]


@click.command(
    name="emulator",
    epilog="""\b
Examples:
  kling-async emulator --port 8080 --speed 20x
  kling-async emulator --chaos "1303:5%,drop-after-accept:1%,html-502:1%"
""",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 takes a free one.  [default: 0]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-remote", is_flag=True, help="Let other machines in, with a --host that they can reach."
)
@click.option(
    "--slots", type=click.IntRange(min=1), default=9, show_default=True, help="Slots of the account."
)
@click.option(
    "--speed", default="20x", show_default=True, metavar="20x|instant|manual", help="How time passes."
)
@click.option(
    "--units",
    type=click.FloatRange(min=0),
    default=1_000_000,
    show_default=True,
    help="Units of the account.",
)
@click.option("--chaos", default="", metavar="SPEC", help="Faults, such as 1303:5%,delay@get=2:10%.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--paint",
    type=click.Choice(["composite", "stamp"]),
    default="composite",
    show_default=True,
    help="What pictures show: those that were given, or a stamp, which is quick.",
)
@speaks
def emulator_command(*, voice: Voice, chaos: str, **options: Any) -> None:
    """
    Serve a local copy of the Kling API. Nothing is sent to the service and nothing is charged.

    It listens on this machine only unless told otherwise, and ends with Ctrl-C.
    """
    import anyio

    from kling_async.emulator import EmulatorSettings, Faults

    try:
        settings = EmulatorSettings(faults=Faults.parse(chaos), **options)
    except ConfigError as error:
        raise UsageError(error.message) from error
    anyio.run(_serve, settings, voice)


async def _serve(settings: EmulatorSettings, voice: Voice) -> None:
    import anyio

    from kling_async.emulator import Emulator

    stop = anyio.Event()
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        async with Emulator(settings) as emulator:
            _introduce(emulator, voice)
            await stop.wait()
    except OSError as error:
        raise ConfigError(
            f"emulator: expected a free address, found {settings.host}:{settings.port} taken or not there "
            f"({error.strerror}); choose another --port or --host"
        ) from error


def _introduce(emulator: Emulator, voice: Voice) -> None:
    keys = {
        "url": emulator.url,
        "api_key": emulator.api_key,
        "access_key": emulator.access_key,
        "secret_key": emulator.secret_key,
    }
    if voice.json:
        voice.emit(keys)
    else:
        voice.data(f"export KLING_BASE_URL={emulator.url}")
        voice.data(f"export KLING_API_KEY={emulator.api_key}")
    sys.stdout.flush()
    voice.say(
        f"EMULATED Kling API at {emulator.url}: {emulator.settings.slots} slots; Ctrl-C ends it", bold=True
    )
