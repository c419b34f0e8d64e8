"""The records: tables in SQL, made and brought up to date."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from ml_backend.settings import Settings
from ml_backend.store.database import BUSY_TIMEOUT_S, Database

MEGABYTE = 1_000_000


def prepare_records(settings: Settings) -> None:
    """Make the data folder and bring the tables up to date; no connection stays open.

    Raises:
        StoreError
    """
    database = open_database(settings)
    try:
        database.migrate()
    finally:
        database.close()  # web forks after this, and connections must not be shared over a fork


def open_database(settings: Settings, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Database:
    """Return the records.

    Raises:
        StoreError
    """
    return Database(settings.database_address, busy_timeout_s=busy_timeout_s)


def existing_records(settings: Settings) -> Database | None:
    """Return the records, brought up to date; None where nothing has made any on this machine yet.

    For commands that need none, but know more where there are some.

    Raises:
        StoreError: there are some, but they cannot be read.
    """
    default = Path(settings.database_address.removeprefix("sqlite:///"))
    if settings.database_url is None and not default.is_file():
        return None
    prepare_records(settings)
    return open_database(settings)


def secret_of(value: SecretStr | None) -> str | None:
    """Return a secret setting in clear, None when it is not set."""
    return None if value is None else value.get_secret_value()
