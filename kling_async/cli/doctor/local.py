"""What `doctor` says about this machine: files, the folder for results, versions; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kling_async.cli.doctor.facts import Facts, Finding, Place
from kling_async.cli.voice import CONFIG
from kling_async.protocol.packs import slots_in

__all__ = ["CHECKS", "CORE", "EXTRAS"]

# The packages of the core and of each extra, with the lowest version that works; a test holds them to pyproject.toml.
CORE = {"aiohttp": "3.14.3", "anyio": "4.6", "attrs": "24.2", "cattrs": "24.1.2", "pyjwt": "2.9"}
EXTRAS: dict[str, tuple[str, ...]] = {
    "cli": ("click", "jinja2", "pillow", "python-dotenv", "rich"),
    "cloud": ("obstore",),
    "heic": ("pillow-heif",),
    "images": ("pillow",),
    "dask": ("distributed", "redis"),
    "redis": ("redis",),
    "otel": ("opentelemetry-api",),
    "prometheus": ("prometheus-client",),
    "speed": ("msgspec", "pybase64", "uvloop"),
}
# Sockets for results, files of the journal and of the program itself, beside one for each slot.
_OTHER_FILES = 96
_MOST_SOCKETS = 128
_NETWORK_DISKS = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "ceph",
    "lustre",
)
_LITTLE_ROOM = 1 << 30


def _open_files(facts: Facts) -> Iterator[Finding]:
    limit = facts.machine.open_files
    slots = slots_in(facts.answer.packs) if facts.answer else None
    needed = min(slots or _MOST_SOCKETS, _MOST_SOCKETS) + _OTHER_FILES
    told = "no limit" if limit is None else f"{limit:,} allowed"
    enough = limit is None or limit >= needed
    yield Finding(
        check="open files",
        level="ok" if enough else "warning",
        found=f"{told}, a run with {slots or 'many'} slots needs about {needed}",
        remedy="" if enough else f"ulimit -n {max(1024, 2 * needed)}",
    )


def _output(facts: Facts) -> Iterator[Finding]:
    place = facts.place
    if place is None:
        return
    if place.trouble:
        yield Finding(
            check="output",
            level="failed",
            found=f"expected a folder that can be written to, found {place.shown}: {place.trouble}",
            remedy="choose another with -o, or correct its permissions",
            exit_code=CONFIG,
        )
        return
    made = "" if place.exists else ", which is not there yet and can be made"
    room = "" if place.free is None else f", {place.free / 1e9:,.1f} GB free"
    little = place.free is not None and place.free < _LITTLE_ROOM
    yield Finding(
        check="output",
        level="warning" if little else "ok",
        found=f"{place.shown}{made}{room}",
        remedy="pictures take about 2 MB each; make room" if little else "",
    )
    yield _journal_disk(place)


def _journal_disk(place: Place) -> Finding:
    if place.wal:
        return Finding(
            check="output",
            level="failed",
            found=f"its file system cannot hold a journal (SQLite in WAL): {place.wal}",
            remedy="keep the journal on a local disk: run --journal FILE",
            exit_code=CONFIG,
        )
    if place.kind.startswith(_NETWORK_DISKS):
        return Finding(
            check="output",
            level="warning",
            found=f"its file system is {place.kind}, whose locks and memory maps SQLite cannot rely on",
            remedy="keep the journal on a local disk: run --journal FILE",
        )
    return Finding(
        check="output", level="ok", found=f"a journal works there{f' ({place.kind})' if place.kind else ''}"
    )


def _versions(facts: Facts) -> Iterator[Finding]:
    python = facts.machine.python
    old = python < (3, 11)
    yield Finding(
        check="python",
        level="failed" if old else "ok",
        found=".".join(map(str, python)),
        remedy="use Python 3.11 or newer" if old else "",
        exit_code=CONFIG if old else 0,
    )
    for name, floor in CORE.items():
        version = facts.machine.packages.get(name)
        good = version is not None and _numbers(version) >= _numbers(floor)
        yield Finding(
            check=name,
            level="ok" if good else "failed",
            found=version or "not installed",
            remedy="" if good else f'pip install "{name}>={floor}"',
            exit_code=0 if good else CONFIG,
        )


def _numbers(version: str) -> tuple[int, ...]:
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def _extras(facts: Facts) -> Iterator[Finding]:
    for extra, names in EXTRAS.items():
        versions = {name: facts.machine.packages.get(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        found = [f"{name} {version}" for name, version in versions.items() if version is not None]
        # An extra is a choice, and doing without it no fault, so that there is nothing to mend.
        told = f'optional, not installed: {", ".join(missing)} (pip install "kling-async[{extra}]")'
        yield Finding(
            check=f"extra {extra}",
            level="ok",
            found="; ".join([*([", ".join(found)] if found else []), *([told] if missing else [])]),
        )


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (_open_files, _output, _versions, _extras)
