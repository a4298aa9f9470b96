"""
A certificate that nobody trusts, for a host that is not ours: what a client must refuse.

`untrusted.pem` was made for these tests alone: `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1
-nodes -days 36500 -subj /CN=elsewhere.example -addext subjectAltName=DNS:elsewhere.example`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

__all__ = ["untrusted"]


def untrusted() -> ssl.SSLContext:
    """Return a server's context with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("untrusted.pem"))
    return context
