"""Addresses of servers, and what proves to them who asks."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ml_backend.errors import BadRequest

DEFAULT_URL = "http://localhost:9090"
_LOCAL_NAMES = ("localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is; its text is safe to show."""

    url: str  # scheme://host[:port][/prefix], no slash at the end, no password
    is_here: bool  # on this machine
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)  # that it was given with

    def __str__(self) -> str:
        """Return the address."""
        return self.url


def parse_address(text: str) -> Address:
    """Return the address that a person writes.

    Raises:
        BadRequest: it is none.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        shown = text.rpartition("@")[2][:200]  # without a password
        raise BadRequest(f"{shown!r} is no address of a backend; write one like {DEFAULT_URL}.")
    name = f"[{host}]" if ":" in host else host
    netloc = name if port is None else f"{name}:{port}"
    basic_auth = None
    if parts.username is not None:
        basic_auth = (unquote(parts.username), unquote(parts.password or ""))
    return Address(
        url=f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}",
        is_here=host in _LOCAL_NAMES or host.startswith("127."),
        basic_auth=basic_auth,
    )


def authorization_of(token: str | None, basic_auth: tuple[str, str] | None) -> str | None:
    """Return the header that proves who asks, None without a proof.

    Raises:
        BadRequest: there are two proofs, or the token cannot be one.
    """
    if token is not None and basic_auth is not None:
        raise BadRequest("Give a token or user and password (basic_auth), not both.")
    if token is not None:
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise BadRequest(
                "The token is not one that `ml-backend tokens create` shows; copy it whole."
            )
        return f"Bearer {token}"
    if basic_auth is not None:
        encoded = base64.b64encode(":".join(basic_auth).encode()).decode("ascii")
        return f"Basic {encoded}"
    return None
