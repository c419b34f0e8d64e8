"""Whether the records can be worked with: there, of this version, and not only to read."""

from __future__ import annotations

import os
import shutil
from enum import StrEnum
from pathlib import Path

from sqlalchemy import text

from ml_backend.store.database import Database

LEAST_FREE_BYTES = 20_000_000  # on the disk of a SQLite file; below, writes begin to fail


class RecordsState(StrEnum):
    """What the records can be used for."""

    READY = "ok"
    OTHER_VERSION = "other version"  # their tables are not those of this program
    READ_ONLY = "read-only"
    DISK_FULL = "disk full"


def look_at_records(database: Database) -> RecordsState:
    """Return what can be done with the records; writes nothing and waits for no writer.

    Raises:
        StoreError: they cannot be reached.
    """
    # Alembic is slow to import and only needed here.
    from ml_backend.store.migrate import current_revision, newest_revision

    with database.read() as session:
        revision = current_revision(session.connection())
        is_read_only = not database.is_sqlite and session.scalar(
            text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'")
        )
    if revision != newest_revision():
        return RecordsState.OTHER_VERSION
    if database.is_sqlite:
        return _look_at_disk(Path(database.url.database or ""))
    return RecordsState.READ_ONLY if is_read_only else RecordsState.READY


def _look_at_disk(file: Path) -> RecordsState:
    # SQLite writes beside the file as well
    if not all(os.access(path, os.W_OK) for path in (file, file.parent)):
        return RecordsState.READ_ONLY
    if shutil.disk_usage(file.parent).free < LEAST_FREE_BYTES:
        return RecordsState.DISK_FULL
    return RecordsState.READY
