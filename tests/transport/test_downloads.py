from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import socket
import stat
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
import anyio
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from kling_async.errors import DownloadError, LinkExpired
from kling_async.transport import downloads, files
from kling_async.transport.downloads import FetchRules, open_result_session, read_picture, save_picture
from kling_async.transport.files import FolderShelf

pytestmark = pytest.mark.anyio
Make = Callable[..., bytes]
LOCAL = FetchRules(allow_private=True, max_bytes=2_000_000, timeout=20)


def reply(body: bytes, *, status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str, status: str = "302 Found") -> bytes:
    return reply(b"", status=status, Location=location)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_result_session(LOCAL) as session:
        yield session


@pytest.fixture
async def strict() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_result_session(FetchRules()) as session:
        yield session


async def failing(
    session: aiohttp.ClientSession, url: str, folder: Path, rules: FetchRules = LOCAL
) -> DownloadError:
    """Save and read *url*; both must fail alike, leave nothing in *folder* and show no query."""
    with pytest.raises(DownloadError) as caught:
        await save_picture(session, url, shelf=FolderShelf(folder), stem="a_0", rules=rules)
    with pytest.raises(type(caught.value)) as again:
        await read_picture(session, url, rules=rules)
    assert str(again.value) == str(caught.value)
    assert not names(folder)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "secret" not in f"{cause} {cause.__dict__}"
        cause = cause.__cause__
    return caught.value


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
async def test_a_picture_is_saved_whole(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make, kind: str, extension: str
) -> None:
    """A picture gets its name, its extension from its content, and the digest of its bytes; nothing else stays."""
    data = make_picture(kind, (900, 700))
    server.replies["/x.bin?sign=a%2Fb%2B"] = reply(data, Content_Type="application/octet-stream")

    saved = await save_picture(
        session,
        f"{server.url}/x.bin?sign=a%2Fb%2B",
        shelf=FolderShelf(tmp_path / "new" / "out"),
        stem="a_0",
        rules=LOCAL,
    )

    assert saved.location == tmp_path / "new" / "out" / f"a_0.{extension}"
    assert (
        saved.location.read_bytes()
        == data
        == await read_picture(session, f"{server.url}/x.bin?sign=a%2Fb%2B", rules=LOCAL)
    )
    assert (saved.size, saved.sha256, saved.format) == (
        len(data),
        hashlib.sha256(data).hexdigest(),
        kind.lower(),
    )
    assert names(saved.location.parent) == {saved.location.name}


