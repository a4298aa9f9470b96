"""Run a server in a process of its own: `python -m fault_server '{"settings": {...}, "seed": 7}'`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from .control import Control
from .script import Script
from .server import FaultServer
from .service import Service, Settings


async def _serve(options: dict[str, Any]) -> None:
    service = Service(Settings.from_json(options.get("settings", {}), Settings()))
    server = FaultServer(service, Script(options.get("seed", 0)), port=options.get("port", 0))
    async with server, Control(server) as control:
        gate = service.gate
        told = {"url": server.url, "control": control.url, "api_key": gate.api_key}
        told |= {"access_key": gate.access_key, "secret_key": gate.secret_key}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        # The parent holds the other end of our standard input; when it dies, however, we see the end of it.
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))
