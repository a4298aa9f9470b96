"""
The receiver of callbacks, without any web framework: what comes in becomes a look at a task, and nothing else.

A callback is read piece by piece as an `Intake`, bounded before anything of it is kept. If it is genuine, or came to the
unguessable address where there is no secret, the poller asks the task that it names, if it is one of ours. There is no
queue that could fill: a hint is a mark on a row that exists already, and a lost one costs nothing but time, since polling goes on.
"""

from __future__ import annotations

import hmac
import logging
from http import HTTPStatus

from attrs import define, evolve, field, frozen

from kling_async.client.engine import Engine
from kling_async.errors import ConfigError
from kling_async.protocol.callbacks import Pairs, Recent, Verifier, gather_headers, read_hint

__all__ = ["PATIENCE", "CallbackCounts", "Callbacks", "Intake"]

_log = logging.getLogger("kling_async")

# The vendor's callbacks have some kilobytes at most: nine links of 700 characters, and their frame.
LARGEST_BODY = 64 * 1024
# Seconds for a whole body to arrive in.
PATIENCE = 10.0
# Bytes of bodies that may be held at once, whoever sends them.
_LARGEST_SUM = 64 * LARGEST_BODY
# Ids of callbacks that were taken: as long as a copy would pass for new (five minutes either way), and so many at most.
_REMEMBERED, _REPLAYS = 600.0, 20_000


@frozen(kw_only=True)
class CallbackCounts:
    """
    What became of the callbacks so far.

    *heeded* ones made the poller look; *unneeded* ones said that a task still runs, or named none that is waited for
    (most often since its end was seen already); *repeated* ones came before; *refused* ones were forged, malformed,
    too large or too slow.
    """

    heeded: int = 0
    unneeded: int = 0
    repeated: int = 0
    refused: int = 0


class Callbacks:
    """
    What takes in a client's callbacks: `kling.callbacks`.

    *address* is where the service is to send them, the unguessable last segment of its path included; None if the
    client was given no *callback_url*. The apps in `kling_async.integrations` drive this; for another framework, begin
    an `intake()` for each request, feed it and answer with the status that its `finish()` returns.
    """

    def __init__(self, engine: Engine, address: str | None, segment: str, verifier: Verifier | None) -> None:
        self.address = address
        self._segment = segment.encode()
        self._is_signed = verifier is not None
        self._receiver = _Receiver(engine, verifier)

    def __repr__(self) -> str:
        return f"<Callbacks, {'signed' if self._is_signed else 'unsigned'}, {self.statistics()}>"

    def statistics(self) -> CallbackCounts:
        """Return what became of the callbacks so far."""
        return self._receiver.counts

    def require(self) -> Callbacks:
        """Return self; raises `ConfigError` if the client has neither a secret nor an address of its own to know callbacks by."""
        if not self._is_signed and not self._segment:
            raise ConfigError(
                "callbacks: expected a client with callback_url= or webhook_secret=, found one with neither; "
                "without them anybody's callbacks would be heeded"
            )
        return self

    def intake(self, method: str, path: str, headers: Pairs) -> Intake:
        """Begin to take in a request, with its *headers* as they came; feed it its body next."""
        intake = Intake(self._receiver, gather_headers(headers))
        if not self._is_ours(path):
            intake.refuse(HTTPStatus.NOT_FOUND)
        elif method != "POST":
            intake.refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        return intake

    def _is_ours(self, path: str) -> bool:
        # Frameworks differ in what they leave of the path, but all of them leave its end. Signed ones may come anywhere.
        last = path.rstrip("/").rpartition("/")[2].encode(errors="replace")
        return self._is_signed or (hmac.compare_digest(last, self._segment) and bool(self._segment))


@define(eq=False)
class Intake:
    """One request under way; whoever drives it stops reading when it is `over`, and after `PATIENCE` seconds."""

    _receiver: _Receiver
    _headers: dict[str, str] = field(repr=False)
    _pieces: list[bytes] = field(factory=list, init=False, repr=False)
    _size: int = field(default=0, init=False)
    _refusal: HTTPStatus | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        length = self._headers.get("content-length", "0")
        coded = self._headers.get("content-encoding", "identity")
        # What a coded body holds may be of any size, and the service sends none.
        if coded != "identity" or not length.isdecimal() or len(length) > 9 or int(length) > LARGEST_BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @property
    def over(self) -> bool:
        """Whether the answer is known already, so that no more needs to be read."""
        return self._refusal is not None

    def refuse(self, status: HTTPStatus) -> None:
        """Settle the answer, whatever the body may hold; the first word counts."""
        self._refusal = self._refusal or status
        self._drop()

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if self.over:
            return
        if self._size + len(piece) > LARGEST_BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif not self._receiver.hold(len(piece)):
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._size += len(piece)
            self._pieces.append(piece)

    def finish(self, *, complete: bool = True) -> int:
        """
        Return the HTTP status to answer with, having heeded the callback if it is to be.

        A body that did not arrive in time is not *complete*. To be called once, also when its sender has gone.
        """
        if not complete:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT)
        body = b"".join(self._pieces)
        self._drop()
        if self._refusal is not None:
            return self._receiver.count("refused", self._refusal)
        return self._receiver.take(self._headers, body)

    def _drop(self) -> None:
        self._receiver.let_go(self._size)
        self._pieces.clear()
        self._size = 0


@define(eq=False)
class _Receiver:
    """What all intakes of a client share: the memory they hold, what came before, the counts, and the way to the poller."""

    _engine: Engine = field(repr=False)
    _verifier: Verifier | None
    counts: CallbackCounts = field(factory=CallbackCounts, init=False)
    _replays: Recent = field(factory=lambda: Recent(_REPLAYS, _REMEMBERED), init=False, repr=False)
    _held: int = field(default=0, init=False)
    _warned: set[str] = field(factory=set, init=False, repr=False)

    def hold(self, size: int) -> bool:
        """Count *size* more bytes as held; False if that is too much."""
        if self._held + size > _LARGEST_SUM:
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        """Count *size* bytes as held no more."""
        self._held -= size

    def count(self, name: str, status: HTTPStatus) -> HTTPStatus:
        """Count a callback as *name* and return *status*."""
        self.counts = evolve(self.counts, **{name: getattr(self.counts, name) + 1})
        return status

    def take(self, headers: dict[str, str], body: bytes) -> HTTPStatus:
        """Heed a whole callback, if it is to be."""
        if self._verifier is not None:
            checked = self._verifier.check(headers, body, self._engine.clock.wall())
            if not checked.genuine:
                return self._refuse(checked.fault, HTTPStatus.UNAUTHORIZED)
            if not self._replays.add(checked.message_id, self._engine.clock.now()):
                return self.count("repeated", HTTPStatus.OK)
        hint = read_hint(body)
        if hint is None:
            return self._refuse("expected a task, found another body", HTTPStatus.BAD_REQUEST)
        try:
            # The poller belongs to one loop, and to nobody once the client is closed.
            self._engine.enter()
        except ConfigError as error:
            return self._refuse(str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        heeded = hint.worth_a_look and self._engine.poller.hint(hint.task_id, hint.external_task_id)
        return self.count("heeded" if heeded else "unneeded", HTTPStatus.OK)

    def _refuse(self, why: str, status: HTTPStatus) -> HTTPStatus:
        # Once for each status: a stranger must not be able to fill the log.
        level = logging.DEBUG if status.name in self._warned else logging.WARNING
        self._warned.add(status.name)
        _log.log(level, "a callback was refused (HTTP %d): %s", status, why)
        return self.count("refused", status)
