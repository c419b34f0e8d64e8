"""Applies the packaged Alembic migrations on a connection that already holds the lock."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from ml_backend.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Upgrade to the newest revision inside the connection's transaction; nothing if there.

    Raises:
        StoreError: the records carry a revision that this version does not know.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    newest = ScriptDirectory.from_config(config).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() == newest:
        return
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            "The records were written by a newer version of this program; install that version, "
            "or start with another DATA_DIR or DATABASE_URL."
        ) from error
