"""
What shall go wrong, as data: a fault names a route, a phase of the request and an action.

Faults of one phase are tried in the order in which they were added, and the first that fits is the only one, so
two resets in a row hit two requests and not one twice. Only what makes slow lets others follow.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from attrs import Attribute, define, field, frozen

__all__ = ["Action", "Fault", "Phase", "Script"]

# connect   a connection was accepted, nothing read          (route unknown)
# idle      a kept-alive connection waits for its next one   (route unknown)
# head      the request's head was read, its body was not
# read      the whole request was read, nothing was decided: a create is not accepted yet
# accepted  decided and written into the books, not answered
# status    while the status line and the headers are sent
# body      while the body is sent
Phase = Literal["connect", "idle", "head", "read", "accepted", "status", "body"]

Action = Literal[
    "rst", "fin", "hang", "delay",
    "reply", "refuse", "redirect", "bomb", "bad_gzip",
    "edit",
    "headers", "garbage",
    "truncate", "drip", "throttle", "lie",
]  # fmt: skip

_CUTS = frozenset({"rst", "fin", "hang"})
_REPLIES = frozenset({"reply", "refuse", "redirect", "bomb", "bad_gzip"})
_SETTLES = _CUTS | _REPLIES
_SLOWS = frozenset({"delay", "drip", "throttle"})

_ALLOWED: Mapping[str, frozenset[str]] = {
    "connect": _CUTS | {"delay"},
    "idle": _CUTS | {"delay"},
    "head": _SETTLES | {"delay"},
    "read": _SETTLES | {"delay"},
    "accepted": _SETTLES | {"delay", "edit"},
    "status": _CUTS | {"headers", "garbage", "drip"},
    "body": frozenset({"truncate", "drip", "throttle", "lie"}),
}


def _check_action(fault: Fault, _: Attribute[Action], value: str) -> None:
    if value not in _ALLOWED[fault.phase]:
        expected = ", ".join(sorted(_ALLOWED[fault.phase]))
        message = f"expected one of {expected} in phase {fault.phase!r}, got {value!r}"
        raise ValueError(message)


def _check_phase(_: Fault, __: Attribute[Phase], value: str) -> None:
    if value not in get_args(Phase):
        message = f"expected one of {', '.join(get_args(Phase))}, got {value!r}"
        raise ValueError(message)


def _pairs(value: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(text)) for name, text in value)


@frozen(kw_only=True)
class Fault:
    """
    One trouble. *skip* matching requests pass first, then *times* are hit (None: all that follow).

    *match* must occur in the request's path, external id or prompt (the last two are known from phase `read` on).
    *reused* asks for a connection that has (or has not) carried a request before. The rest are parameters of the
    actions: *seconds* (hang: how long before a reset, None for ever; delay; drip: between pieces), *size* (drip:
    bytes a piece; throttle: bytes a second; truncate: bytes kept; lie: added to Content-Length; bomb: bytes
    unpacked), *status*, *code*, *text*, *headers* (reply, refuse, headers), *fields* (edit: dotted path to value,
    `"!drop"` removes), *framing*, *then* (what follows a truncation), *to* (redirect: a URL, or `self`).
    """

    phase: Phase = field(validator=_check_phase)
    action: Action = field(validator=_check_action)
    route: str = "*"
    skip: int = 0
    times: int | None = 1
    match: str = ""
    reused: bool | None = None
    probability: float = 1.0

    seconds: float | None = None
    size: int = 0
    status: int = 200
    code: int = 0
    text: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs)
    fields: Mapping[str, Any] = field(factory=dict)
    framing: Literal["length", "chunked", "none"] = "length"
    then: Literal["fin", "rst", "hang"] = "fin"
    to: str = "self"

    @property
    def name(self) -> str:
        """Say phase and action as one word, for the log."""
        return f"{self.phase}:{self.action}"


@define
class _Entry:
    fault: Fault
    seen: int = 0
    hit: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.hit >= self.fault.times


@define(eq=False)
class Script:
    """The faults still to come, and how often each has struck; *seed* decides where a probability is given."""

    seed: int = 0
    _entries: list[_Entry] = field(factory=list, init=False)
    _dice: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def __len__(self) -> int:
        """Count the faults that can still strike."""
        return sum(not entry.spent for entry in self._entries)

    def add(self, *faults: Fault) -> None:
        """Append *faults*."""
        self._entries.extend(_Entry(fault) for fault in faults)

    def clear(self) -> None:
        """Forget all faults."""
        self._entries.clear()

    def hits(self) -> int:
        """Count the requests (or connections) that were hit so far."""
        return sum(entry.hit for entry in self._entries)

    def take(self, phase: Phase, route: str, text: str = "", *, reused: bool = False) -> Iterator[Fault]:
        """Yield the faults that strike now: any that make slow, and one other."""
        if not self._entries:
            return
        for entry in self._entries:
            fault = entry.fault
            if fault.phase != phase or fault.route not in {"*", route} or entry.spent:
                continue
            if fault.match not in text or fault.reused not in {None, reused}:
                continue
            entry.seen += 1
            if entry.seen <= fault.skip or self._dice.random() >= fault.probability:
                continue
            entry.hit += 1
            yield fault
            if fault.action not in _SLOWS:
                return
