"""
What a folder of results remembers: its journal, and the command that made it.

The command is kept beside the journal so that `retry` and `recover` know the manifest. Emulated and real results never
mix: a task of an emulator that is gone must not be asked of the service, nor the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import asdict, field, frozen

from kling_async.batch.origin import Origin
from kling_async.errors import ConfigError
from kling_async.journal.storage import Storage
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.lifecycle import JobRecord, JobState
from kling_async.protocol.naming import RUN, TEMPLATE
from kling_async.protocol.service import Service

__all__ = ["COMMAND", "Command", "Group", "States", "is_emulated", "journal_of", "open_states"]

COMMAND = "command.json"

Group: TypeAlias = Literal["todo", "done", "failed", "running", "changed", "anew"]

# How the states of the journal count for a person who runs the manifest again.
_GROUPS: dict[JobState, Group] = {
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.LOST: "failed",
    JobState.SUBMITTING: "running",
    JobState.UNKNOWN: "running",
    JobState.SUBMITTED: "running",
    JobState.SUCCEEDED: "running",
}


def journal_of(out: Path) -> Path:
    """Return where the journal of the run in *out* lies: where its command put it, else in the folder."""
    command = Command.of(out)
    return Path(command.journal) if command and command.journal else out / "journal.db"


def _kept_in(out: Path) -> Service | None:
    try:
        return Service.from_json(json.loads((out / RUN).read_bytes()))
    except (OSError, ValueError, AttributeError):
        return None  # whoever takes hold of the folder says what is wrong with it


def is_emulated(out: Path) -> bool | None:
    """Tell whether the results in *out* are emulated, as it says itself, else its command; None where nobody knows."""
    kept, command = _kept_in(out), Command.of(out)
    if kept is not None:
        return bool(kept.emulator)
    return command.emulated if command is not None else None


@frozen(kw_only=True)
class Command:
    """
    What made a folder: the *manifest*, and whether it was *emulated*, by an emulator of the command's own.

    *out* is where its pictures are if that is an object store, *journal* where its journal is if that is elsewhere, both
    empty otherwise. *name* is the template of its files.
    *shared* is what all rows of a folder of pictures have, *fit* and *verify* are how pictures were taken in.
    """

    manifest: str
    emulated: bool
    out: str = ""
    journal: str = ""
    name: str = TEMPLATE
    shared: Mapping[str, Any] = field(factory=dict)
    fit: Literal["auto"] | None = None
    verify: Literal["header", "full"] = "header"

    @classmethod
    def of(cls, out: Path) -> Command | None:
        """Read the command of *out*; None for a folder that has none."""
        try:
            row = json.loads((out / COMMAND).read_bytes())
            return cls(
                manifest=str(row["manifest"]),
                emulated=bool(row["emulated"]),
                out=str(row.get("out", "")),
                journal=str(row.get("journal", "")),
                name=str(row.get("name", TEMPLATE)),
                shared=dict(row.get("shared", {})),
                fit=row.get("fit"),
                verify=row.get("verify", "header"),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{out / COMMAND}: expected what made this folder, found {error}; remove the file, or use another folder"
            ) from error

    def keep(self, out: Path, *, emulated: bool | None = None) -> None:
        """
        Write it down in *out*; raises ConfigError where emulated and real results would mix.

        *emulated* tells whether an emulator answers, None that it is not known; then the run itself sees to it.
        """
        now, before = self.emulated or emulated, is_emulated(out)
        if _kept_in(out) is None:
            # Nothing was made yet, or by an earlier version, which knew of no emulator but its own.
            now, before = bool(now), before or (before if self.emulated else None)
        if None not in {now, before} and now != before:
            kinds = ("real", "emulated") if now else ("emulated", "real")
            raise ConfigError(
                f"output folder: expected one of {kinds[1]} results, found {kinds[0]} ones in {out}; choose another with -o"
            )
        (out / COMMAND).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


class States:
    """
    Tells what a run will find of each row in the journal of an earlier one.

    `todo`: nothing yet; `done`, `failed` and `running`: the same job. A job that reads differently now is `changed` if it
    was done, or runs: it is refused; with *update*, what has ended is made `anew`. One that failed stays `failed` without.
    """

    def __init__(self, storage: Storage | None = None, *, update: bool = False) -> None:
        self._storage = storage
        self._update = update
        # Nothing is written down here: whoever looks changes nothing.
        self._origin = Origin(storage.meta().get("pictures") if storage else "", lambda _folder: None)

    def of(self, key: str, digest: int, base: Path, job: Callable[[], MultiImage]) -> Group:
        """
        Return the group of the row called *key* with *digest*, from a manifest in *base*.

        *job* makes its job, which takes long, and is called only for a row whose words are not those of the earlier run.
        """
        record = self._storage.get(key) if self._storage else None
        group = _GROUPS.get(record.state) if record else None
        if record is None or group is None:
            return "todo"
        if self._is_same(record, digest, base, job):
            return group
        if group == "running":
            return "changed"
        return "anew" if self._update else "changed" if group == "done" else group

    def state(self, key: str) -> JobState:
        """Return where the job of *key*, which has one, stands."""
        record = self._storage.get(key) if self._storage else None
        assert record is not None, "only a row that the journal knows can have changed"
        return record.state

    def _is_same(self, record: JobRecord, digest: int, base: Path, job: Callable[[], MultiImage]) -> bool:
        if record.row and record.row == digest and self._origin.covers(base):
            return True
        return record.fingerprint == self._origin.name(job()).fingerprint()


@contextmanager
def open_states(journal: Path | None, *, update: bool = False) -> Iterator[States]:
    """Open *journal* to look rows up, in this thread only; one that is not there knows none."""
    if journal is None or not journal.exists() or not journal.stat().st_size:
        yield States()
        return
    storage = Storage.read_only(journal)
    try:
        yield States(storage, update=update)
    finally:
        storage.close()
