"""Every implementation of the records and of the queue, one parameter each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_backend.store.database import Database
from ml_backend.store.schema import Base
from tests.servers import fresh_postgres_database, private_postgres, private_redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the address of a private cluster."""
    with private_postgres() as address:
        yield address


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """Yield the address of a private Redis."""
    with private_redis() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of empty records."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'records.sqlite3'}"
        else:
            maintenance = request.getfixturevalue("postgres")
            yield stack.enter_context(fresh_postgres_database(maintenance))


@pytest.fixture
def fresh_database(address: str) -> Iterator[Database]:
    """Yield records of their own, migrated in this test."""
    database = Database(address)
    database.migrate()
    yield database
    database.close()


@pytest.fixture(scope="session")
def shared_postgres(postgres: str) -> Iterator[Database]:
    """Yield migrated records in PostgreSQL, to be emptied before each use."""
    with fresh_postgres_database(postgres) as address:
        database = Database(address)
        database.migrate()
        yield database
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Yield migrated, empty records; quicker than fresh ones."""
    if request.param == "postgresql":
        shared: Database = request.getfixturevalue("shared_postgres")
        with shared.write() as session:
            names = ", ".join(table.name for table in Base.metadata.sorted_tables)
            session.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
        yield shared
    else:
        database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
        database.migrate()
        yield database
        database.close()