async def test_no_credentials_go_to_the_result_host(
    server: Any,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither cookies, nor names in the link, nor those of .netrc are sent."""
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.replies["/x"] = reply(make_picture(), Set_Cookie="session=secret")
    url = server.url.replace("//", "//me:secret@") + "/x"

    await read_picture(session, url, rules=LOCAL)
    await read_picture(session, url, rules=LOCAL)

    for head in server.requests:
        assert b"Authorization" not in head
        assert b"Cookie" not in head
        assert b"Accept-Encoding: identity" in head


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "410 Gone"])
async def test_dead_links_are_told_apart(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, status: str
) -> None:
    """D01: 403, 404 and 410 mean that the link has expired."""
    server.replies["/x?sign=secret"] = reply(b"gone", status=status)

    error = await failing(session, f"{server.url}/x?sign=secret", tmp_path)

    assert isinstance(error, LinkExpired)
    assert error.url == f"{server.url}/x"


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        ("500 Oops", True),
        ("503 Busy", True),
        ("429 Slow", True),
        ("400 Bad", False),
        ("204 Nothing", False),
        ("304 Same", False),
    ],
)
async def test_other_statuses_fail(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, status: str, *, retryable: bool
) -> None:
    """Any other status is a failure, and tells whether trying again may help."""
    server.replies["/x?secret"] = reply(b"", status=status)

    error = await failing(session, f"{server.url}/x?secret", tmp_path)

    assert error.retryable is retryable
    assert not isinstance(error, LinkExpired)


async def test_cut_bodies_are_noticed(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """D02: a body shorter than announced, cut in a chunk, or cut without any length leaves no file."""
    half = make_picture(size=(700, 500))[:300_000]
    server.replies |= {
        "/length?secret": reply(half, length=400_000) + b"<cut>",
        "/chunk?secret": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b<cut>"
        % (len(half) + 9, half),
        "/close?secret": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + half + b"<cut>",
        "/whole?secret": reply(half),
        "/webp?secret": reply(make_picture("WEBP")[:-40]),
        "/nothing?secret": b"<cut>",
    }

    for path in list(server.replies):
        assert (await failing(session, server.url + path, tmp_path)).retryable, path


async def test_what_is_no_picture_is_refused(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """D03: a page with status 200, another format, compressed bytes or nothing at all is no picture."""
    server.replies |= {
        "/html": reply(b"<!doctype html><h1>not found</h1>" * 9, Content_Type="image/png"),
        "/short": reply(b"no"),
        "/empty": reply(b""),
        "/gif": reply(make_picture("GIF")),
        "/gzip": reply(gzip.compress(make_picture()), Content_Encoding="gzip"),
    }

    found = [str(await failing(session, server.url + path, tmp_path)) for path in list(server.replies)]

    for words, message in zip(["HTML", "unknown", "empty", "GIF", "gzip"], found, strict=True):
        assert words in message


async def test_too_many_bytes_are_not_read(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """D04: a length over the cap is refused at once, one that lies as soon as the cap is passed."""
    picture = make_picture("JPEG")
    server.replies |= {
        "/announced": reply(picture, length=2_000_001) + b"<hang>",
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e8480\r\n"
        + picture.ljust(2_000_000, b"\0")
        + b"\r\n9\r\n123456789\r\n<hang>",
        "/endless": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        + picture.ljust(2_100_000, b"\0")
        + b"<hang>",
    }

    for path in list(server.replies):
        assert "at most 2,000,000 bytes" in str(await failing(session, server.url + path, tmp_path))


async def test_too_many_pixels_are_refused(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """D05: a bomb of pixels is refused from its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 14_000, 14_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"x")
        + chunk(b"IEND", b"")
    )
    server.replies["/x"] = reply(bomb)

    assert "14000x14000" in str(await failing(session, f"{server.url}/x", tmp_path))


async def test_redirects_are_followed_three_times(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """Three redirects are followed, relative ones too; a fourth, or one to nowhere, is not."""
    picture = make_picture()
    server.replies |= {
        "/1?s=%2F": moved("/a/2?s=%2F%2B", "301 Moved"),
        "/a/2?s=%2F%2B": moved("3", "307 Again"),
        "/a/3": moved(f"{server.url}/4", "308 Moved"),
        "/4": reply(picture),
        "/0": moved("/1?s=%2F"),
        "/nowhere": reply(b"", status="302 Found"),
        "/odd": moved("http://[::1/x?secret"),
    }

    assert await read_picture(session, f"{server.url}/1?s=%2F", rules=LOCAL) == picture
    assert "3 redirects" in str(await failing(session, f"{server.url}/0", tmp_path))
    assert "302" in str(await failing(session, f"{server.url}/nowhere", tmp_path))
    assert "cannot be read" in str(await failing(session, f"{server.url}/odd", tmp_path))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "/x",
        "",
        "http://",
        "http://[::1/x?secret",
        "http://\ud800/?secret",
        "javascript:secret",
    ],
)
async def test_links_that_are_none_are_refused(
    session: aiohttp.ClientSession, tmp_path: Path, url: str
) -> None:
    """Only http and https links with a host are fetched."""
    with pytest.raises(DownloadError, match="link"):
        await save_picture(session, url, shelf=FolderShelf(tmp_path), stem="a", rules=LOCAL)


class Names(AbstractResolver):
    """Answers with one address after the other, as a rebinding name server does."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self.addresses.pop(0)
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Hold nothing."""


async def test_private_addresses_are_never_reached(server: Any, tmp_path: Path) -> None:
    """D06: however a private address is written, or a name turns into one, no request reaches it."""
    port = server.url.rpartition(":")[2]
    rules = FetchRules()
    hosts = [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "localhost",
        "2130706433",
        "127.1",
        "0x7f.1",
        "①27.0.0.1",
        "127.0.0.1.",
    ]

    async with open_result_session(rules) as session:
        for host in hosts:
            error = await failing(session, f"http://{host}:{port}/x?secret", tmp_path, rules)
            assert "private network" in str(error), host
    async with open_result_session(rules, resolver=Names("127.0.0.1", "127.0.0.1")) as session:
        assert "private network" in str(
            await failing(session, f"http://result.example:{port}/x?secret", tmp_path, rules)
        )

    assert server.requests == []


