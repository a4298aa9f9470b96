"""The troubles by name: short ways to write the faults of the fault matrix."""

from __future__ import annotations

from typing import Any

from .script import Fault, Phase

__all__ = [
    "bad_gzip",
    "big_header",
    "bomb",
    "captive_portal",
    "cut",
    "delay",
    "double_length",
    "drip",
    "edit",
    "empty",
    "garbage",
    "html",
    "lie",
    "plain_text",
    "raw",
    "redirect",
    "refuse",
    "stale",
    "throttle",
    "truncate",
]

_PORTAL = "<!doctype html><title>Welcome to the hotel</title><form action=/login>"


def _phase(accepted: bool) -> Phase:  # noqa: FBT001 - private, and always given by name at the callers
    return "accepted" if accepted else "read"


def cut(action: Any, phase: Phase, route: str = "create", **rest: Any) -> Fault:
    """`rst`, `fin` or `hang` in a *phase*."""
    return Fault(route=route, phase=phase, action=action, **rest)


def delay(seconds: float, phase: Phase = "accepted", route: str = "create", **rest: Any) -> Fault:
    """Wait before going on."""
    return Fault(route=route, phase=phase, action="delay", seconds=seconds, **rest)


def html(status: int, route: str = "create", *, accepted: bool = False, **rest: Any) -> Fault:
    """Answer a gateway's error page; *accepted* tells whether the request had its effect before."""
    text = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>"
    options = {"text": text, "headers": (("Content-Type", "text/html"),)} | rest
    return Fault(route=route, phase=_phase(accepted), action="reply", status=status, **options)


def captive_portal(route: str = "create", **rest: Any) -> Fault:
    """Answer 200 with a login page that is none of the service's."""
    return html(200, route, text=_PORTAL, **rest)


def empty(status: int, route: str = "create", *, accepted: bool = False, **rest: Any) -> Fault:
    """Answer *status* without a body."""
    return Fault(route=route, phase=_phase(accepted), action="reply", status=status, **rest)


def raw(text: str, status: int = 200, route: str = "create", *, accepted: bool = False, **rest: Any) -> Fault:
    """Answer exactly this *text*, as JSON."""
    return Fault(route=route, phase=_phase(accepted), action="reply", status=status, text=text, **rest)


def refuse(code: int, route: str = "create", *, accepted: bool = False, **rest: Any) -> Fault:
    """Refuse with a service *code*; `status=` overrides the table's HTTP status, `headers=` adds Retry-After."""
    return Fault(route=route, phase=_phase(accepted), action="refuse", code=code, **({"status": 0} | rest))


def edit(changes: dict[str, Any], route: str = "create", **rest: Any) -> Fault:
    """Change fields of the true answer: dotted path to new value, `"!drop"` removes."""
    return Fault(route=route, phase="accepted", action="edit", fields=changes, **rest)


def plain_text(route: str = "create", **rest: Any) -> Fault:
    """Serve the true JSON as text/plain."""
    return edit({}, route, headers=(("Content-Type", "text/plain"),), **rest)


def redirect(
    status: int, to: str = "self", route: str = "create", *, accepted: bool = False, **rest: Any
) -> Fault:
    """Redirect to a URL, or with `self` to another path here which would accept the request."""
    return Fault(route=route, phase=_phase(accepted), action="redirect", status=status, to=to, **rest)


def bomb(size: int = 300_000_000, route: str = "create", *, accepted: bool = True, **rest: Any) -> Fault:
    """Answer about *size* / 1000 bytes that unpack to *size*."""
    return Fault(route=route, phase=_phase(accepted), action="bomb", size=size, **rest)


def bad_gzip(route: str = "create", *, accepted: bool = True, **rest: Any) -> Fault:
    """Announce gzip and send something else."""
    return Fault(route=route, phase=_phase(accepted), action="bad_gzip", **rest)


def garbage(route: str = "create", **rest: Any) -> Fault:
    """Send no HTTP at all."""
    return Fault(route=route, phase="status", action="garbage", **rest)


def big_header(size: int = 20_000, route: str = "create", **rest: Any) -> Fault:
    """Send a header of *size* bytes; aiohttp takes 8190."""
    return Fault(route=route, phase="status", action="headers", headers=(("X-Big", "a" * size),), **rest)


def double_length(route: str = "create", **rest: Any) -> Fault:
    """Send a second Content-Length that contradicts the first."""
    return Fault(route=route, phase="status", action="headers", headers=(("Content-Length", "7"),), **rest)


def truncate(framing: Any = "length", route: str = "create", **rest: Any) -> Fault:
    """Send half of the body (or *size* bytes), then FIN (or `then=`)."""
    return Fault(route=route, phase="body", action="truncate", framing=framing, **rest)


def drip(seconds: float, route: str = "create", **rest: Any) -> Fault:
    """Send the body one byte (or *size*) each *seconds*."""
    return Fault(route=route, phase="body", action="drip", seconds=seconds, **rest)


def throttle(size: int, route: str = "create", **rest: Any) -> Fault:
    """Send the body at *size* bytes a second."""
    return Fault(route=route, phase="body", action="throttle", size=size, **rest)


def lie(size: int, route: str = "create", **rest: Any) -> Fault:
    """Send a Content-Length that is wrong by *size*; too long a one is followed by a wait for the client."""
    return Fault(route=route, phase="body", action="lie", size=size, **rest)


def stale(route: str = "*", **rest: Any) -> Fault:
    """Close a kept-alive connection in the moment its next request has arrived, as proxies do."""
    return Fault(route=route, phase="head", action="fin", reused=True, **rest)
