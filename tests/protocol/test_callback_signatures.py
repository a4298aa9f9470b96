"""Signatures of callbacks."""

from __future__ import annotations

import pytest

from kling_async.errors import ConfigError
from kling_async.protocol.callbacks import sign


def test_the_vendors_own_vector() -> None:
    """The example of the vendor's page (2026-09) comes out as printed there."""
    body = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'

    signature = sign("whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=", "9876543210", 1781080794, body)

    assert signature == "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_é", "SECRET-abc"])
def test_a_secret_that_is_none(secret: str) -> None:
    """A text that is no secret is refused without being shown."""
    with pytest.raises(ConfigError, match="whsec_<base64>") as caught:
        sign(secret, "1", 1, b"")

    assert "SECRET" not in str(caught.value)
