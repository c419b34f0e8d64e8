"""Training sessions: the truth about who trains what, behind leases.

A trainer claims a session and gets a lease with a number. Every write of the session names that
number and is refused once another trainer has claimed it, so that one that was thought dead
cannot write over its successor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.orm import Session as Transaction

from ml_backend.errors import SessionLost, StoreError
from ml_backend.learning import ENDED, EpochPoint, Lease, SessionState
from ml_backend.store.packing import compress, to_json
from ml_backend.store.schema import SessionPointRow, SessionRow
from ml_backend.store.session_claims import SessionClaims
from ml_backend.store.session_rows import is_claimable, is_held, point_to_json
from ml_backend.store.upsert import insert_or_replace


class Sessions(SessionClaims):
    """The table of training sessions.

    Of one target (a project and its controls) at most one session is queued and one is running.
    """

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

    def complete_unrun(
        self, session_id: str, *, owner: str, message: str, manifest: Mapping[str, Any]
    ) -> bool:
        """End a queued session for which there is nothing to do; return whether it was to be had.

        One write: whoever dies before it leaves the session queued, and not half begun.

        Args:
            session_id: Which one.
            owner: Who ends it, for people.
            message: For a person: why it did not run.
            manifest: What it would have learned from.

        Raises:
            StoreError
        """
        now = self._clock()
        statement = (
            update(SessionRow)
            .where(
                SessionRow.id == session_id,
                SessionRow.state == SessionState.QUEUED,
                is_claimable(now),
            )
            .values(
                state=SessionState.COMPLETED,
                lease=SessionRow.lease + 1,
                attempts=SessionRow.attempts + 1,
                lease_owner=owner,
                started_at=func.coalesce(SessionRow.started_at, now),
                finished_at=now,
                stop_requested=False,
                message=message,
                manifest=compress(manifest),
            )
            .returning(SessionRow.id)
        )
        with self._database.write() as transaction:
            return transaction.scalar(statement) is not None

    def _write(self, lease: Lease, values: dict[str, Any]) -> bool:
        """Write under the lease; return whether a stop was asked for."""
        statement = update(SessionRow).where(is_held(lease)).values(**values)
        with self._database.write() as transaction:
            stop = transaction.scalar(statement.returning(SessionRow.stop_requested))
        if stop is None:
            raise _lost(lease)
        return bool(stop)


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
