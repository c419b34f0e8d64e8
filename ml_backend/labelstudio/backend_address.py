"""Which address names which backend: this machine has several names for itself."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from ml_backend.labelstudio.rows import ConnectedBackend

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}


def is_same_address(one: str, other: str) -> bool:
    """Return whether both lead to the same place, on this machine by whatever name."""
    return _normal(one) == _normal(other)


def find_backend(rows: Iterable[ConnectedBackend], url: str) -> ConnectedBackend | None:
    """Return the row of the backend at `url`, rather one with this very address, or None."""
    same = [row for row in rows if is_same_address(row.url, url)]
    exact = [row for row in same if row.url == url.rstrip("/")]
    return next(iter([*exact, *same]), None)


def _normal(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    try:
        port = parts.port
    except ValueError:  # no number: equal to nothing but itself
        return (url, "", None, "")
    return (
        parts.scheme,
        "localhost" if host in _THIS_MACHINE else host,
        port or _PORTS.get(parts.scheme),
        parts.path.rstrip("/"),
    )
