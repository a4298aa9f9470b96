"""
Which hosts results may be fetched from, decided on the address that is really connected to.

Result links come from outside. A name is looked up once, and what it resolves to is checked and then used, so that a
name which changes its address between the check and the connection gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

__all__ = ["AddressRefused", "ResultConnector", "is_public", "proxy_for", "proxy_of_address"]

# Local proxies (Clash, Surge and the like) answer every name with an address of the benchmark range and translate it
# back; nothing else lives there.
_FAKE_IP: Final = ipaddress.ip_network("198.18.0.0/15")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """A result host is at an address of this machine or of its private network."""


def is_public(address: str) -> bool:
    """Tell whether *address*, an IP address as text, belongs to the open internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        return ip.is_global and not ip.is_multicast
    return ip in _FAKE_IP or (ip.is_global and not ip.is_multicast)


def proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for *url*; credentials in `.netrc` are never looked at."""
    if url.host is None or proxy_bypass(url.host):
        return None
    return getproxies().get(url.scheme)


def proxy_of_address(address: str) -> str | None:
    """Return the proxy that the environment names for *address*, a URL."""
    return proxy_for(URL(address))


class _PublicResolver(AbstractResolver):
    """Looks names up and keeps only addresses of the open internet."""

    def __init__(self, resolver: AbstractResolver, trusted: frozenset[str]) -> None:
        self._resolver = resolver
        self._trusted = trusted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if host in self._trusted:
            return found
        public = [entry for entry in found if is_public(entry["host"])]
        if not public:
            raise AddressRefused(f"{host} is at an address of a private network")
        return public

    async def close(self) -> None:
        await self._resolver.close()


class ResultConnector(aiohttp.TCPConnector):
    """
    Connects to result hosts; refuses private, loopback, link-local and metadata addresses unless *allow_private*.

    Proxies named in *proxies* may be anywhere. Behind one, the proxy looks names up and connects, so that only
    addresses written as numbers can be checked here.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        proxies: tuple[str, ...] = (),
        resolver: AbstractResolver | None = None,
        limit: int = 100,
    ) -> None:
        inner = resolver or aiohttp.ThreadedResolver()
        self.allow_private = allow_private
        self.proxy_hosts = frozenset(host for proxy in proxies if (host := URL(proxy).host))
        super().__init__(
            resolver=inner if allow_private else _PublicResolver(inner, self.proxy_hosts), limit=limit
        )
