"""The records before a process begins to work with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from ml_backend.bootstrap.records import prepare_records
from ml_backend.settings import read_settings


@pytest.fixture
def connections() -> Iterator[list[Any]]:
    """Yield the connections that are open, as they come and go."""
    opened: list[Any] = []

    def note(connection: Any, _record: Any) -> None:
        opened.append(connection)

    def strike(connection: Any, _record: Any) -> None:
        opened.remove(connection)

    event.listen(Pool, "connect", note)
    event.listen(Pool, "close", strike)
    yield opened
    event.remove(Pool, "connect", note)
    event.remove(Pool, "close", strike)


def test_preparing_the_records_leaves_no_connection_to_be_shared_over_a_fork(
    tmp_path: Path, connections: list[Any]
) -> None:
    prepare_records(read_settings(data_dir=tmp_path))

    assert (tmp_path / "records.sqlite3").exists()
    assert connections == []
