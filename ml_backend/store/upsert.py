"""Inserts that two processes may do at once, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ml_backend.store.schema import Base


def insert_if_new(session: Session, table: type[Base], values: dict[str, Any]) -> bool:
    """Insert a row unless one with its key is there; return whether it was inserted."""
    # the row count of an insert that met a conflict is not told by every driver
    key = inspect(table).primary_key[0]
    statement = _insert(session, table).values(**values).on_conflict_do_nothing()
    return session.execute(statement.returning(key)).first() is not None


def insert_or_replace(session: Session, table: type[Base], values: dict[str, Any]) -> None:
    """Insert a row, or give the one with its key these values."""
    keys = [column.name for column in inspect(table).primary_key]
    rest = {name: value for name, value in values.items() if name not in keys}
    statement = _insert(session, table).values(**values)
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))


def _insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)
