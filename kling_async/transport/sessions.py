"""
One aiohttp session for an account: opened at the first call, closed once, never followed by a redirect.

Replies are read through a cap on their decompressed size, because aiohttp has none, and are parsed elsewhere whatever
their Content-Type says. What aiohttp raises ends here, as errors that know whether the request may have left.
"""

from __future__ import annotations

import asyncio
import os
import platform
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from kling_async._frames import without_frames
from kling_async._version import __version__
from kling_async.errors import ConfigError, KlingError, MalformedReply, RequestTimeout, TransportError
from kling_async.protocol.auth import Sealed
from kling_async.protocol.bodies import Body
from kling_async.protocol.codec import Reply
from kling_async.protocol.endpoints import Timeouts
from kling_async.protocol.requests import Request
from kling_async.protocol.service import EMULATOR_HEADER, Service, is_vendors, origin
from kling_async.transport.addresses import proxy_for
from kling_async.transport.bodies import BodyPayload
from kling_async.transport.larder import Larder
from kling_async.transport.turns import Turns

if TYPE_CHECKING:
    from kling_async.transport.stand_in import StandInResponse, StandInSession

__all__ = ["Connection", "Session"]

# Larger than any reply about one task, and than a page of 500 tasks with nine signed links each.
_LARGEST_REPLY = 1 << 20
_LARGEST_LIST = 32 << 20
_LARGE_BODY = 1 << 20

# Headers that decide something later; the rest of a reply's headers is kept for `with_raw_response` alone.
_USER_AGENT = f"kling-async/{__version__} python/{platform.python_version()} aiohttp/{aiohttp.__version__}"


@frozen(kw_only=True)
class Connection:
    """How to reach the service: *proxy* is a URL, *connections* the most sockets of one account at once."""

    base_url: str
    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = True
    connections: int = 128

    def proxy_of(self, url: URL) -> str | None:
        """Return the proxy to reach *url* through: the given one, else what the environment names if it is trusted."""
        return self.proxy or (proxy_for(url) if self.trust_env else None)


@define(eq=False)
class Session:
    """
    Sends requests of one account over its own aiohttp session, or over a *borrowed* one that is never closed.

    Belongs to the event loop of its first call. Sessions of one client share its *larder* and its *turns*.
    """

    _connection: Connection
    _borrowed: aiohttp.ClientSession | StandInSession | None = field(default=None, repr=False)
    _larder: Larder = field(factory=Larder, repr=False)
    _turns: Turns = field(factory=Turns, repr=False)
    _own: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)
    # The proxy, once it is known: reading the environment costs as much as sending a request.
    _route: tuple[str | None] | None = field(default=None, init=False, repr=False)
    requests: int = field(default=0, init=False)
    # The name of the emulator that answers, empty if it is the service, None as long as nobody knows.
    _emulator: str | None = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._emulator = "" if is_vendors(self._connection.base_url) else None

    @property
    def origin(self) -> str:
        """Where requests go: scheme, host and port."""
        return origin(self._connection.base_url)

    @property
    def service(self) -> Service | None:
        """Who answers, as far as the address or the replies have told."""
        return None if self._emulator is None else Service(self.origin, self._emulator)

    @property
    def is_open(self) -> bool:
        """Whether a session of our own is open."""
        return self._own is not None

    async def send(
        self, request: Request, token: Sealed, timeouts: Timeouts, *, not_after: float | None = None
    ) -> Reply:
        """
        Send *request* once and return the reply, whatever it says.

        After the moment *not_after* (monotonic seconds) no byte of its body leaves any more, so that it never arrives
        whole from a process that was stopped meanwhile.

        Raises `TransportError` (with *sent*), `RequestTimeout`, `MalformedReply` for one over the cap, `ConfigError`
        for certificates, proxies and addresses that cannot work, and `InvalidJob` if a picture changed meanwhile.
        """
        payload = self._payload(request.body, timeouts, not_after) if request.body else None
        limit = timeouts.for_body(request.body.length) if request.body else timeouts.request
        self.requests += 1
        try:
            return await self._exchange(request, payload, token, _limits(limit, timeouts.connect))
        except (KlingError, asyncio.CancelledError) as error:
            raise without_frames(error)  # noqa: B904  # the same error, with what led to it
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            trouble, cause = _translated(error, payload, limit)
            without_frames(error)
        # Not raised above, where what aiohttp raised would be its context: some of that holds the request's headers.
        raise trouble from cause

    def _payload(self, body: Body, timeouts: Timeouts, not_after: float | None) -> BodyPayload:
        # A small body is in the kernel at once; only for a large one slow and stuck can be told apart.
        stall_after = timeouts.request if body.length > _LARGE_BODY else None
        return BodyPayload(body, self._larder, self._turns, stall_after=stall_after, not_after=not_after)

    async def _exchange(
        self, request: Request, payload: BodyPayload | None, token: Sealed, timeout: aiohttp.ClientTimeout
    ) -> Reply:
        url = self._url(request)
        async with self._opened().request(
            request.method,
            url,
            data=payload,
            headers={"Authorization": f"Bearer {token.text}", "Content-Type": "application/json"},
            allow_redirects=False,
            # A borrowed session may be set to raise, but what a refusal means stands in its body.
            raise_for_status=False,
            proxy=self._proxy(url),
            timeout=timeout,
        ) as response:
            body = await _read(response, _LARGEST_LIST if request.query else _LARGEST_REPLY)
            headers = {name.lower(): value for name, value in response.headers.items()}
            self._recognise(headers.get(EMULATOR_HEADER), response.status)
            return Reply(status=response.status, headers=headers, body=body)

    def _recognise(self, emulator: str | None, status: int) -> None:
        if emulator is not None:
            self._emulator = emulator
        elif self._emulator is None and status < 500:
            # What a gateway says for one that does not answer tells nothing of who it is.
            self._emulator = ""

    async def aclose(self) -> None:
        """Close the session if it is ours; safe to call again."""
        if self._own is not None:
            own, self._own = self._own, None
            await own.close()

    def _opened(self) -> aiohttp.ClientSession | StandInSession:
        if self._borrowed is not None:
            if self._borrowed.closed:
                raise ConfigError("the session given to this client is closed; close it after the client")
            return self._borrowed
        if self._own is None:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connection.connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": _USER_AGENT, "Accept": "application/json"},
                # Of the environment only proxies are wanted: an entry in .netrc would replace our own token.
                trust_env=False,
            )
        return self._own

    def _proxy(self, url: URL) -> str | None:
        if self._route is None:
            self._route = (self._connection.proxy_of(url),)
        return self._route[0]

    def _url(self, request: Request) -> URL:
        url = URL(self._connection.base_url + request.path, encoded=True)
        return url.with_query(request.query) if request.query else url


