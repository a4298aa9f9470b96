from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kling_async.transport.addresses import AddressRefused, ResultConnector, is_public, proxy_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "198.18.3.4", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
async def test_addresses_of_the_internet_are_public(address: str) -> None:
    """Global addresses pass, and those that local proxies make up."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1", "255.255.255.255",
     "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "localhost", "127.1"],
)  # fmt: skip
async def test_other_addresses_are_not(address: str) -> None:
    """Loopback, private, link-local, shared, metadata and multicast addresses are not, however they are wrapped."""
    assert not is_public(address)


class Names(AbstractResolver):
    """Answers with fixed addresses."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host]
        ]

    async def close(self) -> None:
        """Hold nothing."""


async def resolve(host: str, **options: Any) -> list[str]:
    names = Names(mixed=["10.0.0.1", "1.1.1.1"], inner=["127.0.0.1"], proxy=["10.0.0.2"])
    connector = ResultConnector(resolver=names, **options)
    try:
        return [entry["host"] for entry in await connector._resolver.resolve(host, 443)]
    finally:
        await connector.close()


async def test_only_public_addresses_of_a_name_are_used() -> None:
    """A name keeps its public addresses; one that has none is refused, except that of the proxy."""
    assert await resolve("mixed") == ["1.1.1.1"]
    with pytest.raises(AddressRefused):
        await resolve("inner")
    assert await resolve("proxy", proxies=("http://user:pass@proxy:3128",)) == ["10.0.0.2"]


async def test_private_addresses_can_be_allowed() -> None:
    """For a service on this machine every address is fine."""
    assert await resolve("inner", allow_private=True) == ["127.0.0.1"]


async def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the URL's scheme is used unless its host is excepted."""
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inner.example")
    monkeypatch.delenv("http_proxy", raising=False)

    assert proxy_for(URL("https://cdn.example/x")) == "http://proxy:3128"
    assert proxy_for(URL("https://inner.example/x")) is None
    assert proxy_for(URL("http://cdn.example/x")) is None
    assert proxy_for(URL("/x")) is None
