"""Datasets outside Label Studio that sessions were asked for with: each source has one row."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from ml_backend.datasets import DatasetSource, StoredDataset, is_dataset
from ml_backend.domain import ProjectKey
from ml_backend.store.database import Database
from ml_backend.store.packing import from_json, to_json
from ml_backend.store.schema import DatasetRow, SessionRow, VersionRow
from ml_backend.store.upsert import insert_if_new

LONGEST_NAME = 80  # characters; a number may follow
_ARCHIVES = re.compile(r"\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")  # names stand in addresses and on command lines
_FIRST_NAMES_LOOKED_FOR = 1000


@dataclass(frozen=True, kw_only=True)
class DatasetUse:
    """What came of a dataset."""

    sessions: int  # of whatever state
    models: int  # that they made


class Datasets:
    """The table of datasets."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def register(self, source: DatasetSource) -> StoredDataset:
        """Return the dataset of that source: the one that is known, or a new one.

        Of any number of concurrent calls with the same source all get the same one.

        Raises:
            StoreError
        """
        while True:  # another may take the name, or register the same, between look and insert
            with self._database.write() as transaction:
                query = select(DatasetRow).where(DatasetRow.digest == source.digest)
                row = transaction.scalar(query)
                if row is not None:
                    return _to_dataset(row)
                values = {
                    "name": _free_name(transaction, name_of(source.root)),
                    "digest": source.digest,
                    "source": to_json(source.canonical()),
                    "created_at": self._clock(),
                }
                if insert_if_new(transaction, DatasetRow, values):
                    return _to_dataset(transaction.scalars(query).one())

    def get(self, name: str) -> StoredDataset | None:
        """Return the dataset of that name, None if there is none.

        Raises:
            StoreError
        """
        with self._database.read() as transaction:
            row = transaction.scalar(select(DatasetRow).where(DatasetRow.name == name))
            return None if row is None else _to_dataset(row)

    def by_key(self, key: ProjectKey) -> StoredDataset | None:
        """Return the dataset that a key stands for, None if it stands for none that is known.

        Raises:
            StoreError
        """
        if not is_dataset(key):
            return None
        with self._database.read() as transaction:
            row = transaction.get(DatasetRow, key.project_id)
            dataset = None if row is None else _to_dataset(row)
        return dataset if dataset is not None and dataset.key == key else None

    def all(self, *, limit: int = 100, after: StoredDataset | None = None) -> list[StoredDataset]:
        """Return datasets, the newest first; `after` is the last one of the page before.

        Raises:
            StoreError
        """
        query = select(DatasetRow).order_by(DatasetRow.number.desc()).limit(limit)
        if after is not None:
            query = query.where(DatasetRow.number < after.number)
        with self._database.read() as transaction:
            return [_to_dataset(row) for row in transaction.scalars(query)]

    def use_of(self, datasets: Sequence[StoredDataset]) -> dict[str, DatasetUse]:
        """Return by name what came of each of these.

        Raises:
            StoreError
        """
        names = [dataset.name for dataset in datasets]
        keys = {str(dataset.key): dataset.name for dataset in datasets}
        sessions = select(SessionRow.dataset, func.count()).group_by(SessionRow.dataset)
        models = select(VersionRow.project, func.count()).group_by(VersionRow.project)
        with self._database.read() as transaction:
            of_names = transaction.execute(sessions.where(SessionRow.dataset.in_(names))).all()
            of_keys = transaction.execute(models.where(VersionRow.project.in_(keys))).all()
        asked = {name: count for name, count in of_names if name is not None}
        made = {keys[key]: count for key, count in of_keys}
        return {
            name: DatasetUse(sessions=asked.get(name, 0), models=made.get(name, 0))
            for name in names
        }


def name_of(root: str) -> str:
    """Return what people would call the dataset in a folder or at an address."""
    address = urlsplit(root)
    path = unquote(address.path) if address.scheme in ("http", "https") else root
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    name = _NOT_IN_NAMES.sub("-", _ARCHIVES.sub("", last)).strip("-.")
    return name[:LONGEST_NAME] or "dataset"


def _free_name(transaction: Transaction, wanted: str) -> str:
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, _FIRST_NAMES_LOOKED_FOR))]
    taken = _taken(transaction, names)
    for name in names:
        if name not in taken:
            return name
    number = _FIRST_NAMES_LOOKED_FOR
    while _taken(transaction, [f"{wanted}-{number}"]):
        number += 1
    return f"{wanted}-{number}"


def _taken(transaction: Transaction, names: Sequence[str]) -> set[str]:
    return set(transaction.scalars(select(DatasetRow.name).where(DatasetRow.name.in_(names))))


def _to_dataset(row: DatasetRow) -> StoredDataset:
    return StoredDataset(
        number=row.number,
        name=row.name,
        source=DatasetSource.from_json(from_json(row.source)),
        created_at=row.created_at,
    )
