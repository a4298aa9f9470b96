"""What must not be shown is blanked; what helps stays."""

from __future__ import annotations

import base64
import os

import pytest

from kling_async.protocol.redaction import redacted

TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhayJ9.c2lnbmF0dXJl"
KEY = "a-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {TOKEN}", TOKEN),
        (f"headers {{'Authorization': 'Bearer {KEY}'}}", KEY),
        (f"token {TOKEN[:40]} cut off", TOKEN[10:40]),
        (f"Kling(api_key='{KEY}')", KEY),
        (f'{{"secret_key": "{KEY}", "n": 1}}', KEY),
        (f"KLING_SECRET_KEY={KEY} kling-async run", KEY),
        (f"whsec_{KEY}", KEY),
        (f"GET https://host.example/a.png?Expires=1&Signature={KEY} failed", KEY),
        (f"proxy http://user:{KEY}@proxy.example:3128", KEY),
        (f"redis://:{KEY}@redis.example/0", KEY),
        (base64.b64encode(os.urandom(300)).decode(), ""),
    ],
)
def test_secrets_are_blanked(text: str, secret: str) -> None:
    """No key, token, signature, password or picture is left, however it is written."""
    shown = redacted(text)

    assert shown != text
    assert not secret or secret not in shown
    assert "***" in shown or "@" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "task 772135790912 succeed after 24.5 s, 32 units",
        "job row-1 was found as task 77 after its reply was lost",
        "saved out/images/a_0.png, 1234 bytes in 0.1 s",
        "cannot connect to 127.0.0.1:9 (Connection refused)",
        "Unauthorized (code 1000); check the keys; request id a8c3a355-eed0-49a2-a1c1-def7f10688d9",
        "https://host.example/images/a.png is gone",
    ],
)
def test_what_helps_stays(text: str) -> None:
    """Ids, paths, addresses and ordinary sentences are left as they are."""
    assert redacted(text) == text


def test_the_rest_of_a_text_stays() -> None:
    """What stands around a secret is kept, so that the line can still be understood."""
    assert (
        redacted(f"GET https://h.example/a.png?sig={KEY}: HTTP 403")
        == "GET https://h.example/a.png?*** HTTP 403"
    )
