"""
Who is calling: checks the Authorization header against the accounts, by the service's clock.

Pure. The texts are those seen live (2026-09) where any were seen; they are not diagnostic, only the codes are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import jwt
from attrs import frozen

from kling_async.emulator.refusals import Refusal
from kling_async.emulator.settings import EmulatedAccount

__all__ = ["Gate"]

_ANYTHING: dict[str, Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
_REMEMBERED = 4096


@frozen
class _Token:
    """A token whose signature held, so that only its times must be looked at again."""

    account: EmulatedAccount
    expires: float
    starts: float


class Gate:
    """Knows the keys of all accounts; *admit()* says whose a header is."""

    def __init__(self, accounts: Iterable[EmulatedAccount]) -> None:
        accounts = tuple(accounts)
        self._by_key = {account.api_key: account for account in accounts}
        self._by_issuer = {account.access_key: account for account in accounts}
        self._seen: dict[str, _Token] = {}

    def __repr__(self) -> str:
        return f"<Gate for {len(self._by_issuer)} accounts>"

    def admit(self, header: str | None, now: float) -> EmulatedAccount:
        """Return the account behind an Authorization *header*; Refusal 1000 to 1004 if there is none."""
        if not header or not header.strip():
            raise Refusal(1001)
        scheme, _, secret = header.partition(" ")
        if scheme != "Bearer" or not secret or secret != secret.strip():
            raise Refusal(1000)
        if account := self._by_key.get(secret):
            return account
        token = self._seen.get(secret) or self._read(secret)
        if token.starts > now:
            raise Refusal(1003)
        if token.expires <= now:
            raise Refusal(1004)
        return token.account

    def _read(self, text: str) -> _Token:
        parts = text.split(".")
        if len(parts) != 3:
            got = 0 if len(parts) == 1 else len(parts) if len(parts) < 3 else "> 3"
            raise Refusal(1002, f"The token was expected to have 3 parts, but got {got}")
        try:
            issuer = jwt.decode(text, options={"verify_signature": False}).get("iss")
            account = self._by_issuer[cast("str", issuer)]
            claims = jwt.decode(
                text, account.secret_key, algorithms=["HS256"], options=cast("Any", _ANYTHING)
            )
            token = _Token(account, float(claims["exp"]), float(claims.get("nbf", 0)))
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise Refusal(1002) from None
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[text] = token
        return token
