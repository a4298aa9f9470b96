"""The oracle's books: what reached the server and what it did. Never a secret, a token or a body."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from attrs import asdict, define, field, frozen

__all__ = ["Books", "Entry"]


@define(eq=False)
class Entry:
    """
    One request as it arrived.

    *status* is 0 while no answer was begun, *complete* False if its body never ended. *label* is the beginning of a
    create's prompt, by which a test knows its job whatever ids the client has chosen.
    """

    number: int
    connection: int
    nth: int
    at: float
    method: str
    path: str
    route: str
    headers: tuple[str, ...]
    authorized: bool
    length: int = 0
    sha256: str = ""
    external_id: str = ""
    label: str = ""
    complete: bool = False
    accepted: str = ""
    code: int = 0
    status: int = 0
    faults: list[str] = field(factory=list)


@frozen
class Charge:
    """An accepted create; each of them costs money."""

    external_id: str
    task_id: str
    n: int
    units: int
    sha256: str
    at: float
    label: str = ""


@define(eq=False)
class Books:
    """Counts since the last reset. *log* keeps the newest requests only."""

    log: deque[Entry] = field(factory=lambda: deque(maxlen=100_000))
    charges: list[Charge] = field(factory=list)
    requests: Counter[str] = field(factory=Counter)
    codes: Counter[int] = field(factory=Counter)
    connections: int = 0
    open_connections: int = 0
    peak: int = 0
    peak_connections: int = 0
    overruns: int = 0
    oddities: list[str] = field(factory=list)

    @property
    def posts(self) -> int:
        """Creates of which at least the head arrived."""
        return self.requests["create"]

    @property
    def gets(self) -> int:
        """Reads of single tasks."""
        return self.requests["get"]

    @property
    def look_ups(self) -> int:
        """Reads of single tasks that ask for an external id which a create carried; who only polls asks for task ids."""
        carried = {entry.external_id for entry in self.of("create")}
        return sum(entry.path.rpartition("/")[2] in carried for entry in self.of("get"))

    @property
    def lists(self) -> int:
        """Reads of list pages."""
        return self.requests["list"]

    @property
    def billed(self) -> int:
        """Units charged."""
        return sum(charge.units for charge in self.charges)

    @property
    def accepted(self) -> dict[str, int]:
        """How often a create was accepted, by external id (the task id where none was given)."""
        return dict(Counter(charge.external_id or charge.task_id for charge in self.charges))

    @property
    def paid_twice(self) -> dict[str, int]:
        """The external ids that were accepted more than once."""
        return {name: count for name, count in self.accepted.items() if count > 1}

    def of(self, route: str) -> list[Entry]:
        """Return the log's entries of one route, oldest first."""
        return [entry for entry in self.log if entry.route == route]

    def times(self, route: str) -> list[float]:
        """Return when each request of *route* arrived (server's monotonic seconds)."""
        return [entry.at for entry in self.of(route)]

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain JSON values, for another process."""
        return {
            "posts": self.posts,
            "gets": self.gets,
            "lists": self.lists,
            "requests": dict(self.requests),
            "codes": {str(code): count for code, count in self.codes.items()},
            "accepted": self.accepted,
            "paid_twice": self.paid_twice,
            "billed": self.billed,
            "peak": self.peak,
            "overruns": self.overruns,
            "connections": self.connections,
            "open_connections": self.open_connections,
            "peak_connections": self.peak_connections,
            "oddities": list(self.oddities),
            "charges": [asdict(charge) for charge in self.charges],
            "log": [asdict(entry) for entry in self.log],
        }
