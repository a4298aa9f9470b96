"""
Callbacks of the service: whether one is genuine, which task it is about, and whether it came before.

A callback is only ever a hint that a task is worth a look (R24): nothing that it says is believed, and no address in
it is ever asked. Since 2026-08 the vendor signs callbacks after the Standard Webhooks scheme, if a secret was made.
Pure: the time comes in as an argument.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit, urlunsplit

from attrs import define, field, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.auth import Credentials, KeyPair
from kling_async.protocol.jobs import LONGEST_URL
from kling_async.protocol.scalars import text
from kling_async.protocol.tasks import TaskStatus

__all__ = ["Checked", "Hint", "Recent", "Verifier", "gather_headers", "private_address", "read_hint", "sign"]

Pairs: TypeAlias = Iterable[tuple[bytes, bytes] | tuple[str, str]]

_PREFIX = "whsec_"
# The vendor's window around a callback's time, in seconds.
_WINDOW = 300
# Longer than anything the scheme or the vendor shows. During a rotation of the secret there are two signatures.
_LONGEST_ID = 256
_MOST_SIGNATURES = 16
# Characters that a client adds to an address: a slash and 24 bytes in base64.
_ROOM = 33


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """
    Return the `webhook-signature` of a callback: `v1,` and the base64 of an HMAC-SHA256.

    *secret* is the vendor's, `whsec_` and base64; ConfigError if it is not. *timestamp* is in seconds since 1970.
    """
    return _signature(_key(secret), message_id, str(timestamp), body)


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        # The secret itself must not appear in the message.
        raise ConfigError(
            "expected a webhook secret of the form whsec_<base64>, found another text; copy it from the Kling console"
        )
    return key


# Whether a callback is genuine.


def gather_headers(pairs: Pairs) -> dict[str, str]:
    """Return headers as text by their lower-case names; a name that comes twice has its values joined by commas."""
    found: dict[str, str] = {}
    for name, value in pairs:
        name_text, value_text = _latin(name).lower(), _latin(value)
        found[name_text] = f"{found[name_text]}, {value_text}" if name_text in found else value_text
    return found


def _latin(value: bytes | str) -> str:
    # Every byte is a character of Latin-1, so nothing that a stranger sends can fail here.
    return value if isinstance(value, str) else value.decode("latin-1")


@frozen
class Checked:
    """What became of a check: the id of a genuine callback, or the *fault* of another."""

    message_id: str
    fault: str = ""

    @property
    def genuine(self) -> bool:
        """Whether the signature holds and the time is right."""
        return not self.fault


@frozen
class Verifier:
    """Tells the callbacks of whoever has the secret from those of strangers."""

    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> Verifier:
        """Take the vendor's *secret*, `whsec_` and base64; raises `ConfigError` if it is another text."""
        return cls(_key(secret))

    def check(self, headers: Mapping[str, str], body: bytes, now: float) -> Checked:
        """
        Check a callback; *headers* have lower-case names, *body* is as it came, *now* is Unix time.

        Never raises, whatever a stranger wrote. One signature that fits is enough, since there are two while the
        secret is being replaced; the comparison takes the same time wherever they differ.
        """
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        fault = _fault_of_id(message_id) or _fault_of_time(timestamp, now)
        if fault:
            return Checked("", fault)
        given = headers.get("webhook-signature", "").split(" ", _MOST_SIGNATURES)[:_MOST_SIGNATURES]
        wanted = _signature(self._key, message_id, timestamp, body).encode()
        fits = False
        for signature in given:
            fits |= hmac.compare_digest(wanted, signature.encode(errors="replace"))
        if not fits:
            return Checked("", "expected a webhook-signature made with our secret, found none that is")
        return Checked(message_id)


def _fault_of_id(message_id: str) -> str:
    if not message_id:
        return "expected a webhook-id, found none"
    if len(message_id) > _LONGEST_ID or not message_id.isascii():
        return f"expected a webhook-id of at most {_LONGEST_ID} ASCII characters, found another text"
    return ""


