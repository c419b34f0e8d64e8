"""What can be asked of the training sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import undefer
from sqlalchemy.sql.expression import SQLColumnExpression

from ml_backend.domain import ProjectKey
from ml_backend.learning import ENDED, EpochPoint, Session, SessionState
from ml_backend.store.database import Database
from ml_backend.store.schema import DeletedSessionRow, SessionPointRow, SessionRow
from ml_backend.store.session_filter import SessionFilter
from ml_backend.store.session_rows import (
    is_claimable,
    is_expired,
    is_of_target,
    target_of,
    to_point,
    to_session,
)


class SessionReading:
    """The reading half of the table of training sessions."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def get(self, session_id: str, *, with_manifest: bool = True) -> Session | None:
        """Return that session, None if there is none; its manifest may be long.

        Raises:
            StoreError
        """
        with self._database.read() as transaction:
            row = transaction.get(SessionRow, session_id)
            return None if row is None else to_session(row, with_manifest=with_manifest)

    def find(
        self,
        project: ProjectKey | None = None,
        state: SessionState | None = None,
        *,
        limit: int = 100,
        after: Session | None = None,
        also: SessionFilter | None = None,
        with_manifests: bool = True,
    ) -> list[Session]:
        """Return sessions, the newest first; without manifests, which may be long, on request.

        `after` is the last one of the page before; `also` says what else they must be.

        Raises:
            StoreError
        """
        query = select(SessionRow).order_by(SessionRow.created_at.desc(), SessionRow.id)
        if project is not None:
            query = query.where(SessionRow.project == str(project))
        if state is not None:
            query = query.where(SessionRow.state == state)
        if also is not None:
            query = query.where(*also.conditions(self._clock()))
        if after is not None:
            older = SessionRow.created_at < after.created_at
            same_time = SessionRow.created_at == after.created_at
            query = query.where(or_(older, and_(same_time, SessionRow.id > after.id)))
        if with_manifests:
            query = query.options(undefer(SessionRow.manifest))
        with self._database.read() as transaction:
            rows = transaction.scalars(query.limit(limit))
            return [to_session(row, with_manifest=with_manifests) for row in rows]

    def beginning_with(self, prefix: str, *, limit: int = 2) -> list[Session]:
        """Return sessions whose ids begin so, without their manifests; one more tells of doubt.

        Raises:
            StoreError
        """
        query = select(SessionRow).where(SessionRow.id.startswith(prefix, autoescape=True))
        with self._database.read() as transaction:
            rows = transaction.scalars(query.order_by(SessionRow.id).limit(limit))
            return [to_session(row, with_manifest=False) for row in rows]

    def newest(self, project: ProjectKey, controls: Iterable[str]) -> Session | None:
        """Return the session of that target that was requested last, None before the first.

        Raises:
            StoreError
        """
        return self._first(
            is_of_target(project, target_of(controls)),
            order=(SessionRow.created_at.desc(), SessionRow.id),
        )

    def last_ended(
        self, project: ProjectKey, controls: Iterable[str], *, with_manifest: bool = True
    ) -> Session | None:
        """Return the session of that target that ended last, however it ended.

        Raises:
            StoreError
        """
        return self._first(
            and_(is_of_target(project, target_of(controls)), SessionRow.state.in_(ENDED)),
            order=(SessionRow.finished_at.desc(), SessionRow.id),
            with_manifest=with_manifest,
        )

    def claimable(self, *, limit: int = 100) -> list[Session]:
        """Return the sessions that `claim` would give out now, the oldest first.

        Those are queued ones whose target has none running, and running ones whose trainer has
        not been heard of for as long as its lease. SQL is the truth: whoever wakes trainers up
        asks here, for a wake-up may be lost.

        Raises:
            StoreError
        """
        query = select(SessionRow).where(is_claimable(self._clock()))
        query = query.order_by(SessionRow.created_at, SessionRow.id).limit(limit)
        with self._database.read() as transaction:
            return [to_session(row, with_manifest=False) for row in transaction.scalars(query)]

    def expired(self) -> list[Session]:
        """Return the running sessions whose trainer was not heard of for as long as its lease.

        Raises:
            StoreError
        """
        query = select(SessionRow).where(is_expired(self._clock()))
        query = query.order_by(SessionRow.created_at, SessionRow.id)
        with self._database.read() as transaction:
            return [to_session(row, with_manifest=False) for row in transaction.scalars(query)]

    def queued_before(self, session: Session) -> int:
        """Return how many sessions that were asked for earlier still wait for a trainer.

        Raises:
            StoreError
        """
        same_time = SessionRow.created_at == session.created_at
        earlier = or_(
            SessionRow.created_at < session.created_at, and_(same_time, SessionRow.id < session.id)
        )
        query = select(func.count()).select_from(SessionRow)
        query = query.where(SessionRow.state == SessionState.QUEUED, earlier)
        with self._database.read() as transaction:
            return transaction.scalar(query) or 0

    def was_deleted(self, session_id: str) -> bool:
        """Return whether a person has deleted the session of that id, not too long ago.

        Raises:
            StoreError
        """
        with self._database.read() as transaction:
            return transaction.get(DeletedSessionRow, session_id) is not None

    def curve(self, session_id: str) -> list[EpochPoint]:
        """Return the points of a session's curves, by epoch.

        Raises:
            StoreError
        """
        query = (
            select(SessionPointRow)
            .where(SessionPointRow.session_id == session_id)
            .order_by(SessionPointRow.epoch)
        )
        with self._database.read() as transaction:
            return [to_point(row) for row in transaction.scalars(query)]

    def curve_length(self, session_id: str) -> tuple[int, int]:
        """Return how many points a session's curves have, and the last one's epoch (0 for none).

        Raises:
            StoreError
        """
        query = select(func.count(), func.coalesce(func.max(SessionPointRow.epoch), 0))
        query = query.where(SessionPointRow.session_id == session_id)
        with self._database.read() as transaction:
            count, last = transaction.execute(query).one()
        return int(count), int(last)

    def _first(
        self,
        where: ColumnElement[bool],
        *,
        order: tuple[SQLColumnExpression[Any], ...],
        with_manifest: bool = True,
    ) -> Session | None:
        query = select(SessionRow).where(where).order_by(*order).limit(1)
        with self._database.read() as transaction:
            row = transaction.scalar(query)
            return None if row is None else to_session(row, with_manifest=with_manifest)
