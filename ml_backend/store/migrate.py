"""Applies the packaged Alembic migrations on a connection that already holds the lock."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from ml_backend.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"


@lru_cache(maxsize=1)
def newest_revision() -> str | None:
    """Return the revision that this version of the program works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the records, None for empty ones."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Upgrade to the newest revision inside the connection's transaction; nothing if there.

    Raises:
        StoreError: the records carry a revision that this version does not know.
    """
    config = _config()
    config.attributes["connection"] = connection
    if current_revision(connection) == newest_revision():
        return
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            "The records were written by a newer version of this program; install that version, "
            "or start with another DATA_DIR or DATABASE_URL."
        ) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
