"""Kept predictions: computed once, shared by all engines, bounded in size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from ml_backend.domain import Prediction, ProjectKey
from ml_backend.store.database import Database
from ml_backend.store.prediction_rows import (
    KEY_COLUMNS,
    PredictionKey,
    RowState,
    identity,
    in_chunks,
    is_one_of,
    key_of,
    pack,
    rows_of,
    unpack,
)
from ml_backend.store.schema import PredictionRow
from ml_backend.store.upsert import insert_if_new

__all__ = ["Claim", "ClaimState", "KeptPredictions", "PredictionKey"]

_USED_EVERY_S = 60.0  # used_at is not written more often


class ClaimState(StrEnum):
    """What became of a claim."""

    CLAIMED = "claimed"  # it is yours: compute it, renew the lease, then complete or fail
    PENDING = "pending"  # another engine computes it
    DONE = "done"
    FAILED = "failed"  # not to be tried before retry_at


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The answer to a claim."""

    state: ClaimState
    prediction: Prediction | None = None  # when DONE
    message: str | None = None  # when FAILED: why
    retry_at: float | None = None  # when FAILED or PENDING: when to ask again at the latest


class KeptPredictions:
    """The table of predictions."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def claim(self, key: PredictionKey, owner: str, *, lease_s: float) -> Claim:
        """Take on the computation of `key`, unless it is done, failed or someone else's.

        Of any number of concurrent claims exactly one is CLAIMED. A lease that ran out can be
        claimed by another; so can a failure whose time has come.

        Raises:
            StoreError
        """
        now = self._clock()
        with self._database.read() as session:
            claim = _read_claim(session.get(PredictionRow, identity(key)), now)
        if claim is not None:
            return claim
        with self._database.write() as session:
            if _insert_claim(session, key, owner, now, lease_s):
                return Claim(state=ClaimState.CLAIMED)
            row = session.get(PredictionRow, identity(key), with_for_update=True)
            claim = _read_claim(row, now)
            if claim is not None:
                return claim
            if row is None:  # pruned by another process since the insert above
                return Claim(state=ClaimState.PENDING, retry_at=now)
            row.state = RowState.PENDING
            row.owner = owner
            row.lease_until = now + lease_s
            row.message = None
            return Claim(state=ClaimState.CLAIMED)

    def renew(self, keys: Iterable[PredictionKey], owner: str, *, lease_s: float) -> int:
        """Extend the leases that `owner` still holds; returns how many those are.

        Raises:
            StoreError
        """
        until = self._clock() + lease_s
        renewed = 0
        with self._database.write() as session:
            for chunk in in_chunks(list(keys)):
                statement = update(PredictionRow).where(
                    is_one_of(chunk),
                    PredictionRow.state == RowState.PENDING,
                    PredictionRow.owner == owner,
                )
                renewed += rows_of(session.execute(statement.values(lease_until=until)))
        return renewed

    def complete(self, key: PredictionKey, owner: str, prediction: Prediction) -> bool:
        """Keep the prediction; False, and nothing kept, when `owner` lost its claim.

        Raises:
            StoreError
        """
        entry = pack(prediction)
        return self._finish(
            key,
            owner,
            {
                "state": RowState.DONE,
                "entry": entry,
                "size": len(entry),
                "used_at": self._clock(),
                "delivered": False,
            },
        )

    def fail(
        self, key: PredictionKey, owner: str, message: str, *, retry_after_s: float = 60.0
    ) -> bool:
        """Keep why it failed, for `retry_after_s`; False when `owner` lost its claim.

        Raises:
            StoreError
        """
        now = self._clock()
        return self._finish(
            key,
            owner,
            {
                "state": RowState.FAILED,
                "message": message,
                "retry_at": now + retry_after_s,
                "used_at": now,
            },
        )

    def get_many(self, keys: Sequence[PredictionKey]) -> dict[PredictionKey, Prediction]:
        """Return those predictions that are there.

        Raises:
            StoreError
        """
        now = self._clock()
        found: dict[PredictionKey, Prediction] = {}
        stale: list[PredictionKey] = []
        with self._database.read() as session:
            for chunk in in_chunks(keys):
                query = select(PredictionRow).where(
                    is_one_of(chunk), PredictionRow.state == RowState.DONE
                )
                for row in session.scalars(query):
                    key = key_of(row)
                    found[key] = unpack(row)
                    if now - row.used_at > _USED_EVERY_S:
                        stale.append(key)
        if stale:
            with self._database.write() as session:
                for chunk in in_chunks(stale):
                    session.execute(
                        update(PredictionRow).where(is_one_of(chunk)).values(used_at=now)
                    )
        return found

    def finished_tasks(self, project: ProjectKey, version: str) -> list[int]:
        """Return the tasks of which a prediction by `version` is kept, in order.

        Raises:
            StoreError
        """
        query = (
            select(PredictionRow.task_id)
            .where(_is_done(project, version))
            .distinct()
            .order_by(PredictionRow.task_id)
        )
        with self._database.read() as session:
            return list(session.scalars(query))

    def newest(self, project: ProjectKey, version: str, task_id: int) -> Prediction | None:
        """Return the prediction of a task that was used last, whatever the task's data was then.

        Raises:
            StoreError
        """
        query = (
            select(PredictionRow)
            .where(_is_done(project, version), PredictionRow.task_id == task_id)
            .order_by(PredictionRow.used_at.desc(), PredictionRow.input_hash)
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else unpack(row)

    def prune(self, max_bytes: int) -> int:
        """Drop what was used longest ago until `max_bytes` are kept; returns how many rows.

        Failures whose time has come and leases that ran out go too.

        Raises:
            StoreError
        """
        now = self._clock()
        newest_first = func.sum(PredictionRow.size).over(
            order_by=(
                PredictionRow.used_at.desc(),
                PredictionRow.task_id.desc(),
                PredictionRow.version,
                PredictionRow.input_hash,
                PredictionRow.project,
            )
        )
        done = PredictionRow.state == RowState.DONE
        ranked = select(*KEY_COLUMNS, newest_first.label("kept")).where(done).subquery()
        excess = select(*(ranked.c[column.key] for column in KEY_COLUMNS)).where(
            ranked.c.kept > max_bytes
        )
        failed_long_ago = and_(
            PredictionRow.state == RowState.FAILED, PredictionRow.retry_at <= now
        )
        abandoned = and_(PredictionRow.state == RowState.PENDING, PredictionRow.lease_until <= now)
        with self._database.write() as session:
            return sum(
                rows_of(session.execute(delete(PredictionRow).where(where)))
                for where in (
                    failed_long_ago,
                    abandoned,
                    and_(done, tuple_(*KEY_COLUMNS).in_(excess)),
                )
            )

    def _finish(self, key: PredictionKey, owner: str, values: dict[str, Any]) -> bool:
        statement = update(PredictionRow).where(
            is_one_of([key]), PredictionRow.state == RowState.PENDING, PredictionRow.owner == owner
        )
        with self._database.write() as session:
            return rows_of(session.execute(statement.values(**values))) == 1


def _is_done(project: ProjectKey, version: str) -> ColumnElement[bool]:
    return and_(
        PredictionRow.project == str(project),
        PredictionRow.version == version,
        PredictionRow.state == RowState.DONE,
    )


def _read_claim(row: PredictionRow | None, now: float) -> Claim | None:
    """Return the answer to a claim of `row`, None when it may be claimed."""
    if row is None:
        return None
    if row.state == RowState.DONE:
        return Claim(state=ClaimState.DONE, prediction=unpack(row))
    if row.state == RowState.FAILED and row.retry_at > now:
        return Claim(state=ClaimState.FAILED, message=row.message, retry_at=row.retry_at)
    if row.state == RowState.PENDING and row.lease_until > now:
        return Claim(state=ClaimState.PENDING, retry_at=row.lease_until)
    return None


def _insert_claim(
    session: Session, key: PredictionKey, owner: str, now: float, lease_s: float
) -> bool:
    values = {
        "project": key.project,
        "task_id": key.task_id,
        "version": key.version,
        "input_hash": key.input_hash,
        "state": RowState.PENDING,
        "owner": owner,
        "lease_until": now + lease_s,
        "retry_at": now,
        "used_at": now,
        "delivered": False,
        "size": 0,
    }
    return insert_if_new(session, PredictionRow, values)
