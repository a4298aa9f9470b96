"""
Gathers what `doctor` judges: looks at variables, files, packages and limits, and sends one request that costs nothing.

That request asks for the resource packs, also without credentials: even a refusal tells who answers, how quickly, and
what time it is there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from attrs import evolve

from kling_async.cli.doctor.facts import Answer, Environment, Machine, Place
from kling_async.cli.doctor.local import CORE, EXTRAS
from kling_async.cli.environment import load_env_file
from kling_async.client.settings import Account, gather
from kling_async.errors import ConfigError, KlingError
from kling_async.protocol.auth import Sealed, Signer, credentials_from_env
from kling_async.protocol.codec import read_envelope
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.packs import read_packs
from kling_async.protocol.requests import costs_request
from kling_async.transport.addresses import proxy_of_address
from kling_async.transport.sessions import Connection, Session

__all__ = ["address_of", "ask_service", "look_at_environment", "look_at_machine", "look_at_place"]

# Seconds that somebody who wants to know what is wrong will wait.
_TIMEOUTS = Timeouts(connect=10.0, request=15.0)
_YEAR = 365 * 86_400


def look_at_environment() -> Environment:
    """Take the variables as other commands do, with those of a `.env` file here."""
    added: list[str] = []
    trouble = None
    try:
        added = load_env_file(Path.cwd() / ".env", os.environ)
    except ConfigError as error:
        trouble = error
    return Environment(variables=dict(os.environ), from_file=frozenset(added), trouble=trouble)


def address_of(
    variables: Mapping[str, str], base_url: str | None, region: str | None
) -> tuple[str | None, ConfigError | None]:
    """Return the address of the service, or what keeps it, or the number of slots, from being made out."""
    nobody = [Account("nobody", api_key="none")]
    try:
        settings = gather(
            api_key=None,
            access_key=None,
            secret_key=None,
            accounts=nobody,
            slots="auto",
            address=base_url,
            region=region,
            env=variables,
        )
    except ConfigError as error:
        return None, error
    return settings.base_url, None


async def ask_service(address: str, variables: Mapping[str, str]) -> Answer:
    """Ask for the account's resource packs, once; an error is part of the answer."""
    try:
        token = Signer(credentials_from_env(variables)).token(time.monotonic(), time.time())
    except ConfigError:
        token = "none"  # noqa: S105  # nobody's
    session = Session(Connection(base_url=address))
    wall, begin = time.time(), time.monotonic()
    request = costs_request(int((wall - _YEAR) * 1000), int(wall * 1000))
    try:
        reply = await session.send(request, Sealed(token), _TIMEOUTS)
    except KlingError as error:
        return Answer(error=error, our_time=wall)
    finally:
        await session.aclose()
    seconds = time.monotonic() - begin
    answer = Answer(seconds=seconds, service_time=reply.service_time, our_time=wall + seconds / 2)
    try:
        envelope = read_envelope(reply)
        return evolve(answer, packs=read_packs(envelope.data, request_id=envelope.request_id))
    except KlingError as error:
        return evolve(answer, error=error)


def look_at_machine(address: str | None) -> Machine:
    """Look at versions, limits and the way out of this machine."""
    names = {*CORE, *(name for names in EXTRAS.values() for name in names)}
    return Machine(
        python=sys.version_info[:3],
        packages={name: _version_of(name) for name in names},
        open_files=_open_files(),
        proxy=_without_password(proxy_of_address(address)) if address else None,
        certificates=_certificates(),
    )


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _without_password(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        place = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "one that cannot be read"
    user = "***@" if parts.username or parts.password else ""
    return f"{parts.scheme}://{user}{place}{port}"


def _certificates() -> str:
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).is_file():
        return paths.cafile
    if paths.capath and Path(paths.capath).is_dir() and any(Path(paths.capath).iterdir()):
        return paths.capath
    # Windows and macOS keep them elsewhere.
    count = ssl.create_default_context().cert_store_stats()["x509_ca"]
    return f"{count} of the system" if count else ""


def look_at_place(out: Path | str) -> Place:
    """See whether files and a journal can be made in *out*, or where it would be made; leaves nothing behind."""
    if isinstance(out, str):
        return Place(shown=f"{out} (an object store, not looked at; it needs --journal FILE on this machine)")
    # Not Path.exists(), which raises for names that no file can have.
    there = next(each for each in (out.absolute(), *out.absolute().parents) if os.path.exists(each))  # noqa: PTH110
    try:
        if there != out.absolute():
            with suppress(FileNotFoundError):  # as it should be; anything else keeps a folder from being made
                out.absolute().stat()
        with tempfile.TemporaryDirectory(dir=there, prefix=".kling-doctor-") as folder:
            wal = _wal_trouble(Path(folder) / "journal.db")
    except OSError as error:
        return Place(shown=str(out), trouble=error.strerror or str(error))
    return Place(
        shown=str(out),
        exists=there == out.absolute(),
        wal=wal,
        kind=_kind_of_disk(there),
        free=shutil.disk_usage(there).free,
    )


def _wal_trouble(path: Path) -> str:
    try:
        with closing(sqlite3.connect(path)) as db:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("CREATE TABLE t (x)")
            db.commit()
    except sqlite3.Error as error:
        return str(error)
    return "" if mode == "wal" else f"it offers {mode!r} only"


def _kind_of_disk(folder: Path) -> str:
    """Name the file system of *folder*; empty where that cannot be read."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    real, best, kind = folder.resolve(), -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        # The kernel writes blanks as octal numbers.
        mount = Path(before.split()[4].replace("\\040", " "))
        if real.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split()[0]
    return kind
