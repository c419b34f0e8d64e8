"""The guard tells addresses inside the network from public ones."""

from __future__ import annotations

import httpx
import pytest

from ml_backend.errors import ImageRefused
from ml_backend.imaging.addresses import AddressGuard, is_loopback_host, same_origin

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104 - an address to refuse, not one to listen on
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2001:db8::1",
]


def guard(*allowed: str, resolves_to: list[str]) -> AddressGuard:
    return AddressGuard(allowed, resolver=lambda host, port: resolves_to)


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_the_network_is_refused(address: str) -> None:
    with pytest.raises(ImageRefused, match=r"host\.test"):
        guard(resolves_to=[address]).check(httpx.URL("http://host.test/a.png"), trusted=False)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_allowed(address: str) -> None:
    found = guard(resolves_to=[address]).check(httpx.URL("https://host.test/"), trusted=False)

    assert found == [address]


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(ImageRefused):
        guard(resolves_to=["93.184.215.14", "10.0.0.1"]).check(
            httpx.URL("http://host.test/"), trusted=False
        )


@pytest.mark.parametrize(
    "spelling", ["127.1", "2130706433", "0x7f000001", "017700000001", "[::ffff:7f00:1]"]
)
def test_odd_spellings_of_a_private_address_are_refused(spelling: str) -> None:
    with pytest.raises(ImageRefused):
        AddressGuard().check(httpx.URL(f"http://{spelling}/"), trusted=False)


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("host.test", "10.0.0.1"),
        ("HOST.test.", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1"),
        ("[fd00::1]", "fd00::1"),
        ("fd00::/8", "fd12::9"),
    ],
)
def test_an_allowed_host_address_or_network_may_be_private(allowed: str, address: str) -> None:
    found = guard(allowed, resolves_to=[address]).check(
        httpx.URL("http://host.test/"), trusted=False
    )

    assert found == [address]


def test_what_is_allowed_does_not_open_the_rest() -> None:
    with pytest.raises(ImageRefused):
        guard("10.0.0.0/8", "other.test", resolves_to=["192.168.0.1"]).check(
            httpx.URL("http://host.test/"), trusted=False
        )


def test_label_studios_own_origin_may_be_anywhere() -> None:
    found = guard(resolves_to=["127.0.0.1"]).check(httpx.URL("http://localhost:8080"), trusted=True)

    assert found == ["127.0.0.1"]


@pytest.mark.parametrize("address", ["ftp://host.test/a", "file:///etc/passwd", "gopher://x/"])
def test_only_http_is_spoken(address: str) -> None:
    with pytest.raises(ImageRefused, match="http and https only"):
        guard(resolves_to=["93.184.215.14"]).check(httpx.URL(address), trusted=False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a.test", "http://a.test:80/x", True),
        ("https://A.test/", "https://a.test:443", True),
        ("http://a.test", "https://a.test", False),
        ("http://a.test", "http://a.test:8080", False),
        ("http://a.test", "http://a.test.evil.test", False),
        ("http://a.test", "http://a.test@evil.test", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert same is same_origin(httpx.URL(one), httpx.URL(other))


def test_loopback_hosts_are_known_by_name_and_number() -> None:
    hosts = ["localhost", "ls.localhost", "127.0.0.1", "127.9.9.9", "::1", "label-studio"]

    assert [is_loopback_host(host) for host in hosts] == [True] * 5 + [False]
