"""What the records promise on every database."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ml_backend.errors import StoreError
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.schema import Base, ComponentRow
from tests.contracts import rivals


class TestDatabase:
    def test_migrations_make_exactly_the_tables_of_the_schema(
        self, fresh_database: Database
    ) -> None:
        with fresh_database.engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

        assert differences == []

    def test_migrating_again_changes_nothing(self, fresh_database: Database) -> None:
        with fresh_database.write() as session:
            session.add(ComponentRow(requested="auto", recorded_at=1.0))

        fresh_database.migrate()

        with fresh_database.read() as session:
            assert session.get(ComponentRow, "auto") is not None

    def test_four_threads_may_migrate_at_once(self, address: str) -> None:
        start = threading.Barrier(4)

        def migrate() -> None:
            database = Database(address)
            start.wait()
            database.migrate()
            database.close()

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(migrate) for _ in range(4)]:
                done.result()

        assert Projects(Database(address)).all() == []

    def test_two_processes_may_migrate_at_once(self, address: str) -> None:
        context = multiprocessing.get_context("spawn")

        with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
            start = manager.Barrier(2)
            for done in [pool.submit(rivals.migrate, address, start) for _ in range(2)]:
                done.result()

        assert Projects(Database(address)).all() == []

    def test_records_of_a_newer_version_are_refused_with_a_sentence(
        self, fresh_database: Database
    ) -> None:
        with fresh_database.write() as session:
            session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(StoreError, match="newer version"):
            fresh_database.migrate()

    def test_an_exception_rolls_the_transaction_back(self, database: Database) -> None:
        def write_and_fail() -> None:
            with database.write() as session:
                session.add(ComponentRow(requested="auto", recorded_at=1.0))
                session.flush()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_and_fail()

        with database.read() as session:
            assert session.get(ComponentRow, "auto") is None

    def test_a_broken_statement_is_a_store_error_that_names_no_password(
        self, database: Database
    ) -> None:
        with pytest.raises(StoreError, match="cannot be read"), database.read() as session:
            session.execute(sa.text("SELECT * FROM nowhere"))

    def test_a_reader_is_not_blocked_by_a_writer(self, database: Database) -> None:
        with database.write() as writing:
            writing.add(ComponentRow(requested="auto", recorded_at=1.0))
            writing.flush()

            with database.read() as reading:
                assert reading.get(ComponentRow, "auto") is None

    def test_read_then_write_never_fails_between_two_writers(self, database: Database) -> None:
        with database.write() as session:
            session.add(ComponentRow(requested="count", problem="0", recorded_at=1.0))

        def count_up() -> None:
            for _ in range(10):
                with database.write() as session:
                    row = session.get(ComponentRow, "count", with_for_update=True)
                    assert row is not None
                    row.problem = str(int(row.problem or "0") + 1)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(count_up) for _ in range(4)]:
                done.result()

        with database.read() as session:
            row = session.get(ComponentRow, "count")
            assert row is not None
            assert row.problem == "40"
