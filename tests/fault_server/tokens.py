"""Checks `Authorization` as the service does (codes 1000 to 1004), without any JWT library: an oracle shares no code."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any

from attrs import define, field

__all__ = ["Gate"]

_MALFORMED = (1002, "The token was expected to have 3 parts, but got 0")


@define(eq=False)
class Gate:
    """Knows one account. A token's signature is worked out once; its times are compared at each request."""

    access_key: str = "ak-fault-server"
    secret_key: str = field(default="sk-fault-server-0123456789abcdef0123456789", repr=False)
    api_key: str = field(default="key-fault-server-0123456789abcdef", repr=False)
    leeway: float = 0.0
    _known: dict[str, dict[str, Any] | None] = field(factory=dict, repr=False, init=False)

    @property
    def tokens(self) -> int:
        """How many different tokens (or nonsense in their place) were shown so far."""
        return len(self._known)

    def refusal(self, header: str | None, wall: float) -> tuple[int, str] | None:
        """Return the code and message to refuse with, or None if *header* opens the gate at *wall* seconds."""
        if not header:
            return 1001, "Authorization is empty"
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" or not token:
            return 1002, "Authorization is invalid"
        if hmac.compare_digest(token.encode(), self.api_key.encode()):
            return None
        if token not in self._known:
            self._known[token] = self._claims(token)
        claims = self._known[token]
        return _MALFORMED if claims is None else self._by_time(claims, wall)

    def _by_time(self, claims: dict[str, Any], wall: float) -> tuple[int, str] | None:
        if claims.get("iss") != self.access_key:
            return 1000, "Authentication failed"
        if claims["exp"] + self.leeway <= wall:
            return 1004, "Authorization has expired"
        if claims.get("nbf", 0) - self.leeway > wall:
            return 1003, "Authorization is not yet valid"
        return None

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            head, payload, signature = token.split(".")
            if json.loads(_unpack(head)).get("alg") != "HS256":
                return None
            made = hmac.digest(self.secret_key.encode(), f"{head}.{payload}".encode(), hashlib.sha256)
            claims = json.loads(_unpack(payload))
            sound = hmac.compare_digest(made, _unpack(signature)) and isinstance(claims["exp"], (int, float))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            return None
        return claims if sound else None


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
