"""Which kept predictions Label Studio still has to be given, and who gives it which."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, func, select, update
from sqlalchemy.orm import Session

from ml_backend.domain import Prediction
from ml_backend.store.database import Database
from ml_backend.store.prediction_rows import (
    PredictionKey,
    RowState,
    in_chunks,
    is_one_of,
    key_of,
    rows_of,
    unpack,
)
from ml_backend.store.schema import PredictionRow


class Deliveries:
    """The deliveries of kept predictions.

    A delivery is claimed by being marked as done: when its engine dies in between, the prediction
    is given with the next request instead, and never twice.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, keys: Sequence[PredictionKey]) -> None:
        """Note that Label Studio was given these predictions; writes only on change.

        Raises:
            StoreError
        """
        undelivered = [
            and_(is_one_of(chunk), PredictionRow.delivered.is_(False)) for chunk in in_chunks(keys)
        ]
        with self._database.read() as session:
            news = [
                where
                for where in undelivered
                if session.scalar(select(func.count()).select_from(PredictionRow).where(where))
            ]
        if not news:
            return
        with self._database.write() as session:
            for where in news:
                session.execute(update(PredictionRow).where(where).values(delivered=True))

    def due(
        self, project: str, version: str, *, limit: int
    ) -> list[tuple[PredictionKey, Prediction]]:
        """Return predictions that Label Studio was not given yet, by task id.

        Raises:
            StoreError
        """
        query = (
            select(PredictionRow)
            .where(
                PredictionRow.project == project,
                PredictionRow.version == version,
                PredictionRow.state == RowState.DONE,
                PredictionRow.delivered.is_(False),
            )
            .order_by(PredictionRow.task_id)
            .limit(limit)
        )
        with self._database.read() as session:
            return [(key_of(row), unpack(row)) for row in session.scalars(query)]

    def claim(self, keys: Sequence[PredictionKey]) -> list[PredictionKey]:
        """Return those whose delivery is now the caller's; of several engines one gets each.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            return [key for key in keys if _set_delivered(session, key, delivered=True)]

    def give_back(self, keys: Sequence[PredictionKey]) -> None:
        """Make claimed deliveries due again, because they failed.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            for key in keys:
                _set_delivered(session, key, delivered=False)


def _set_delivered(session: Session, key: PredictionKey, *, delivered: bool) -> bool:
    """Return whether the row was in the other state until now."""
    other = and_(is_one_of([key]), PredictionRow.delivered.is_(not delivered))
    return (
        rows_of(session.execute(update(PredictionRow).where(other).values(delivered=delivered)))
        == 1
    )
