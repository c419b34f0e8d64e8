"""A client, and a server over real sockets that answers as the test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_backend.client import Client, Retries
from tests.scripted_api import ScriptedApi
from tests.uvicorn_server import uvicorn_server

TOKEN = "mlb_ab12cd34_thesecretpartofthetoken"
QUICK = Retries(times=3, first_s=0.001, longest_s=0.05)


@pytest.fixture(scope="session")
def _served_script() -> Iterator[tuple[ScriptedApi, str]]:
    api = ScriptedApi()
    with uvicorn_server(api) as url:
        yield api, url


@pytest.fixture
def api(_served_script: tuple[ScriptedApi, str]) -> ScriptedApi:
    """Return the server, with nothing written down yet."""
    api, _ = _served_script
    api.script.clear()
    api.asked.clear()
    return api


@pytest.fixture
def url(_served_script: tuple[ScriptedApi, str]) -> str:
    """Return the server's address."""
    return _served_script[1]


@pytest.fixture
def client(api: ScriptedApi, url: str) -> Iterator[Client]:
    """Yield a client of that server that loses no time between its attempts."""
    with Client(url, TOKEN, timeout_s=5.0, retries=QUICK) as client:
        yield client
