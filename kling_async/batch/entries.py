"""One job on its way through a batch."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeAlias

from attrs import define, field

from kling_async.batch.keys import KeyTable
from kling_async.batch.manifest import BadRow, Passed, Row
from kling_async.batch.origin import Origin
from kling_async.errors import BatchStopped, InvalidJob, KlingError
from kling_async.journal.ledger import Ledger
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.naming import folded
from kling_async.protocol.parts import shown_key
from kling_async.protocol.pictures import Fitted
from kling_async.protocol.resting import Resting, rest, wake
from kling_async.protocol.tasks import Task

__all__ = ["Entry", "Input", "entries", "external_id"]

# What is left of a caller's own external id of 64 characters when the number of an attempt is added.
_LONGEST_OWN = 60

Input: TypeAlias = MultiImage | Row | BadRow


@define(eq=False, kw_only=True, weakref_slot=False)
class Entry:
    """
    A job of the input: *position* counts from 0, *error* is there instead of a *job* for a row that is none.

    *attempts* counts the tasks made for it, *committed* is what it counts against the budget, in units, *ledger* its
    page in the journal. A job made as several tasks has *parts* and in the end their *tasks*; a part is an entry too,
    with its *number* from 1 and the *whole* it belongs to. *fitted* is what was changed of its pictures.
    """

    position: int
    key: str
    _job: MultiImage | Resting | None = field(default=None, repr=False)
    error: InvalidJob | None = None
    external_task_id: str = ""
    attempts: int = 0
    committed: int = 0
    # The manifest's row, as a hash; 0 if it comes from elsewhere.
    row: int = 0
    saving: bool = False
    ledger: Ledger | None = field(default=None, repr=False)
    parts: tuple[Entry, ...] = field(default=(), repr=False)
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    whole: Entry | None = field(default=None, repr=False)
    # An earlier key differs only in upper and lower case.
    twin: bool = False
    # Why no more parts of it are to be sent.
    broken: KlingError | None = None
    number: int = 0
    fitted: tuple[Fitted, ...] = ()
    _fingerprint: str = field(default="", init=False, repr=False)

    @property
    def job(self) -> MultiImage | None:
        """What is asked for."""
        if self._job is None or isinstance(self._job, MultiImage):
            return self._job
        job = self._job = wake(self._job)
        return job

    @job.setter
    def job(self, job: MultiImage | None) -> None:
        self._job = job

    def rest(self) -> None:
        """Take up less room, and less of the collector's time, until the job is asked for again."""
        if isinstance(self._job, MultiImage):
            self._job = rest(self._job)

    def fingerprint(self) -> str:
        """Return the hash of what the job asks for, taken once."""
        if not self._fingerprint and self.job is not None:
            self._fingerprint = self.job.fingerprint()
        return self._fingerprint

    @property
    def shown(self) -> str:
        """The key as people read it."""
        return shown_key(self.key)

    def veto(self) -> BatchStopped | None:
        """Say why a part is not to be sent though there are slots for it, if so."""
        if self.whole is None or self.whole.broken is None:
            return None
        return BatchStopped(f"{self.shown} is not sent: {self.whole.broken}")

    def bytes_held(self) -> int:
        """Return how many bytes of pictures the job holds in memory."""
        sources = self.job.pictures() if self.job else ()
        return sum(len(source.data) for _, source in sources if source.data is not None)


async def entries(
    jobs: Iterable[Input | Passed] | AsyncIterable[Input], origin: Origin | None = None
) -> AsyncGenerator[Entry | Passed, None]:
    """
    Yield the jobs of any iterable with their positions; what is no job becomes an entry with its error.

    A job without a key is named by its position, or, with *origin*, by the hash of what it asks for, so that a later
    run knows it again; *origin* says how its files are known. Rows that need nothing pass through, many at once.
    """
    names = _Names(origin)
    position = 0
    if isinstance(jobs, AsyncIterable):
        items = aiter(jobs)
        try:
            async for item in items:
                yield names.compare(_entry(position, item, names))
                position += 1
        finally:
            # A generator that is left in the middle would otherwise be ended at some later time, or never.
            if isinstance(items, AsyncGenerator):
                await items.aclose()
    else:
        for each in jobs:
            if isinstance(each, Passed):
                yield each
                position += len(each.keys)
            else:
                yield names.compare(_entry(position, each, names))
                position += 1


@define
class _Names:
    """The keys given so far, as hashes: a million of them must fit into memory. *origin* as in `entries()`."""

    _origin: Origin | None
    _seen: set[int] = field(factory=set, init=False)
    _folded: KeyTable = field(factory=KeyTable, init=False)

    def is_new(self, key: str) -> bool:
        """Tell whether *key* was not there before, and remember it."""
        before = len(self._seen)
        self._seen.add(hash(key))
        return len(self._seen) > before

    def compare(self, entry: Entry) -> Entry:
        """Note whether *entry* is the twin of an earlier one; only a batch that keeps something needs to know."""
        # Rows that were passed over have their files, which are never replaced; they are not looked at again.
        if self._origin is not None and entry.error is None:
            entry.twin = bool(self._folded.add(folded(entry.key), entry.position + 1))
        return entry

    def settle(self, job: MultiImage) -> MultiImage:
        """Return *job* with its files known as they are to be."""
        return job if self._origin is None else self._origin.name(job)

    def name(self, entry: Entry) -> str:
        """Name a job that has no key."""
        if self._origin is None:
            return f"{entry.position + 1:06d}"
        name = key = entry.fingerprint()[:16]
        number = 1
        while not self.is_new(key):
            number += 1
            key = f"{name}-{number}"
        return key


def _entry(position: int, item: object, names: _Names) -> Entry:
    if isinstance(item, Row):
        # The manifest has looked for doubled keys already.
        return Entry(position=position, key=item.key, job=names.settle(item.job), row=item.digest)
    if isinstance(item, BadRow):
        return Entry(position=position, key=item.key, error=item.error)
    place = f"job {position + 1}"
    if not isinstance(item, MultiImage):
        found = f"a {type(item).__name__}"
        error = InvalidJob.because(
            place, "a MultiImage or a row of a manifest", found, "pass MultiImage(...)"
        )
        return Entry(position=position, key=f"{position + 1:06d}", error=error)
    if item.key is None:
        entry = Entry(position=position, key="", job=item)
        entry.key = names.name(entry)
        return entry
    if names.is_new(item.key):
        return Entry(position=position, key=item.key, job=item)
    error = InvalidJob.because(place, "a key of its own", f"{item.key!r} again", "give every job another key")
    return Entry(position=position, key=f"{item.key}#{position + 1}", error=error)


def external_id(run: str, entry: Entry) -> str:
    """
    Return the external id of an entry's task, the same each time for the same job under the same key in the same run.

    It names the content too, so that a task found under it can be no other job's.
    """
    assert entry.job is not None, "a row that is no job has no task"
    own = entry.job.external_task_id
    if own:
        # A new attempt needs a new id; the caller's own is for the first.
        return own if not entry.attempts else f"{own[:_LONGEST_OWN]}-{entry.attempts + 1}"
    text = "\n".join((run, entry.key, entry.fingerprint(), str(entry.attempts)))
    return f"ka-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
