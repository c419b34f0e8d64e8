"""Addresses of the records, and files that cannot be written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ml_backend.errors import StoreError
from ml_backend.store.database import Database


@pytest.mark.parametrize(
    "address",
    [
        "postgres://u:p@host/name",
        "postgresql://u:p@host/name",
        "postgresql+psycopg://u:p@host/name",
    ],
)
def test_every_spelling_of_postgresql_uses_psycopg(address: str) -> None:
    assert Database(address).url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nonsense", "no SQLAlchemy address"),
        ("mysql://u:p@host/name", "not supported"),
        ("sqlite://", "need a file"),
        ("sqlite:///:memory:", "need a file"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_a_sentence(
    address: str, sentence: str
) -> None:
    with pytest.raises(StoreError, match=sentence):
        Database(address)


def test_a_missing_folder_is_made_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "records.sqlite3"

    Database(f"sqlite:///{path}").migrate()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="set DATA_DIR"):
        Database(f"sqlite:///{tmp_path / 'file' / 'records.sqlite3'}")


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite3"
    path.write_bytes(b"not a database, not a database, not a database, not a database" * 99)

    with pytest.raises(StoreError, match="cannot be written"):
        Database(f"sqlite:///{path}").migrate()


def test_a_server_that_is_away_is_a_sentence_without_the_password(tmp_path: Path) -> None:
    database = Database(f"postgresql://user:hidden@/records?host={tmp_path}")

    with pytest.raises(StoreError, match="check that the database is up") as caught:
        database.migrate()
    database.close()

    assert "hidden" not in caught.value.message
