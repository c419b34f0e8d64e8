"""The record of webhook events: written in milliseconds, worked through later."""

from __future__ import annotations

import hashlib
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog
from sqlalchemy import delete, func, select

from ml_backend.errors import StoreError
from ml_backend.store.database import Database
from ml_backend.store.project_updates import PROJECT_UPDATED
from ml_backend.store.schema import EventRow
from ml_backend.store.upsert import insert_if_new

START_TRAINING = "START_TRAINING"
PRUNED_AT_ONCE = 200  # events: others write in between
_BREATH_S = 0.01  # between two of those: SQLite serves whoever asks at the right moment
_CHECKED_EVERY = 1 / 16  # of the bounds, recorded by this process: then it looks at them itself
_FAR_OVER = 1.25  # times the bounds: nobody keeps house
_REPEATED = frozenset({START_TRAINING, PROJECT_UPDATED})
"""Actions whose body may rightly come again: a second press, a setting that was put back."""

log = structlog.get_logger(__name__)


class EventState(StrEnum):
    """How far an event has come."""

    QUEUED = "queued"
    WAITING = "waiting"  # read, and kept for the fit of a toolkit class
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
    project: str | None = None  # key, of one that waits
    payload: bytes = field(repr=False)  # the request's body


class Events:
    """The table of events, bounded: processed ones go first, then the oldest.

    `prune` keeps the bounds, and is the trainer's to call: it takes too long for a request. Only
    when nobody has called it for long does `record`.
    """

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
        self._unchecked_rows = 0  # recorded here since this process looked at the bounds
        self._unchecked_bytes = 0

    def record(
        self,
        *,
        action: str,
        payload: bytes,
        origin: str | None = None,
        project_id: int | None = None,
    ) -> str:
        """Keep an event and return its job; the same event twice is kept once.

        START_TRAINING and PROJECT_UPDATED carry nothing that tells two presses of a button
        apart, so they count as the same only while the first is not processed.

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
            query = select(EventRow.job).where(EventRow.content_hash == content_hash)
            job = session.scalars(query).one()
        if is_new:
            self._see_to_the_bounds(len(packed))
        return job

    def get(self, job: str) -> Event | None:
        """Return the event of that job, None if there is none (any more).

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.scalar(select(EventRow).where(EventRow.job == job))
            return None if row is None else to_event(row)

    def has_queued(self) -> bool:
        """Return whether there is an event that nobody has processed.

        Raises:
            StoreError
        """
        query = select(EventRow.id).where(EventRow.state == EventState.QUEUED).limit(1)
        with self._database.read() as session:
            return session.scalar(query) is not None

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
            return [to_event(row) for row in session.scalars(query)]

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
            is_first = row.state in (EventState.QUEUED, EventState.WAITING)
            row.state = state
            row.message = message
            row.session = session
            if is_first and row.action in _REPEATED:
                row.content_hash = f"{row.content_hash}:{row.id}"  # frees it for the next one

    def prune(self) -> int:
        """Drop events over the bounds; returns how many.

        It looks without holding up writers, and drops a few at a time.

        Raises:
            StoreError
        """
        return self._prune(self._max_rows, self._max_bytes)

    def _see_to_the_bounds(self, size: int) -> None:
        """Prune when the table has grown far over its bounds; look at it now and then only."""
        self._unchecked_rows += 1
        self._unchecked_bytes += size
        if (
            self._unchecked_rows < self._max_rows * _CHECKED_EVERY
            and self._unchecked_bytes < self._max_bytes * _CHECKED_EVERY
        ):
            return
        self._unchecked_rows = self._unchecked_bytes = 0
        try:
            self._prune(self._max_rows * _FAR_OVER, self._max_bytes * _FAR_OVER)
        except StoreError as error:  # the event itself is kept
            log.warning("events cannot be pruned", reason=error.message)

    def _prune(self, most_rows: float, most_bytes: float) -> int:
        """Drop what is over the bounds if the table is over the given ones; return how many."""
        with self._database.read() as session:
            sums = select(func.count(), func.coalesce(func.sum(EventRow.size), 0))
            rows, size = session.execute(sums.select_from(EventRow)).one()
        if rows <= most_rows and size <= most_bytes:
            return 0
        dropped = 0
        while rows > self._max_rows or size > self._max_bytes:
            ids = []
            for event_id, event_size in self._first_to_go():
                if rows <= self._max_rows and size <= self._max_bytes:
                    break
                ids.append(event_id)
                rows, size = rows - 1, size - event_size
            if not ids:
                break  # another process has dropped them
            if dropped:
                time.sleep(_BREATH_S)
            with self._database.write() as session:
                gone = delete(EventRow).where(EventRow.id.in_(ids)).returning(EventRow.id)
                dropped += len(session.execute(gone).all())
        return dropped

    def _first_to_go(self) -> Sequence[tuple[int, int]]:
        """Return the ids and sizes of those that go first, a few."""
        processed = EventRow.state.in_([EventState.DONE, EventState.FAILED])
        for which in (processed, EventRow.state.in_([EventState.QUEUED, EventState.WAITING])):
            query = select(EventRow.id, EventRow.size).where(which).order_by(EventRow.id)
            with self._database.read() as session:
                found = session.execute(query.limit(PRUNED_AT_ONCE)).all()
            if found:
                return [(event_id, size) for event_id, size in found]
        return []


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


def to_event(row: EventRow) -> Event:
    """Return the event in a row."""
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
        project=row.project,
        payload=zlib.decompress(row.payload),
    )
