"""A server to fetch from, and a fetcher as bootstrap makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.imaging.addresses import AddressGuard, resolve
from ml_backend.imaging.cache import DiskCache
from ml_backend.imaging.credentials import Credentials
from ml_backend.imaging.fetch import HttpFetcher
from ml_backend.imaging.transport import GuardedClient
from tests.image_server import ImageServer

MakeFetcher = Callable[..., HttpFetcher]


@pytest.fixture
def label_studio() -> Iterator[ImageServer]:
    with ImageServer() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[ImageServer]:
    with ImageServer() as server:
        yield server


@pytest.fixture
def make_fetcher(tmp_path: Path) -> MakeFetcher:
    def make(
        *, allowed: tuple[str, ...] = (), resolver: Any = resolve, **changed: Any
    ) -> HttpFetcher:
        client = GuardedClient(AddressGuard(allowed, resolver=resolver))
        cache = changed.pop("cache", None) or DiskCache(tmp_path / "cache", max_bytes=10_000_000)
        arguments: dict[str, Any] = {
            "timeout_s": 10.0,
            "max_bytes": 1_000_000,
            "sleep": lambda seconds: None,
        }
        arguments.update(changed)
        return HttpFetcher(client, Credentials(client), cache, **arguments)

    return make
