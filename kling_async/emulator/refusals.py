"""How a call is turned down: one exception that carries what the answer will say."""

from __future__ import annotations

from attrs import define

from kling_async.protocol.codes import CODES

__all__ = ["Refusal"]


@define(eq=False, slots=False)
class Refusal(Exception):
    """The call is answered with *code*; an empty *message* is the table's meaning, no *http_status* the table's."""

    code: int
    message: str = ""
    http_status: int = 0
    retry_after: str | None = None

    def __attrs_post_init__(self) -> None:
        row = CODES[self.code]
        self.message = self.message or row.meaning
        self.http_status = self.http_status or row.http_status
