"""Texts without what must not be shown: credentials, tokens, pictures, and the queries of URLs, which are signed."""

from __future__ import annotations

import re

__all__ = ["redacted"]

_MARK = "***"
_SECRETS = (
    # A JSON Web Token, whole or cut off.
    (re.compile(r"\beyJ[\w-]{6,}(?:\.[\w-]*){0,2}"), _MARK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {_MARK}"),
    (re.compile(r"\bwhsec_[\w+/=-]+"), f"whsec_{_MARK}"),
    # Also with quotes around name and value, as in a repr.
    (
        re.compile(
            r"(?i)((?:api|access|secret)[_-]?key|webhook[_-]?secret|authorization|password|token)(['\"]?\s*[=:]\s*['\"]?)"
            r"(?!bearer\b|basic\b)[^\s'\",;&)]+"
        ),
        rf"\1\2{_MARK}",
    ),
    # The user of a URL, then its query and fragment.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#@'\"]+@"), r"\1"),
    (re.compile(r"(?i)\b(https?://[^\s?#'\"<>]+)[?#][^\s'\"<>)]*"), rf"\1?{_MARK}"),
    # A picture, or a part of one, in base64.
    (re.compile(r"[A-Za-z0-9+/]{120,}={0,2}"), _MARK),
)


def redacted(text: str) -> str:
    """Return *text* with everything blanked that looks like a secret; ordinary words, ids and paths stay."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