async def test_redirects_are_checked_like_links(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D06: a redirect to a private address or the proxy, and one from https to http, is refused before connecting."""
    port = server.url.rpartition(":")[2]
    rules = FetchRules(proxy="http://proxy.example:1")
    async with open_result_session(rules) as session:
        for host in ("127.0.0.1", "proxy.example"):
            with pytest.raises(DownloadError, match="private network"):
                downloads._check_target(session, downloads._parse(f"http://{host}:{port}/"), rules)

    class Secure:
        """Answers as a host with https would."""

        status = 302
        headers = {"Location": f"http://example.com:{port}/x?secret"}  # noqa: RUF012  # read only

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            """Hold nothing."""

    async with open_result_session(FetchRules()) as session:
        monkeypatch.setattr(session, "get", lambda *_, **__: Secure())
        error = await failing(session, "https://cdn.example/x?secret", tmp_path, FetchRules())

    assert "https to http" in str(error)
    assert server.requests == []


async def test_an_unguarded_session_is_refused(tmp_path: Path) -> None:
    """A session that could reach private addresses is not used where they are forbidden."""
    async with aiohttp.ClientSession() as plain, open_result_session(LOCAL) as local:
        for session in (plain, local):
            with pytest.raises(AssertionError):
                await save_picture(
                    session, "http://example.com/x", shelf=FolderShelf(tmp_path), stem="a", rules=FetchRules()
                )


async def test_lost_connections_can_be_retried(
    session: aiohttp.ClientSession, strict: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Nobody listening, no such name and a silent host are transport trouble, without aiohttp's exceptions."""
    assert (await failing(session, "http://127.0.0.1:1/x?secret", tmp_path)).retryable
    assert (await failing(strict, "http://no.such.host.invalid/x?secret", tmp_path, FetchRules())).retryable


@pytest.mark.parametrize(
    "rules", [FetchRules(allow_private=True, stall=0.05), FetchRules(allow_private=True, timeout=0.05)]
)
async def test_a_stalled_download_ends(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make, rules: FetchRules
) -> None:
    """A host that falls silent in the middle is left after the time limit."""
    server.replies["/x?secret"] = reply(make_picture(), length=900_000) + b"<hang>"

    error = await failing(session, f"{server.url}/x?secret", tmp_path, rules)

    assert error.retryable
    assert "took too long" in str(error)


async def test_existing_files_stay(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """D08: the same content is fine, other content, a link or a folder of that name is left alone and told."""
    data = make_picture()
    server.replies["/x"] = reply(data)
    target = tmp_path / "a_0.png"
    secret = tmp_path / "outside"
    secret.write_bytes(data)

    async def save() -> None:
        await save_picture(session, f"{server.url}/x", shelf=FolderShelf(tmp_path), stem="a_0", rules=LOCAL)

    await save()
    before = (target.stat().st_ino, target.stat().st_mtime_ns)
    await save()
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == before

    for spoil in (lambda: target.write_bytes(b"mine"), lambda: target.symlink_to(secret), target.mkdir):
        target.unlink(missing_ok=True)
        spoil()
        with pytest.raises(DownloadError, match="found another") as caught:
            await save()
        assert not caught.value.local
        assert names(tmp_path) == {"a_0.png", "outside"}
    assert secret.read_bytes() == data


async def test_without_hard_links_nothing_is_replaced_either(
    server: Any,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file system without hard links gets a rename, after a look; any other trouble with the link is told."""
    server.replies["/x"] = reply(make_picture())
    code = errno.EPERM

    def no_links(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)

    async def save() -> Path:
        saved = await save_picture(
            session, f"{server.url}/x", shelf=FolderShelf(tmp_path), stem="a_0", rules=LOCAL
        )
        return Path(saved.location)

    first = await save()
    assert await save() == first
    first.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="found another"):
        await save()
    assert names(tmp_path) == {"a_0.png"}
    assert first.read_bytes() == b"mine"
    first.unlink()
    code = errno.EIO
    with pytest.raises(DownloadError) as caught:
        await save()
    assert caught.value.local
    assert not names(tmp_path)


async def test_a_full_disk_leaves_nothing(
    server: Any,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D07: no space left is a local failure, and the part that was written is taken away."""
    server.replies["/x"] = reply(make_picture(size=(900, 700)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write_all", full)

    with pytest.raises(DownloadError, match=f"{tmp_path.name}: No space left") as caught:
        await save_picture(session, f"{server.url}/x", shelf=FolderShelf(tmp_path), stem="a_0", rules=LOCAL)

    assert caught.value.local
    assert not caught.value.retryable
    assert not names(tmp_path)


async def test_bad_folders_and_names_are_local_failures(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """D08: a folder that is a file, a name too long, and a name that would leave the folder."""
    server.replies["/x"] = reply(make_picture())
    (tmp_path / "file").write_bytes(b"")

    async def failure(folder: Path, stem: str) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            await save_picture(session, f"{server.url}/x", shelf=FolderShelf(folder), stem=stem, rules=LOCAL)
        return caught.value

    assert (await failure(tmp_path / "file", "a")).local
    assert (await failure(tmp_path, "x" * 300)).local
    for stem in ("", "..", "../a", "a/b", "a\\b", "a\0", ".hidden"):
        assert "plain file name" in str(await failure(tmp_path, stem))
    assert names(tmp_path) == {"file"}


async def test_the_disk_is_flushed_in_order(
    server: Any,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """J18: the bytes are flushed before the file has its name, the folder after."""
    server.replies["/x"] = reply(make_picture())
    seen: list[str] = []
    fsync, link, unlink = os.fsync, os.link, os.unlink

    def note(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            seen.append(
                "fsync folder" if what == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode) else what
            )
            return call(*args, **options)

        return noted

    monkeypatch.setattr(os, "fsync", note("fsync", fsync))
    monkeypatch.setattr(os, "link", note("link", link))
    monkeypatch.setattr(os, "unlink", note("unlink", unlink))

    await save_picture(session, f"{server.url}/x", shelf=FolderShelf(tmp_path), stem="a_0", rules=LOCAL)

    assert seen[:4] == ["fsync", "link", "unlink", "fsync folder"]


async def test_cancelling_leaves_nothing(
    server: Any, session: aiohttp.ClientSession, tmp_path: Path, make_picture: Make
) -> None:
    """A02: a cancelled download takes its part away, whether a scope or the task itself is cancelled."""
    picture = make_picture(size=(1200, 900))  # more than is held before the first write
    server.replies["/x"] = reply(picture, length=len(picture) + 9) + b"<hang>"

    async def save() -> None:
        await save_picture(
            session,
            f"{server.url}/x",
            shelf=FolderShelf(tmp_path),
            stem="a_0",
            rules=FetchRules(allow_private=True),
        )

    async def begun() -> None:
        while not names(tmp_path):  # noqa: ASYNC110  # a thread makes the file
            await asyncio.sleep(0)

    async with anyio.create_task_group() as group:
        group.start_soon(save)
        await begun()
        group.cancel_scope.cancel()
    assert not names(tmp_path)

    task = asyncio.create_task(save())
    await begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not names(tmp_path)


async def test_steps_after_the_end_have_no_effect(tmp_path: Path) -> None:
    """A thread that comes late, after its wait was cancelled, writes nothing."""
    part = files.PartFile(tmp_path, "a_0")

    part.discard()
    part.write([b"late"])
    late = part.finish([b"later"], lambda *_: None)

    assert late is None
    assert part.ended
    assert not names(tmp_path)


async def test_proxies_of_the_environment_are_used_on_request(
    server: Any, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With *trust_env* the environment's proxy fetches the link, which itself need not resolve here."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    rules = FetchRules(trust_env=True)
    picture = make_picture()
    server.replies["http://cdn.example/x"] = reply(picture)

    async with open_result_session(rules) as session:
        assert await read_picture(session, "http://cdn.example/x", rules=rules) == picture

    assert server.requests[0].startswith(b"GET http://cdn.example/x ")


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ConnectionTimeoutError("to host http://a/?secret"),
        aiohttp.InvalidURL("http://a/?secret"),
        aiohttp.ClientPayloadError("?secret"),
        aiohttp.ClientOSError(1, "?secret"),
    ],
)
async def test_causes_never_show_a_query(error: Exception) -> None:
    """An exception of aiohttp whose text holds the whole link is not kept as the cause."""
    with pytest.raises(DownloadError) as caught, downloads._translated("http://a/"):
        raise error

    assert caught.value.__cause__ is None
    assert "secret" not in str(caught.value)
