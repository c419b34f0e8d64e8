"""Which trainers are there: those that wait for work leave no other trace in the records."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, select

from ml_backend.store.database import Database
from ml_backend.store.schema import TrainerRow
from ml_backend.store.upsert import insert_or_replace

SEEN_EVERY_S = 15.0
GONE_AFTER_S = 60.0
"""So long after it was seen last a trainer is taken to be gone."""


class Trainers:
    """The table of trainers, each of which works on one session at a time."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def seen(self, name: str) -> None:
        """Note that a trainer is there; call it every `SEEN_EVERY_S`.

        Raises:
            StoreError
        """
        now = self._clock()
        with self._database.write() as session:
            insert_or_replace(session, TrainerRow, {"name": name, "seen_at": now})
            session.execute(delete(TrainerRow).where(TrainerRow.seen_at < now - GONE_AFTER_S))

    def leave(self, name: str) -> None:
        """Note that a trainer ends.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            session.execute(delete(TrainerRow).where(TrainerRow.name == name))

    def present(self) -> list[str]:
        """Return the names of the trainers that are there, in alphabetical order.

        Raises:
            StoreError
        """
        since = self._clock() - GONE_AFTER_S
        query = select(TrainerRow.name).where(TrainerRow.seen_at >= since)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(TrainerRow.name)))