# Requests of the same size have the same; making it takes longer than looking it up.
@lru_cache(64)
def _limits(total: float, connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total, sock_connect=connect)


async def _read(response: aiohttp.ClientResponse | StandInResponse, most: int) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > most:
            response.close()
            raise MalformedReply(
                f"expected a reply of at most {most:,} bytes, found a larger one", response.status
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _translated(
    error: Exception, payload: BodyPayload | None, limit: float
) -> tuple[KlingError, Exception | None]:
    """Return our error for what aiohttp raised, and its cause; the class never decides whether the request left."""
    if payload is not None and payload.fault is not None:
        return payload.fault, None
    if payload is not None and payload.stalled:
        return RequestTimeout(
            f"the connection is stuck: {payload.progress} were taken, then nothing any more", sent=True
        ), None
    if (
        payload is not None
        and isinstance(error, asyncio.TimeoutError)
        and 0 < payload.taken < (payload.size or 0)
    ):
        found = f"too slow: {payload.progress} were taken in {limit:g} s"
        return RequestTimeout(f"{found}; give more time with Timeouts(per_megabyte=...)", sent=True), error
    # A listing or a look-up that is repeated does no harm, so for those *sent* needs no knowing.
    meaning = _meaning(error, sent=payload is not None and payload.began, limit=limit)
    # Errors with a status hold the request's headers, and with them the token, so they are not chained.
    return meaning, None if isinstance(error, aiohttp.ClientResponseError) else error


def _meaning(error: Exception, *, sent: bool, limit: float) -> KlingError:
    if isinstance(error, aiohttp.InvalidURL):
        return ConfigError(f"the address {error.url} cannot be used; check the base URL")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        return ConfigError(
            f"the certificate of {_host(error)} is not accepted; check the base URL, the proxy and the CA"
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "; put its credentials into the proxy's URL" if error.status == 407 else ""
        return ConfigError(f"the proxy refused the connection (HTTP {error.status}){hint}")
    if isinstance(error, asyncio.TimeoutError):
        if _connecting(error):
            return RequestTimeout(f"the connection was not ready in time{'' if sent else _UNSENT}", sent)
        return RequestTimeout(f"no whole answer within {limit:g} s", sent)
    if isinstance(error, aiohttp.ClientConnectorError) and not sent:
        return TransportError(f"cannot connect to {_host(error)} ({_reason(error)}){_UNSENT}", sent=False)
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError("the answer is no HTTP that can be read", sent)
    return TransportError(f"the connection broke ({_reason(error)})", sent)


def _connecting(error: Exception) -> bool:
    return isinstance(error, aiohttp.ConnectionTimeoutError)


def _host(error: Exception) -> str:
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    return f"{host}:{port}" if host else "the service"


def _reason(error: Exception) -> str:
    inner = getattr(error, "os_error", None) or error.__cause__ or error
    if isinstance(inner, ssl.SSLError):
        return f"TLS: {inner.reason or 'handshake failed'}"
    if isinstance(inner, OSError) and inner.strerror:
        # asyncio puts addresses there, which have been named, or the texts of several errors that are the same.
        ours = inner.strerror.startswith(("Connect call failed", "Multiple exceptions"))
        return os.strerror(inner.errno) if ours and inner.errno else inner.strerror
    # The texts of aiohttp's own errors show its insides, over several lines.
    return next((words for kind, words in _BREAKS if isinstance(error, kind)), type(error).__name__)


_UNSENT = "; nothing was sent: check the base URL, the network and any proxy"
_BREAKS = (
    (aiohttp.ServerDisconnectedError, "closed before the answer"),
    (aiohttp.ClientPayloadError, "cut before the end of the answer"),
)
