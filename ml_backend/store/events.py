"""The record of webhook events: written in milliseconds, worked through later."""

from __future__ import annotations

import hashlib
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.orm import Session

from ml_backend.errors import StoreError
from ml_backend.store.database import Database
from ml_backend.store.schema import EventRow
from ml_backend.store.upsert import insert_if_new

START_TRAINING = "START_TRAINING"
_PRUNE_EVERY = 64  # events


class EventState(StrEnum):
    """How far an event has come."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Event:
    """A recorded event."""

    id: int  # in the order of arrival
    job: str  # what /job_status asks for
    origin: str | None  # of Label Studio, where `connect` named it
    project_id: int | None
    action: str
    state: EventState
    message: str | None
    received_at: float
    session: str | None = None  # ids of the sessions that a START_TRAINING led to: `split_ids`
    payload: bytes = field(repr=False)  # the request's body


class Events:
    """The table of events, bounded: processed ones go first, then the oldest."""

    def __init__(
        self,
        database: Database,
        *,
        max_rows: int = 100_000,
        max_bytes: int = 256 * 2**20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._clock = clock

    def record(
        self,
        *,
        action: str,
        payload: bytes,
        origin: str | None = None,
        project_id: int | None = None,
    ) -> str:
        """Keep an event and return its job; the same event twice is kept once.

        START_TRAINING carries nothing that tells two presses of the button apart, so it counts
        as the same only while the first is not processed.

        Raises:
            StoreError
        """
        content_hash = _content_hash(origin, payload)
        with self._database.read() as session:
            known = session.scalar(
                select(EventRow.job).where(EventRow.content_hash == content_hash)
            )
        if known is not None:
            return known
        packed = zlib.compress(payload, 1)
        with self._database.write() as session:
            is_new = insert_if_new(
                session,
                EventRow,
                {
                    "job": uuid.uuid4().hex,
                    "origin": origin,
                    "project_id": project_id,
                    "action": action,
                    "state": EventState.QUEUED,
                    "content_hash": content_hash,
                    "received_at": self._clock(),
                    "size": len(packed),
                    "payload": packed,
                },
            )
            query = select(EventRow).where(EventRow.content_hash == content_hash)
            row = session.scalars(query).one()
            is_big = row.size > self._max_bytes // _PRUNE_EVERY
            if is_new and (is_big or row.id % _PRUNE_EVERY == 0):
                self._prune(session)
            return row.job

    def get(self, job: str) -> Event | None:
        """Return the event of that job, None if there is none (any more).

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.scalar(select(EventRow).where(EventRow.job == job))
            return None if row is None else _to_event(row)

    def queued(self, *, limit: int) -> list[Event]:
        """Return the oldest events that nobody has processed.

        Raises:
            StoreError
        """
        query = (
            select(EventRow)
            .where(EventRow.state == EventState.QUEUED)
            .order_by(EventRow.id)
            .limit(limit)
        )
        with self._database.read() as session:
            return [_to_event(row) for row in session.scalars(query)]

    def finish(
        self,
        job: str,
        state: EventState,
        message: str | None = None,
        session: str | None = None,
    ) -> None:
        """Note what became of an event.

        Args:
            job: The event's.
            state: What became of it.
            message: A sentence for a person.
            session: Ids of the training sessions that it led to, from `join_ids`.

        Raises:
            StoreError: there is no such event.
        """
        with self._database.write() as transaction:
            row = transaction.scalar(select(EventRow).where(EventRow.job == job).with_for_update())
            if row is None:
                raise StoreError(f"There is no event {job!r}; it may have been dropped for space.")
            is_first = row.state == EventState.QUEUED
            row.state = state
            row.message = message
            row.session = session
            if is_first and row.action == START_TRAINING:
                row.content_hash = f"{row.content_hash}:{row.id}"  # frees it for the next press

    def prune(self) -> int:
        """Drop events over the bounds; returns how many.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            return self._prune(session)

    def _prune(self, session: Session) -> int:
        kept_first = (EventRow.state == EventState.QUEUED).desc(), EventRow.id.desc()
        ranked = select(
            EventRow.id,
            func.row_number().over(order_by=kept_first).label("rows"),
            func.sum(EventRow.size).over(order_by=kept_first).label("bytes"),
        ).subquery()
        excess = select(ranked.c.id).where(
            (ranked.c.rows > self._max_rows) | (ranked.c.bytes > self._max_bytes)
        )
        result: Any = session.execute(delete(EventRow).where(EventRow.id.in_(excess)))
        return result.rowcount if isinstance(result, CursorResult) else 0


def join_ids(ids: Iterable[str]) -> str:
    """Return the ids of an event's sessions as it keeps them, one for each network."""
    return ",".join(ids)


def split_ids(text: str | None) -> list[str]:
    """Return the ids that `join_ids` joined."""
    return [part for part in (text or "").split(",") if part]


def _content_hash(origin: str | None, payload: bytes) -> str:
    digest = hashlib.sha256((origin or "").encode() + b"\n")
    digest.update(payload)
    return digest.hexdigest()


def _to_event(row: EventRow) -> Event:
    return Event(
        id=row.id,
        job=row.job,
        origin=row.origin,
        project_id=row.project_id,
        action=row.action,
        state=EventState(row.state),
        message=row.message,
        received_at=row.received_at,
        session=row.session,
        payload=zlib.decompress(row.payload),
    )
