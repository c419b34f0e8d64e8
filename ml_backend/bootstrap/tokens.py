"""The tokens of /api/v1, for the command line."""

from __future__ import annotations

from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.settings import Settings
from ml_backend.store.tokens import Tokens


def open_tokens(settings: Settings) -> Tokens:
    """Return the tokens of the records, which are made where there are none.

    Raises:
        StoreError
    """
    prepare_records(settings)
    return Tokens(open_database(settings))
