"""How much of everything there is in the records, for gauges and for the load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ml_backend.learning import ActivationState, SessionState, VersionState
from ml_backend.store.database import Database
from ml_backend.store.events import EventState
from ml_backend.store.prediction_rows import RowState
from ml_backend.store.schema import (
    ActivationRow,
    EventRow,
    PredictionRow,
    SessionRow,
    TrainerRow,
    VersionRow,
)
from ml_backend.store.trainers import GONE_AFTER_S

State = TypeVar("State", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to train, and who is there to do it."""

    queued: int  # sessions
    running: int  # sessions that a trainer holds; one whose trainer died is not among them
    trainers: int  # that are there, busy or not; each works on one session at a time


@dataclass(frozen=True, kw_only=True)
class Census:
    """How many rows there are of each kind; every state is there, if only with 0."""

    work: Work
    sessions: Mapping[SessionState, int]
    activations: Mapping[ActivationState, int]
    versions: Mapping[VersionState, int]
    predictions: int  # kept ones
    prediction_bytes: int
    waiting_events: int  # of webhooks


class CensusTaker:
    """Counts rows."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def work(self) -> Work:
        """Return what there is to train, quickly.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return _work(session, self._clock())

    def take(self) -> Census:
        """Count everything.

        Raises:
            StoreError
        """
        done = PredictionRow.state == RowState.DONE
        with self._database.read() as session:
            kept = session.execute(
                select(func.count(), func.coalesce(func.sum(PredictionRow.size), 0)).where(done)
            ).one()
            return Census(
                work=_work(session, self._clock()),
                sessions=_by_state(session, SessionRow.state, SessionState),
                activations=_by_state(session, ActivationRow.state, ActivationState),
                versions=_by_state(session, VersionRow.state, VersionState),
                predictions=int(kept[0]),
                prediction_bytes=int(kept[1]),
                waiting_events=_count(session, EventRow.state == EventState.QUEUED),
            )


def _work(session: Session, now: float) -> Work:
    is_held = (SessionRow.state == SessionState.RUNNING) & (SessionRow.lease_until > now)
    return Work(
        queued=_count(session, SessionRow.state == SessionState.QUEUED),
        running=_count(session, is_held),
        trainers=_count(session, TrainerRow.seen_at >= now - GONE_AFTER_S),
    )


def _count(session: Session, where: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(where)) or 0


def _by_state(
    session: Session, column: InstrumentedAttribute[str], states: type[State]
) -> dict[State, int]:
    rows = session.execute(select(column, func.count()).group_by(column)).all()
    counted = {str(state): int(count) for state, count in rows}
    return {state: counted.get(state.value, 0) for state in states}
