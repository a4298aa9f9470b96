"""
Result pictures: fetched without credentials, checked, and kept whole or not at all.

One attempt each: whether to try again is the caller's business, and `DownloadError.retryable` says if it may help.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, BinaryIO, TypeAlias, TypeVar

import aiohttp
import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from attrs import field, frozen
from yarl import URL

from kling_async.errors import DownloadError, LinkExpired
from kling_async.protocol.headers import PictureHeader, UnreadablePicture, naming, scan_header, sniff
from kling_async.transport.addresses import AddressRefused, ResultConnector, is_public, proxy_for
from kling_async.transport.decoding import decode
from kling_async.transport.shelves import EXTENSIONS, OtherFileExists, Part, SavedFile, Shelf
from kling_async.transport.stand_in import StandInResponse, StandInSession

__all__ = ["FetchRules", "ResultHosts", "open_result_session", "read_picture", "save_picture"]

# Bytes a trip to the disk thread: most pictures come in one, and sixteen at once are not too many to hold.
_BLOCK = 2 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_GONE = {403, 404, 410}
_PASSING = {408, 425, 429}  # worth another try, as are all of 5xx
# No transfer coding: the length is that of the file, and nothing can unfold into more than was sent.
_HEADERS = {"Accept": "image/png,image/jpeg,image/webp,*/*;q=0.1", "Accept-Encoding": "identity"}
_SECRET = re.compile(r"[?#].*|(?<=//)[^/?#]*@", re.DOTALL)
_threads: RunVar[anyio.CapacityLimiter] = RunVar("kling_async.transport.downloads")
_T = TypeVar("_T")
ResultHosts: TypeAlias = aiohttp.ClientSession | StandInSession


@frozen(kw_only=True)
class FetchRules:
    """
    What a result may be and where it may come from.

    *max_pixels* is where Pillow begins to warn of bombs. *timeout* is for one whole download and *stall* for a pause
    without a byte, both in seconds. *allow_private* is for a service that itself runs on this machine, as the emulator
    does.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 89_478_485
    timeout: float = 300.0
    stall: float = 30.0
    redirects: int = 3
    allow_private: bool = False
    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = False


def open_result_session(rules: FetchRules, *, limit: int = 32, **options: Any) -> aiohttp.ClientSession:
    """
    Make a session for result hosts: no cookies, no credentials, no `.netrc`, and only addresses that *rules* allow.

    *limit* bounds its connections; *options* go to the connector. Needs a running loop; the caller closes it.
    """
    named = [rules.proxy]
    if rules.trust_env:
        named += [proxy_for(URL(f"{scheme}://result.invalid/")) for scheme in ("http", "https")]
    proxies = tuple(proxy for proxy in named if proxy)
    connector = ResultConnector(allow_private=rules.allow_private, proxies=proxies, limit=limit, **options)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers=_HEADERS,
    )


async def read_picture(session: ResultHosts, url: str, *, rules: FetchRules) -> bytes:
    """Fetch a result picture into memory; raises as *save_picture()* does."""
    shown = _shown(url)
    data = bytearray()
    async with aclosing(_fetch(session, url, rules)) as chunks:
        async for chunk in chunks:
            data += chunk
    with _translated(shown):
        _check_header(_scan_bytes(data), rules, shown)
    return bytes(data)


async def save_picture(
    session: ResultHosts,
    url: str,
    *,
    shelf: Shelf,
    stem: str,
    rules: FetchRules,
    full: bool = False,
) -> SavedFile:
    """
    Fetch a result picture onto *shelf* as *stem* with the extension of its content; with *full*, decode it to check it.

    *session* is one of *open_result_session()*. The picture appears whole or not at all and replaces nothing; one that
    is there already with the same content is fine. Raises LinkExpired for 403, 404 and 410, else DownloadError.
    """
    shown = _shown(url)
    if not stem or stem.startswith(".") or set(stem) & {"/", "\\", "\0"}:
        raise DownloadError(f"expected a plain file name, found {stem!r}", shown)
    part = shelf.part(stem)
    try:
        async with aclosing(_fetch(session, url, rules)) as chunks:
            rest = await _write_blocks(chunks, part, shelf, shown)
        check = partial(_check, rules=rules, shown=shown, full=full)
        with _translated(shown), _on_disk(shown, shelf):
            saved = await _in_thread(part.finish, rest, check)
        assert saved is not None  # it was not discarded
        return saved
    finally:
        if not part.ended:
            with anyio.CancelScope(shield=True), _on_disk(shown, shelf):
                await _in_thread(part.discard)


async def _write_blocks(chunks: AsyncIterator[bytes], part: Part, shelf: Shelf, shown: str) -> list[bytes]:
    """Write *chunks* as they come; returns the last of them, which are not written yet."""
    held: list[bytes] = []
    size = 0
    async for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            with _on_disk(shown, shelf):
                await _in_thread(part.write, held)
            held, size = [], 0
    return held


