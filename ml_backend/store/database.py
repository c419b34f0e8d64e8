"""The connection to the records: SQLite in a file by default, PostgreSQL by address."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from ml_backend.errors import StoreError

BUSY_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 0x6D6C5F63  # any constant: the advisory lock's number in PostgreSQL


class Database:
    """The records' engine, with one way to read and one to write.

    Cheap to construct: it connects when first used. Do not share one over a fork.
    """

    def __init__(self, address: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Prepare the connection to `address`, a SQLAlchemy address.

        Raises:
            StoreError: the address cannot be understood, or its folder cannot be made.
        """
        self.url = _read_address(address)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._engine = _sqlite_engine(self.url, busy_timeout_s)
        else:
            self._engine = create_engine(
                self.url, pool_size=5, max_overflow=15, pool_pre_ping=True, pool_recycle=1800
            )
        self._writer = self._engine.execution_options(writes=True)

    @property
    def engine(self) -> Engine:
        """Return the SQLAlchemy engine, for tests and migrations."""
        return self._engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one consistent state and changes nothing.

        Raises:
            StoreError: the records cannot be read.
        """
        with self._errors("read"), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that is committed at the end, or rolled back by an exception.

        On SQLite it holds the one write lock from its first statement on, so that a read
        followed by a write cannot fail half way.

        Raises:
            StoreError: the records cannot be written.
        """
        with (
            self._errors("written"),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version's state; several processes may call it at once.

        Raises:
            StoreError: the records are newer than this program, or cannot be written.
        """
        # Alembic is slow to import and only needed here.
        from ml_backend.store.migrate import upgrade

        with self._errors("written"), self._writer.begin() as connection:
            if not self.is_sqlite:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK}
                )
            upgrade(connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StoreError(
                f"The records at {self._place()} cannot be {verb} ({cause}); check that the "
                "database is up, its disk has room, and DATA_DIR or DATABASE_URL is right."
            ) from error

    def _place(self) -> str:
        return self.url.render_as_string(hide_password=True)


def _read_address(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise StoreError(
            "DATABASE_URL is no SQLAlchemy address; write it like sqlite:////data/records.sqlite3 "
            "or postgresql://user:password@host/name."
        ) from error
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise StoreError(
            f"DATABASE_URL names {url.drivername}, which is not supported; use sqlite:// or "
            "postgresql://."
        )
    return url


def _sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("The records need a file: several processes share them.")
    _prepare_file(Path(url.database))
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=40,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        _switch_to_wal(connection, busy_timeout_s)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once in WAL mode when
        # another writer came between, whatever the time-out.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _prepare_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it holds access tokens
    except OSError as error:
        raise StoreError(
            f"The folder {path.parent} cannot be written ({error.strerror}); set DATA_DIR to one "
            "that can."
        ) from error


def _switch_to_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    # Changing the journal mode ignores the busy time-out while another process opens the file.
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