def _fault_of_time(timestamp: str, now: float) -> str:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return "expected a webhook-timestamp in whole seconds, found another text or none"
    late = now - int(timestamp)
    if abs(late) > _WINDOW:
        side = "old" if late > 0 else "in the future"
        return f"expected a webhook-timestamp of the last {_WINDOW} s, found one {abs(late):.0f} s {side}; check the clock"
    return ""


# Which task it is about.


@frozen(kw_only=True)
class Hint:
    """What a callback says; *status* is None if it tells none. Believed by nobody."""

    task_id: str = ""
    external_task_id: str = ""
    status: TaskStatus | None = None

    @property
    def worth_a_look(self) -> bool:
        """Whether it says, or may mean, that the task has ended."""
        return self.status is None or self.status.rank == 2 or self.status == TaskStatus.UNKNOWN


def read_hint(body: bytes) -> Hint | None:
    """
    Read a callback; None if it names no task.

    A task of the legacy dialect (`task_id`, `task_status`) or of the new one (`id`, `status`), bare or in an envelope.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for shown in (document, document.get("data") if isinstance(document, dict) else None):
        if isinstance(shown, dict) and (hint := _hint(shown)) is not None:
            return hint
    return None


def _hint(shown: Mapping[str, Any]) -> Hint | None:
    legacy = "task_id" in shown or "task_info" in shown
    task_id = _id(shown.get("task_id" if legacy else "id"))
    info = shown.get("task_info")
    inner = info.get("external_task_id") if isinstance(info, dict) else None
    external = _id(inner) or _id(shown.get("external_task_id")) or _id(shown.get("external_id"))
    if not task_id and not external:
        return None
    word = text(shown.get("task_status" if legacy else "status"))
    return Hint(task_id=task_id, external_task_id=external, status=TaskStatus(word) if word else None)


def _id(value: object) -> str:
    found = text(value)
    return found if len(found) <= _LONGEST_ID else ""


# Whether it came before.


@define(eq=False)
class Recent:
    """
    Names that came in the last *seconds*, at most *capacity* of them: of more, the oldest are forgotten.

    What a stranger can fill it with is bounded, and forgetting one only means to look at a task once more.
    """

    capacity: int
    seconds: float
    _until: dict[str, float] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, name: str, now: float) -> bool:
        """Note *name*; return whether it is new."""
        self._forget(now)
        if name in self._until:
            return False
        if len(self._until) >= self.capacity:
            del self._until[next(iter(self._until))]
        self._until[name] = now + self.seconds
        return True

    def take(self, name: str, now: float) -> bool:
        """Forget *name*; return whether it was there."""
        until = self._until.pop(name, None)
        return until is not None and now < until

    def _forget(self, now: float) -> None:
        # In the order of their coming, so the first that is not over ends the search.
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]


# Where callbacks are sent.


def private_address(callback_url: str, credentials: Iterable[Credentials]) -> tuple[str, str]:
    """
    Return *callback_url* with an unguessable last segment in its path, and that segment.

    The segment is made from the credentials, so that all processes of one account and each restart have the same;
    it tells nothing of them. Raises `ConfigError` for what is no http(s) address or would be longer than the service takes.
    """
    parts = _parts(callback_url)
    if parts is None or len(callback_url) > LONGEST_URL - _ROOM:
        raise ConfigError(
            f"callback_url: expected an http(s) URL of at most {LONGEST_URL - _ROOM} ASCII characters, "
            "found something else; write the address that the service can reach"
        )
    segment = _segment(callback_url, credentials)
    path = f"{parts.path.rstrip('/')}/{segment}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), segment


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return None
    return parts if valid and url.isascii() and not any(ch.isspace() for ch in url) else None


def _segment(callback_url: str, credentials: Iterable[Credentials]) -> str:
    secrets = sorted(each.secret_key if isinstance(each, KeyPair) else each.key for each in credentials)
    key = hmac.digest(b"kling-async callback path", "\n".join(secrets).encode(), "sha256")
    return base64.urlsafe_b64encode(hmac.digest(key, callback_url.encode(), "sha256")[:24]).decode()
