"""What must hold when all is over, read from the server's books, the folder and the journal's file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from fault_server import Remote

from .victim import Order

__all__ = ["Work", "assert_kept", "open_service", "states"]


@frozen(kw_only=True)
class Work:
    """The jobs of one run, in a folder of their own: *weights* are the n of each."""

    out: Path
    weights: tuple[int, ...] = (1, 2, 1, 3, 1, 2)

    @property
    def rows(self) -> list[tuple[str, str, int]]:
        """Key, prompt and n of each job."""
        return [(f"row-{number}", f"job {number}.", n) for number, n in enumerate(self.weights)]

    @property
    def keys(self) -> list[str]:
        """The keys of the jobs."""
        return [key for key, _, _ in self.rows]

    def order(self, server: Remote, **changes: Any) -> Order:
        """Return the order to run these jobs."""
        values = {"url": server.url, "api_key": server.api_key, "out": str(self.out), "rows": self.rows}
        return Order(**(values | changes))


@contextmanager
def open_service() -> Iterator[Remote]:
    """Open a service for clients of 4 slots: it counts who exceeds them, but does not help by refusing."""
    with Remote.spawn() as server:
        yield server


def refresh(server: Remote, **settings: Any) -> None:
    """Begin new books and tasks under *settings*."""
    base = {
        "slots": 4,
        "enforce": False,
        "unique": True,
        "same_pictures": True,
        "life": {"seconds": 0.02},
        "lives": [],
        "listing": {},
        "lag_looks": 0,
    }
    server.change(**(base | settings))
    server.order("/reset", {})


def states(out: Path) -> dict[str, str]:
    """Return the state of each job in the journal of *out*, read without the package under test."""
    with closing(sqlite3.connect(out / "journal.db")) as db:
        return dict(db.execute("SELECT key, state FROM jobs"))


def pictures(out: Path) -> dict[str, str]:
    """Return the hash of each file among the pictures of *out*, whatever its name."""
    files = (path for path in (out / "images").rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(out: Path) -> list[dict[str, Any]]:
    """Return what stands in the results."""
    text = (out / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def assert_kept(
    server: Remote, work: Work, expected: Mapping[str, str], *, posts: Mapping[str, int] | int = 1
) -> dict[str, Any]:
    """
    Hold the books against the promise: each job paid once, done, its pictures whole and its line there, once.

    *expected* are the pictures of a run that nothing disturbed. *posts* bounds the creates sent for a job (or for each,
    by prompt). Returns the books.
    """
    books = server.books()
    paid = Counter(charge["label"] for charge in books["charges"])
    sent = Counter(
        entry["label"] for entry in books["log"] if entry["route"] == "create" and entry["complete"]
    )
    bounds = {prompt: posts if isinstance(posts, int) else posts.get(prompt, 1) for _, prompt, _ in work.rows}
    assert paid == {prompt: 1 for _, prompt, _ in work.rows}, "each job is paid for exactly once"
    assert {prompt for prompt in sent if sent[prompt] > bounds[prompt]} == set(), f"sent too often: {sent}"
    assert books["overruns"] == 0, "the slots were exceeded"
    assert books["oddities"] == []
    assert states(work.out) == dict.fromkeys(work.keys, "done")
    assert sorted(line["key"] for line in lines(work.out)) == sorted(work.keys), "one line for each job"
    assert {line["status"] for line in lines(work.out)} <= {"succeeded"}
    assert pictures(work.out) == expected, "the same pictures as those of a run that nothing disturbed"
    return books
