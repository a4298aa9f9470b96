"""
Switch the protections off, one at a time, in a copy of the package: the named tests must notice.

`python tests/durability/mutations.py [name …]` prints a line for each and ends with 1 if one went unnoticed. A change
that no longer fits the source is an error too, and so are tests that fail without one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

_ROOT = Path(__file__).resolve().parents[2]
_CRASHES = "tests/durability/test_crashes.py"
_RESUME = "tests/durability/test_resume.py"
_JOURNALS = "tests/durability/test_journals.py"
_POWER = "tests/durability/test_power_cuts.py"
_FAULTS = "tests/faults"


@frozen
class Mutation:
    """In *file*, *old* (which stands there once) becomes *new*; then *tests* must fail."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = {
    "look-up first": Mutation(
        "batch/resume.py",
        "            found = await self._queries.clear_up(record.account, record.external_task_id)\n",
        "            found = None\n",
        (_CRASHES,),
    ),
    "look-up first in the same run": Mutation(
        "protocol/flows.py",
        "            found = yield from find(find_it, external_task_id, patience)\n",
        "            found = None\n",
        (f"{_FAULTS}/test_unknown_fate.py",),
    ),
    "look-up first when the journal is lost": Mutation(
        "batch/resume.py",
        "        if self.journal.rebuilt and isinstance(disposition, Submit):\n",
        "        if False and isinstance(disposition, Submit):\n",
        (_RESUME,),
    ),
    "intent before POST": Mutation(
        "journal/ledger.py",
        "        await self.journal.record(self.record)\n",
        "        self.record = self.record\n",
        (_CRASHES,),
    ),
    "intent on the disk, not only noted": Mutation(
        "journal/ledger.py",
        "        await self.journal.record(self.record)\n",
        "        self.journal.note(self.record)\n",
        (_CRASHES, _JOURNALS),
    ),
    "owner lock": Mutation(
        "journal/locks.py",
        "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        (f"{_JOURNALS}::test_j12_a_second_runner_is_told_who_the_first_is",),
    ),
    "lock of the folder": Mutation(
        "batch/sinks.py",
        "        lock.take()\n",
        "",
        (f"{_JOURNALS}::test_j12_two_journals_are_not_two_runs_of_one_folder",),
    ),
    "one create for an id": Mutation(
        "client/claims.py",
        "        if external_task_id in self._held:\n",
        "        if False:\n",
        ("tests/durability/test_single_creates.py",),
    ),
    "a claim outlives its caller": Mutation(
        "client/creation.py",
        "self._tools.background.carry(self._send(), ended=self._hold())",
        "self._tools.background.carry(self._send())",
        ("tests/durability/test_single_creates.py",),
    ),
    "no redirects": Mutation(
        "transport/sessions.py",
        "            allow_redirects=False,\n",
        "            allow_redirects=True,\n",
        (f"{_FAULTS}/test_network.py", f"{_FAULTS}/test_unknown_fate.py"),
    ),
    "the same id when sent again": Mutation(
        "batch/entries.py",
        '    return f"ka-{hashlib.sha256(text.encode()).hexdigest()[:32]}"\n',
        '    return f"ka-{os.urandom(16).hex()}"\n',
        (_RESUME,),
    ),
    "flush before the name": Mutation(
        "transport/files.py",
        "            os.fsync(file.fileno())\n",
        "",
        (_POWER,),
    ),
    "name of the run on the disk": Mutation(
        "batch/sinks.py",
        '    write_whole(file, (json.dumps(run) + "\\n").encode())\n',
        '    file.write_bytes((json.dumps(run) + "\\n").encode())\n',
        (_POWER,),
    ),
    "budget across runs": Mutation(
        "batch/runner.py",
        "        self.counts.units_committed = self._resumption.committed\n",
        "",
        (_RESUME,),
    ),
    "slots of tasks that run already": Mutation(
        "batch/resume.py",
        "            turnstile.adopt(ticket)\n",
        "            pass\n",
        (_CRASHES, _RESUME),
    ),
}


def _tried(mutation: Mutation | None, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run *tests* against a copy of the package with *mutation*; return what pytest returns and the end of what it says."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("kling_async", "tests"):
            shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(_ROOT / "pyproject.toml", copy)
        if mutation is not None:
            _change(copy / "kling_async" / mutation.file, mutation)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return run.returncode, run.stdout[-5000:]


def _change(file: Path, mutation: Mutation) -> None:
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.file}: expected this once, found it {text.count(mutation.old)} times:\n{mutation.old}"
        )
    text = text.replace(mutation.old, mutation.new)
    if "os.urandom" in mutation.new:
        text = text.replace("import hashlib\n", "import hashlib\nimport os\n", 1)
    file.write_text(text, encoding="utf-8")


def main(names: list[str]) -> int:
    """Try the mutations of these *names*, by default all."""
    chosen = {name: MUTATIONS[name] for name in names} if names else MUTATIONS
    every_test = tuple(dict.fromkeys(test for mutation in chosen.values() for test in mutation.tests))
    code, said = _tried(None, every_test)
    if code != 0:
        sys.stdout.write(f"{said}\nthe tests fail without any mutation\n")
        return 1
    unnoticed = 0
    for name, mutation in chosen.items():
        # 1 is "tests failed"; anything else would be a mistake of ours that proves nothing.
        noticed = _tried(mutation, mutation.tests)[0] == 1
        unnoticed += not noticed
        sys.stdout.write(f"{'noticed  ' if noticed else 'UNNOTICED'} {name}\n")
        sys.stdout.flush()
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
