"""Training sessions: the truth about who trains what, behind leases.

A trainer claims a session and gets a lease with a number. Every write of the session names that
number and is refused once another trainer has claimed it, so that one that was thought dead
cannot write over its successor.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.orm import Session as Transaction

from ml_backend.domain import ProjectKey
from ml_backend.errors import SessionLost, StoreError
from ml_backend.learning import (
    ENDED,
    TRANSITIONS,
    EpochPoint,
    Lease,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.database import Database
from ml_backend.store.packing import compress, to_json
from ml_backend.store.schema import SessionPointRow, SessionRow
from ml_backend.store.session_reading import SessionReading
from ml_backend.store.session_rows import (
    has_run_out,
    is_claimable,
    is_held,
    is_of_target,
    point_to_json,
    target_of,
    to_session,
)
from ml_backend.store.upsert import insert_if_new, insert_or_replace


class Sessions(SessionReading):
    """The table of training sessions.

    Of one target (a project and its controls) at most one session is queued and one is running.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(database, clock=clock)

    def request(
        self,
        project: ProjectKey,
        *,
        controls: Iterable[str],
        trigger: Trigger,
        parameters: TrainingParameters,
        owner: str | None = None,
    ) -> Session:
        """Return a queued session of that target: the one that waits already, or a new one.

        Raises:
            StoreError
        """
        target = target_of(controls)
        values = {
            "id": uuid.uuid4().hex,
            "project": str(project),
            "target": target,
            "state": SessionState.QUEUED,
            "trigger": trigger,
            "owner": owner,
            "parameters": to_json(parameters.canonical()),
            "created_at": self._clock(),
            "lease": 0,
            "lease_until": 0.0,
            "stop_requested": False,
            "attempts": 0,
            "progress": to_json({}),
        }
        queued = select(SessionRow).where(
            is_of_target(project, target), SessionRow.state == SessionState.QUEUED
        )
        while True:  # the one that was queued may be claimed between the insert and the look
            with self._database.write() as transaction:
                insert_if_new(transaction, SessionRow, values)
                row = transaction.scalar(queued)
                if row is not None:
                    return to_session(row)

    def claim(self, session_id: str, *, owner: str, lease_s: float) -> Lease | None:
        """Take a session on; None when it is not to be had (any more, or yet).

        Of any number of concurrent claims exactly one gets the lease. A queued session waits
        while another of its target runs; a running one whose lease ran out can be taken over.

        Args:
            session_id: Which one.
            owner: A name for this trainer, for people.
            lease_s: How long it stays this trainer's without a heartbeat.

        Raises:
            StoreError
        """
        now = self._clock()
        statement = (
            update(SessionRow)
            .where(SessionRow.id == session_id, is_claimable(now))
            .values(
                state=SessionState.RUNNING,
                lease=SessionRow.lease + 1,
                attempts=SessionRow.attempts + 1,
                lease_owner=owner,
                lease_until=now + lease_s,
                heartbeat_at=now,
                started_at=func.coalesce(SessionRow.started_at, now),
                finished_at=None,
            )
            .returning(SessionRow.lease)
        )
        with self._database.write() as transaction:
            number = transaction.scalar(statement)
        if number is None:
            return None
        return Lease(session_id=session_id, number=number, owner=owner)

    def heartbeat(self, lease: Lease, lease_s: float) -> bool:
        """Extend the lease; return whether a person has asked for a stop.

        Raises:
            SessionLost: another trainer has it, or it has ended.
            StoreError
        """
        now = self._clock()
        return self._write(lease, {"heartbeat_at": now, "lease_until": now + lease_s})

    def note(
        self,
        lease: Lease,
        *,
        progress: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        message: str | None = None,
        version: str | None = None,
    ) -> None:
        """Replace what is given and leave the rest.

        Raises:
            SessionLost: another trainer has it, or it has ended.
            StoreError
        """
        values: dict[str, Any] = {
            "progress": None if progress is None else to_json(progress),
            "report": None if report is None else compress(report),
            "manifest": None if manifest is None else compress(manifest),
            "message": message,
            "version": version,
        }
        given = {name: value for name, value in values.items() if value is not None}
        self._write(lease, given or {"lease": lease.number})

    def point(self, lease: Lease, point: EpochPoint) -> None:
        """Keep a point of the curves; those of the same and later epochs leave.

        A session that goes on from a checkpoint repeats the epochs after it.

        Raises:
            SessionLost: another trainer has it, or it has ended.
            StoreError
        """
        later = and_(
            SessionPointRow.session_id == lease.session_id, SessionPointRow.epoch > point.epoch
        )
        with self._database.write() as transaction:
            _hold(transaction, lease)
            transaction.execute(delete(SessionPointRow).where(later))
            insert_or_replace(
                transaction,
                SessionPointRow,
                {
                    "session_id": lease.session_id,
                    "epoch": point.epoch,
                    "point": point_to_json(point),
                },
            )

    def finish(
        self, lease: Lease, state: SessionState, *, message: str | None, version: str | None = None
    ) -> None:
        """End a session: nobody can write to it any more.

        Args:
            lease: The right to do so.
            state: COMPLETED, FAILED or STOPPED.
            message: For a person: what came of it.
            version: Name of the version it made; None leaves what was noted.

        Raises:
            SessionLost: another trainer has it, or it has ended.
            StoreError: `state` is no end.
        """
        if state not in ENDED:
            raise StoreError(
                f"A session cannot end as {state.value}; use one of: {', '.join(sorted(ENDED))}."
            )
        values: dict[str, Any] = {
            "state": state,
            "message": message,
            "finished_at": self._clock(),
            "stop_requested": False,
        }
        self._write(lease, values if version is None else {**values, "version": version})

    def request_stop(self, session_id: str) -> Session:
        """Ask for a stop: at once where nobody works on it, else its trainer honours it soon.

        A session that has ended stays as it is.

        Raises:
            StoreError: there is no such session.
        """
        now = self._clock()
        with self._database.write() as transaction:
            row = _get(transaction, session_id)
            state = SessionState(row.state)
            if state is SessionState.QUEUED or has_run_out(row, now):
                row.state = SessionState.STOPPED
                row.message = (
                    "It was stopped before it ran."
                    if row.started_at is None
                    else ("It was stopped while no trainer worked on it.")
                )
                row.finished_at = now
                row.lease += 1  # a trainer that comes back finds its lease lost
                row.stop_requested = False
            elif state is SessionState.RUNNING:
                row.stop_requested = True
            return to_session(row)

    def resume(self, session_id: str) -> Session:
        """Queue a stopped or failed session again; it goes on from its last checkpoint.

        One that is queued or running stays as it is.

        Raises:
            StoreError: there is no such session, it has completed, or another of its target is
                queued.
        """
        with self._database.write() as transaction:
            row = _get(transaction, session_id)
            state = SessionState(row.state)
            if state in (SessionState.QUEUED, SessionState.RUNNING):
                return to_session(row)
            if SessionState.QUEUED not in TRANSITIONS[state]:
                raise StoreError(
                    f"Session {session_id} has {state.value} and cannot be resumed; request a "
                    "new one."
                )
            other = transaction.scalar(
                select(SessionRow.id).where(
                    SessionRow.project == row.project,
                    SessionRow.target == row.target,
                    SessionRow.state == SessionState.QUEUED,
                )
            )
            if other is not None:
                raise StoreError(
                    f"Session {session_id} cannot be resumed while session {other} of the same "
                    "controls is queued; stop that one first."
                )
            row.state = SessionState.QUEUED
            row.finished_at = None
            row.message = None
            row.stop_requested = False
            row.attempts = 0  # what made it fail may be mended
            row.lease += 1
            return to_session(row)

    def delete(self, session_id: str) -> None:
        """Forget a session and its curves; its files are the caller's.

        Raises:
            StoreError: there is no such session, or it is queued or running.
        """
        with self._database.write() as transaction:
            row = _get(transaction, session_id)
            if SessionState(row.state) not in ENDED:
                raise StoreError(
                    f"Session {session_id} is {row.state} and cannot be deleted; stop it first."
                )
            transaction.execute(
                delete(SessionPointRow).where(SessionPointRow.session_id == session_id)
            )
            transaction.delete(row)

    def _write(self, lease: Lease, values: dict[str, Any]) -> bool:
        """Write under the lease; return whether a stop was asked for."""
        statement = update(SessionRow).where(is_held(lease)).values(**values)
        with self._database.write() as transaction:
            stop = transaction.scalar(statement.returning(SessionRow.stop_requested))
        if stop is None:
            raise _lost(lease)
        return bool(stop)


def _get(transaction: Transaction, session_id: str) -> SessionRow:
    row = transaction.get(SessionRow, session_id, with_for_update=True)
    if row is None:
        raise StoreError(
            f"There is no session {session_id!r}; `ml-backend sessions list` shows them."
        )
    return row


def _hold(transaction: Transaction, lease: Lease) -> None:
    """Keep others from claiming the session until the transaction ends."""
    row = transaction.scalar(select(SessionRow.id).where(is_held(lease)).with_for_update())
    if row is None:
        raise _lost(lease)


def _lost(lease: Lease) -> SessionLost:
    return SessionLost(
        f"Session {lease.session_id} is not {lease.owner}'s any more (lease {lease.number}): it "
        "has ended or another trainer has taken it over; stop working on it."
    )
