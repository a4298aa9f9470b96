"""
The signature of callbacks, after the Standard Webhooks scheme that the vendor uses since 2026-08.

Pure: the time and the id of a message come in as arguments.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from kling_async.errors import ConfigError

__all__ = ["sign"]

_PREFIX = "whsec_"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """
    Return the `webhook-signature` of a callback: `v1,` and the base64 of an HMAC-SHA256.

    *secret* is the vendor's, `whsec_` and base64; ConfigError if it is not. *timestamp* is in seconds since 1970.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(_key(secret), content, "sha256")
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
