"""A client of the records of this installation, with no server between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ml_backend.bootstrap.local_client import local_client
from ml_backend.bootstrap.tokens import open_tokens
from ml_backend.callers import Role
from ml_backend.client import Client
from ml_backend.errors import EngineUnavailable, NotFound, StoreError
from ml_backend.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of an installation that lets nobody in without a proof."""
    return Settings(data_dir=tmp_path / "data", basic_auth_user="lab", basic_auth_pass="secret")


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """Yield a client of its records, which are made for it."""
    with local_client(settings) as client:
        yield client


def test_whoever_has_the_records_needs_no_token(client: Client, settings: Settings) -> None:
    open_tokens(settings).create("anna", Role.PREDICT)

    caller = client.whoami()

    assert (caller.name, caller.role) == (None, Role.ADMIN)
    assert {"nuclei-1"} <= {model.name for model in client.models.find()}
    assert list(client.sessions.find()) == []


def test_what_is_not_there_is_our_error(client: Client) -> None:
    with pytest.raises(NotFound, match="ml-backend sessions list"):
        client.sessions.get("nothing")


def test_there_is_no_engine_to_ask(client: Client) -> None:
    with pytest.raises(EngineUnavailable):
        client.infer(np.zeros((8, 8), np.uint8))


def test_closing_it_ends_the_application(settings: Settings) -> None:
    with local_client(settings):
        assert "application" in {thread.name for thread in threading.enumerate()}

    assert "application" not in {thread.name for thread in threading.enumerate()}


def test_records_that_cannot_be_used_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="file"):
        local_client(Settings(data_dir=tmp_path / "file"))
