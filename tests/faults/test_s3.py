"""Pictures into S3, against a server that speaks its protocol (moto, in a process of its own)."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import obstore
import pytest
from fault_kit import client_of, job
from fault_server import FaultServer, Life
from fault_server import catalogue as go
from fault_server.checks import assert_paid_once, assert_within
from fault_server.pictures import png

from kling_async import Failed, MultiImage, Succeeded, errors
from kling_async.transport.stores import open_place

pytestmark = pytest.mark.anyio

_PATIENCE = 60.0
_LARGE = 12_000_000


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of a server that speaks S3."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_listening(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _await_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the S3 server did not start")


@pytest.fixture
def bucket(s3_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, which the environment says how to reach."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _ask("PUT", f"{s3_url}/{name}")
    # obstore's threads and what they wait on live as long as the process, and are no leak of the first test.
    assert objects(f"s3://{name}") == {}
    return name


def _ask(method: str, url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as reply:
        return reply


def rows(count: int, **fields: Any) -> list[MultiImage]:
    return [job(key=f"row-{number}", prompt=f"row-{number}.", **fields) for number in range(count)]


async def run(
    server: FaultServer, out: str, journal: Path, work: list[MultiImage], **options: Any
) -> list[Any]:
    async with client_of(server) as kling:
        return [outcome async for outcome in kling.batch(work, out=out, journal=journal, **options)]


def objects(out: str) -> dict[str, int]:
    """Return what is at *out*: the size of each object by the path below it."""
    place = open_place(out)
    found = (each for batch in obstore.list(place.store, place.path) for each in batch)
    return {str(each["path"]).removeprefix(f"{place.path}/"): each["size"] for each in found}


@pytest.fixture
def quick(server: FaultServer) -> FaultServer:
    """A server whose tasks are done at once."""
    server.change(life=Life(seconds=0.02))
    return server


@pytest.mark.parametrize("size", [0, _LARGE], ids=["one request", "in parts"])
async def test_pictures_arrive_whole(quick: FaultServer, bucket: str, tmp_path: Path, size: int) -> None:
    """Small pictures in one request, large ones in parts; each with its type, and each is made once."""
    quick.change(picture=png(padding=size))
    out = f"s3://{bucket}/july"

    outcomes = await run(quick, out, tmp_path / "journal.db", rows(2, watermark=True))

    place = open_place(out)
    found = obstore.get(place.store, "july/images/row-0_0.png")
    assert [type(outcome) for outcome in outcomes] == [Succeeded, Succeeded]
    assert found.attributes["Content-Type"] == "image/png"
    assert bytes(found.bytes()) == png(padding=size)
    assert set(objects(out)) == {"run.json"} | {
        f"{kind}/row-{number}_0.png" for kind in ("images", "watermarked") for number in (0, 1)
    }
    assert_paid_once(quick.books, 2)


@pytest.mark.parametrize("size", [0, _LARGE], ids=["one request", "in parts"])
@pytest.mark.parametrize("conditional", ["etag", "disabled"])
async def test_what_is_there_is_never_replaced(
    quick: FaultServer,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int,
    conditional: str,
) -> None:
    """Whether or not the store can refuse a name that is taken, an object with other content stays, and the same is fine."""
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", conditional)
    quick.change(picture=png(padding=size))
    quick.break_with(go.empty(404, "result", times=None))
    out, journal = f"s3://{bucket}/july", tmp_path / "journal.db"
    await run(quick, out, journal, rows(2))
    place = open_place(out)
    obstore.put(place.store, "july/images/row-0_0.png", b"mine")
    obstore.put(place.store, "july/images/row-1_0.png", png(padding=size))
    quick.script.clear()

    outcomes = {outcome.key: outcome for outcome in await run(quick, out, journal, rows(2))}

    assert isinstance(outcomes["row-0"], Failed)
    assert f"{out}/images/row-0_0.png" in str(outcomes["row-0"].error)
    assert bytes(obstore.get(place.store, "july/images/row-0_0.png").bytes()) == b"mine"
    assert isinstance(outcomes["row-1"], Succeeded)
    assert_paid_once(quick.books, 2)


async def test_a_bucket_that_is_not_there_is_found_before_anything_is_paid(
    quick: FaultServer, bucket: str, tmp_path: Path
) -> None:
    """The error names the place and what to look at; no credential shows in it."""
    with pytest.raises(errors.ConfigError, match=f"s3://{bucket}-none/july") as caught:
        await run(quick, f"s3://{bucket}-none/july", tmp_path / "journal.db", rows(1))

    assert "credentials" in str(caught.value)
    assert "made-up" not in str(caught.value)
    assert_within(quick.books, posts=0)


async def test_a_store_that_fails_stops_the_run_and_loses_nothing(
    quick: FaultServer, bucket: str, s3_url: str, tmp_path: Path
) -> None:
    """D07 for stores: when the bucket is gone, downloads stop and no more is sent; when it is back, the rest comes."""
    quick.change(slots=2, life=Life(seconds=0.3))
    out, journal = f"s3://{bucket}", tmp_path / "journal.db"
    outcomes: list[Any] = []

    async with client_of(quick, slots=2) as kling:
        with pytest.raises(errors.DownloadError) as caught:
            async for outcome in kling.batch(rows(30), out=out, journal=journal):
                if not outcomes:
                    await anyio.to_thread.run_sync(_empty, s3_url, bucket)
                outcomes.append(outcome)
    sent = quick.books.posts
    await anyio.to_thread.run_sync(_ask, "PUT", f"{s3_url}/{bucket}")
    quick.change(life=Life(seconds=0.02), slots=9)
    again = await run(quick, out, journal, rows(30))

    assert caught.value.local
    assert sent < 30
    assert len(again) == 30
    assert not [outcome for outcome in again if isinstance(outcome, Failed)]
    assert_paid_once(quick.books, 30)


def _empty(s3_url: str, bucket: str) -> None:
    place = open_place(f"s3://{bucket}")
    while True:
        found = (each for batch in obstore.list(place.store) for each in batch)
        obstore.delete(place.store, [str(each["path"]) for each in found])
        try:
            _ask("DELETE", f"{s3_url}/{bucket}")
        except urllib.error.HTTPError as error:
            if error.code != 409:  # it has been written to meanwhile
                raise
        else:
            return


async def test_the_command_line_takes_a_store(quick: FaultServer, bucket: str, tmp_path: Path) -> None:
    """`run -o s3://… --journal F`, then `status`, `fetch` and `retry` on the folder of the journal."""
    line = json.dumps({"key": "k", "subject_images": ["https://example.com/dress.png"]})
    (tmp_path / "jobs.jsonl").write_text(line, encoding="utf-8")
    out = f"s3://{bucket}/july"
    base = ["--base-url", quick.url]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KLING")}
    environment["KLING_API_KEY"] = quick.service.gate.api_key

    async def call(*words: str) -> tuple[int, Any, str]:
        command = [sys.executable, "-W", "error", "-m", "kling_async", *words]
        done = await anyio.run_process(
            command, env=environment, cwd=tmp_path, check=False, stderr=subprocess.PIPE
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    without = await call("run", "jobs.jsonl", "-o", out, "--yes", *base)
    ran = await call("run", "jobs.jsonl", "-o", out, "--journal", "july/run.db", "--yes", "--json", *base)
    status = await call("status", "july", "--json")
    place = open_place(out)
    obstore.delete(place.store, "july/images/k_0.png")
    fetched = await call("fetch", "july", "--json", *base)
    again = await call("retry", "july", "--yes", *base)

    assert without[0] == 2, without
    assert "--journal" in without[2]
    assert ran[0] == 0, ran
    assert json.loads(ran[1])["out"] == out
    assert json.loads(status[1])["totals"] == {"done": 1}
    assert json.loads(fetched[1])["fetched"] == [f"{out}/images/k_0.png"], fetched
    assert again[0] == 0, again
    assert set(objects(out)) == {"run.json", "images/k_0.png"}
    assert_paid_once(quick.books, 1)
