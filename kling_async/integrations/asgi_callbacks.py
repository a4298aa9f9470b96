"""The receiver of callbacks as an ASGI app; it needs nothing but the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio

from kling_async.client.callbacks import PATIENCE, Intake
from kling_async.client.kling import Kling

__all__ = ["App", "Message", "Receive", "Scope", "Send", "attend_lifespan", "callbacks"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def callbacks(kling: Kling, *, patience: float = PATIENCE) -> App:
    """
    Return an ASGI app that takes in the callbacks of *kling*.

    Mount it at the path of the client's *callback_url*; what lies below that path is its own. It answers 200 to what it
    took, also when that changed nothing, and an error to everything else; nothing that arrives can raise here. A body
    may take *patience* seconds to arrive.

    Raises `ConfigError` if the client has neither a *callback_url* nor a *webhook_secret*.
    """
    receiver = kling.callbacks.require()

    # A function and no object with __call__: some frameworks look whether an app is a coroutine function.
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            intake = receiver.intake(scope["method"], scope["path"], scope["headers"])
            await _answer(intake, patience, receive, send)
        elif scope["type"] == "lifespan":
            await attend_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _answer(intake: Intake, patience: float, receive: Receive, send: Send) -> None:
    complete = False
    with anyio.move_on_after(patience):
        complete = await _read(intake, receive)
    status = intake.finish(complete=complete)
    headers = [(b"content-length", b"0")]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _read(intake: Intake, receive: Receive) -> bool:
    """Read the body; False if its sender went away before its end."""
    while not intake.over:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        intake.feed(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return True


async def attend_lifespan(receive: Receive, send: Send) -> None:
    """Say that all is well, for as long as the server runs."""
    # The client has an owner that opens and closes it; servers and dispatchers only want to hear that all is well.
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
