"""Which network addresses images may come from.

Anyone who may import tasks chooses the addresses that this machine downloads from. So an address
inside the network (the metadata service of a cloud, a database, a printer) is refused unless it
was allowed, and what was checked is what is connected to: a name is resolved once.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import TypeAlias

import httpx

from ml_backend.errors import ImageFetchError, ImageRefused

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], list[str]]
"""(host, port) -> IP addresses as text; raises OSError when the name is unknown."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, as the system finds them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def port_of(url: httpx.URL) -> int:
    """Return the port of an address, the scheme's own when it names none."""
    return url.port or _DEFAULT_PORTS.get(url.scheme, 0)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return whether two addresses share scheme, host and port."""
    return (one.scheme, one.host, port_of(one)) == (other.scheme, other.host, port_of(other))


def is_loopback_host(host: str) -> bool:
    """Return whether a host's name means the machine that says it."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AddressGuard:
    """Decides which IP addresses may be connected to."""

    def __init__(self, allowed: Iterable[str] = (), *, resolver: Resolver = resolve) -> None:
        """Make a guard.

        Args:
            allowed: hosts, IP addresses or networks (10.0.0.0/8) inside the network that images
                may come from.
            resolver: finds the addresses of a host.
        """
        self._resolver = resolver
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in allowed:
            text = entry.strip().lower()
            try:
                self._networks.append(ipaddress.ip_network(text.strip("[]"), strict=False))
            except ValueError:
                if text:
                    self._hosts.add(text.rstrip("."))

    def allows_name(self, host: str) -> bool:
        """Return whether a host is allowed by its name or as the IP address that it is."""
        name = host.lower().rstrip(".")
        if name in self._hosts:
            return True
        try:
            return self._allows_address(ipaddress.ip_address(name))
        except ValueError:
            return False

    def check(self, url: httpx.URL, *, trusted: bool) -> list[str]:
        """Return the IP addresses that may be connected to for `url`, in order.

        Args:
            url: an http or https address.
            trusted: whether it is Label Studio's own origin, which is always allowed.

        Raises:
            ImageRefused: not http(s), or an address inside the network that is not allowed.
            ImageFetchError: when the host is unknown.
        """
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise ImageRefused(
                f"Images are fetched over http and https only, not from a {url.scheme!r} address; "
                "import the image by upload or through a storage of Label Studio."
            )
        host = url.host.rstrip(".")
        try:
            found = self._resolver(host, port_of(url))
        except (OSError, UnicodeError) as error:
            raise ImageFetchError(
                f"The host {host} is unknown to this machine; check the image's address."
            ) from error
        if trusted or host.lower() in self._hosts:
            return found
        for text in found:
            address = ipaddress.ip_address(text)
            if _is_inside(address) and not self._allows_address(address):
                raise ImageRefused(
                    f"The image's host {host} has the private address {address}; "
                    f"add {host} to ALLOWED_HOSTS if images may come from there."
                )
        return found

    def _allows_address(self, address: IPAddress) -> bool:
        plain = _embedded(address)
        return any(one in network for one in {address, plain} for network in self._networks)


def _is_inside(address: IPAddress) -> bool:
    """Return whether an address is not one of a public server."""
    plain = _embedded(address)
    if plain != address:
        return _is_inside(plain)
    return not address.is_global or address.is_multicast or address.is_reserved


def _embedded(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address leads to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