async def _fetch(session: ResultHosts, url: str, rules: FetchRules) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a picture; refuses what is none at its first bytes, and what is too large or too short."""
    shown = _shown(url)
    with _translated(shown):
        async with _follow(session, url, rules) as response:
            _check_status(response.status, shown)
            announced = response.content_length
            if announced is not None and announced > rules.max_bytes:
                raise DownloadError(_too_large(rules), shown)
            got = 0
            async for chunk in response.content.iter_any():
                if not got and sniff(chunk) not in EXTENSIONS and len(chunk) >= 16:
                    raise DownloadError(
                        f"expected a PNG, JPEG or WebP picture, found {naming(chunk[:64])}", shown
                    )
                got += len(chunk)
                if got > rules.max_bytes:
                    raise DownloadError(_too_large(rules), shown)
                yield chunk
            if announced is not None and got != announced:
                raise DownloadError(f"expected {announced:,} bytes, found {got:,}", shown, retryable=True)


@asynccontextmanager
async def _follow(
    session: ResultHosts, url: str, rules: FetchRules
) -> AsyncIterator[aiohttp.ClientResponse | StandInResponse]:
    """Open *url*, going through redirects by hand so that each target is checked before anything is sent to it."""
    target = _parse(url)
    timeout = aiohttp.ClientTimeout(total=rules.timeout, sock_read=rules.stall, sock_connect=rules.stall)
    for _ in range(rules.redirects + 1):
        _check_target(session, target, rules)
        proxy = rules.proxy or (proxy_for(target) if rules.trust_env else None)
        async with session.get(target, allow_redirects=False, timeout=timeout, proxy=proxy) as response:
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                yield response
                return
        secure = target.scheme == "https"
        target = target.join(_parse(location))
        if secure and target.scheme != "https" and not rules.allow_private:
            raise DownloadError("refused a redirect from https to http", _shown(target))
    raise DownloadError(f"gave up after {rules.redirects} redirects", _shown(target))


def _parse(text: str) -> URL:
    # A signature covers the query as it was written, so a URL that is written properly is not quoted anew.
    text = text.strip()
    proper = text.isascii() and text.isprintable() and " " not in text
    try:
        url = URL(text, encoded=proper)
    except ValueError:
        raise DownloadError(
            "expected an http or https link, found one that cannot be read", _shown(text)
        ) from None
    # Else aiohttp would make an Authorization header of them.
    return url.with_user(None) if url.raw_user or url.raw_password else url


def _check_target(session: ResultHosts, url: URL, rules: FetchRules) -> None:
    host = url.raw_host
    if url.scheme not in {"http", "https"} or not host:
        raise DownloadError("expected an http or https link", _shown(url))
    # A stand-in calls nobody.
    if rules.allow_private or isinstance(session, StandInSession):
        return
    connector = session.connector
    assert isinstance(connector, ResultConnector), "results are fetched through open_result_session()"
    assert not connector.allow_private, "the session allows more than the rules"
    number = _is_number(host)
    if host in connector.proxy_hosts or (number and not is_public(host)):
        raise DownloadError("refused a link to an address of a private network", _shown(url))


def _is_number(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _check_status(status: int, shown: str) -> None:
    if status in _GONE:
        raise LinkExpired(
            f"the link no longer works (HTTP {status}); ask the task again for a fresh one", shown
        )
    if status != 200:
        retryable = status >= 500 or status in _PASSING
        raise DownloadError(f"the result host answered HTTP {status}", shown, retryable=retryable)


def _check(header: PictureHeader, file: BinaryIO, *, rules: FetchRules, shown: str, full: bool) -> None:
    _check_header(header, rules, shown)
    if full:
        file.seek(0)
        # After the header, so that nothing too large is ever decoded.
        decode(file)


def _check_header(header: PictureHeader, rules: FetchRules, shown: str) -> None:
    if header.width * header.height > rules.max_pixels:
        found = f"{header.width}x{header.height}"
        raise DownloadError(f"expected at most {rules.max_pixels:,} pixels, found {found}", shown)


def _scan_bytes(data: bytearray) -> PictureHeader:
    scan = scan_header(len(data), webp=True)
    offset, length = next(scan)
    while True:
        try:
            offset, length = scan.send(bytes(data[offset : offset + length]))
        except StopIteration as end:
            header: PictureHeader = end.value
            return header


def _too_large(rules: FetchRules) -> str:
    return f"expected at most {rules.max_bytes:,} bytes, found more"


def _shown(url: object) -> str:
    """Write *url* without what may be secret in it, for messages."""
    plain = _SECRET.sub("", str(url).strip())
    return "".join(char if char.isprintable() else "?" for char in plain)[:200]


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """Turn what aiohttp and the scan raise into DownloadError, without their texts, which can hold the whole link."""
    try:
        yield
    except UnreadablePicture as problem:
        message = f"expected a whole picture, found {problem.found}"
        raise DownloadError(message, shown, retryable=problem.cut_off) from problem
    except aiohttp.ClientConnectorDNSError as error:
        if isinstance(error.os_error, AddressRefused):
            raise DownloadError("refused a link to an address of a private network", shown) from error
        raise DownloadError("the result host has no address", shown, retryable=True) from error
    except TimeoutError as error:
        raise DownloadError("the download took too long or stalled", shown, retryable=True) from _safe(error)
    except aiohttp.InvalidURL:
        raise DownloadError("expected an http or https link, found one that cannot be read", shown) from None
    except aiohttp.ClientPayloadError as error:
        raise DownloadError(
            "the connection broke before the end of the picture", shown, retryable=True
        ) from _safe(error)
    except (aiohttp.ClientError, OSError) as error:
        kind = type(error).__name__
        retryable = not isinstance(error, aiohttp.ClientSSLError)
        raise DownloadError(f"the download failed ({kind})", shown, retryable=retryable) from _safe(error)


def _safe(error: Exception) -> Exception | None:
    return None if "?" in str(error) else error


@contextmanager
def _on_disk(shown: str, shelf: Shelf) -> Iterator[None]:
    """Turn what the file system raises into DownloadError with the file's name."""
    try:
        yield
    except OtherFileExists as error:
        message = f"expected no file or the same one, found another at {error.filename}; move it away"
        raise DownloadError(message, shown) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        where = error.filename if isinstance(error.filename, str) else shelf
        message = f"the picture could not be written to {where}: {reason}"
        raise DownloadError(message, shown, local=True) from error


async def _in_thread(function: Callable[..., _T], *args: Any) -> _T:
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(8)
        _threads.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
