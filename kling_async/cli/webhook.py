"""`webhook listen`: receive callbacks on this machine, look at them, and pass them on to an application under work."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import define, field

from kling_async.cli.environment import load_env_file
from kling_async.cli.lazy import Commands
from kling_async.cli.voice import SOME_FAILED, UsageError, Voice, finish, speaks
from kling_async.errors import TransportError

if TYPE_CHECKING:
    import anyio

    from kling_async.protocol.callbacks import Hint, Verifier
    from kling_async.transport.listener import Received

__all__ = ["webhook_command"]


@click.command(
    cls=Commands,
    name="webhook",
    epilog="\b\nExample:\n  kling-async webhook listen --forward-to http://127.0.0.1:8000/kling/hook",
)
def webhook_command() -> None:
    """Callbacks of the service, while you work on what receives them."""


@webhook_command.command(
    name="listen",
    epilog="""\b
Examples:
  kling-async webhook listen --forward-to http://127.0.0.1:8000/kling/hook
  KLING_WEBHOOK_SECRET=whsec_... kling-async webhook listen --count 1 --json
""",
)
@click.option(
    "--forward-to", metavar="URL", help="Address of your application; nothing is passed on without."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True, help="0: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--count", type=click.IntRange(min=1), metavar="NUMBER", help="End after so many callbacks.")
@speaks
def listen_command(*, voice: Voice, forward_to: str | None, port: int, host: str, count: int | None) -> None:
    """
    Receive callbacks, verify and show them, and pass them on.

    The service reaches only public addresses: let a tunnel lead to this one, or use kling-async emulator, which posts
    to this machine. What stands below the address is passed on too. With KLING_WEBHOOK_SECRET, set or in .env, only
    what is signed with it is passed on. Ctrl-C ends it: exit 0 if all that came was genuine and delivered, else 1.
    """
    import anyio

    from kling_async.client.settings import verifier_of

    load_env_file(Path.cwd() / ".env", os.environ)
    if forward_to is not None and not forward_to.startswith(("http://", "https://")):
        raise UsageError(
            f"--forward-to: expected an http(s) URL, found {forward_to!r}; write the whole address"
        )
    desk = Desk(voice, forward_to, verifier_of(None), count)
    anyio.run(desk.serve, host, port)
    finish(SOME_FAILED if desk.failed else 0)


@define(eq=False)
class Desk:
    """Takes what comes, shows it and passes it on; *left* callbacks more, for ever if None."""

    _voice: Voice
    _forward_to: str | None
    _verifier: Verifier | None
    left: int | None
    failed: int = field(default=0, init=False)
    _stop: anyio.Event = field(init=False)

    async def serve(self, host: str, port: int) -> None:
        """Listen until Ctrl-C, or until enough has come."""
        import asyncio

        import anyio

        from kling_async.transport.listener import listen

        self._stop = anyio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._stop.set))
        async with listen(host, port, self.take) as found:
            address = f"http://{f'[{host}]' if ':' in host else host}:{found}"
            self._introduce(address)
            await self._stop.wait()

    def _introduce(self, address: str) -> None:
        if self._voice.json:
            self._voice.emit(
                {"url": address, "forward_to": self._forward_to, "verified": self._verifier is not None}
            )
            sys.stdout.flush()
        checks = "verified" if self._verifier else "not verified, as KLING_WEBHOOK_SECRET is not set"
        onward = f" and passed on to {self._forward_to}" if self._forward_to else ""
        self._voice.say(f"callbacks at {address} are {checks}{onward}; Ctrl-C ends it", bold=True)

    async def take(self, received: Received) -> int:
        """Take one request: what is not genuine goes no further."""
        from kling_async.protocol.callbacks import gather_headers, read_hint

        headers = gather_headers(received.headers)
        fault = self._verifier.check(headers, received.body, time.time()).fault if self._verifier else ""
        answer, error = await self._pass_on(received) if not fault else (None, "")
        self.failed += bool(fault or error or (answer or 200) >= 400)
        self._show(
            read_hint(received.body),
            received,
            headers.get("webhook-id"),
            fault=fault,
            answer=answer,
            error=error,
        )
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self._stop.set()
        if fault:
            return 401
        return 502 if error else answer or 200

    async def _pass_on(self, received: Received) -> tuple[int | None, str]:
        from kling_async.transport.listener import forward

        if self._forward_to is None:
            return None, ""
        try:
            return await forward(received, self._forward_to), ""
        except TransportError as error:
            return None, str(error)

    def _show(self, hint: Hint | None, received: Received, message_id: str | None, **became: Any) -> None:
        task_id = (hint.task_id or hint.external_task_id) if hint else ""
        status = hint.status.value if hint and hint.status else ""
        if self._voice.json:
            self._voice.emit(
                {
                    "at": round(time.time(), 3),
                    "webhook_id": message_id,
                    "genuine": None if self._verifier is None else not became["fault"],
                    "fault": became["fault"] or None,
                    "task_id": hint.task_id if hint else None,
                    "external_task_id": hint.external_task_id if hint else None,
                    "status": status or None,
                    "answer": became["answer"],
                    "error": became["error"] or None,
                    "body": _json_of(received.body),
                }
            )
        else:
            word = "refused" if became["fault"] else "genuine" if self._verifier else "unsigned"
            said = f"{time.strftime('%H:%M:%S')} {word:<8} {_plain(task_id) or 'no task':<20} {_plain(status):<10}"
            end = became["fault"] or became["error"] or (f"-> {became['answer']}" if became["answer"] else "")
            self._voice.data(f"{said} {end}".rstrip())
        sys.stdout.flush()


def _plain(text: str) -> str:
    # A stranger wrote it, and a terminal obeys some characters.
    return "".join(ch if ch.isprintable() else "?" for ch in text)[:64]


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
