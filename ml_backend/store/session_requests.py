"""What people and the policy do with training sessions: ask for, stop, resume, forget them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from sqlalchemy import and_, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as Transaction

from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict, StoreError
from ml_backend.learning import (
    ENDED,
    TRANSITIONS,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.packing import to_json
from ml_backend.store.schema import DeletedSessionRow, SessionPointRow, SessionRow
from ml_backend.store.session_reading import SessionReading
from ml_backend.store.session_rows import has_run_out, is_of_target, target_of, to_session
from ml_backend.store.upsert import insert_if_new, insert_or_replace

DELETED_KEPT_S = 30 * 86_400.0  # a trainer may be off for a while


class SessionRequests(SessionReading):
    """The half of the table of training sessions that needs no lease."""

    def request(
        self,
        project: ProjectKey,
        *,
        controls: Iterable[str],
        trigger: Trigger,
        parameters: TrainingParameters,
        owner: str | None = None,
        dataset: str | None = None,
        label: str | None = None,
        base: str | None = None,
        restarted_from: str | None = None,
    ) -> Session:
        """Return a queued session of that target: the one that waits already, or a new one.

        Of a dataset it is always a new one: people train it with several parameters at once.

        Args:
            project: Whose session, or the key of a dataset.
            controls: That one network is trained for.
            trigger: What asked for it.
            parameters: How it is trained.
            owner: Name of the token that asks.
            dataset: Name of the dataset that `project` stands for.
            label: A word of the person's own.
            base: Name of the model to start from; None = what the controls ask for.
            restarted_from: Id of the session whose checkpoint it starts from.

        Raises:
            StoreError
        """
        target = target_of(controls)
        values = new_row(
            project,
            target,
            created_at=self._clock(),
            trigger=trigger,
            owner=owner,
            parameters=to_json(parameters.canonical()),
            dataset=dataset,
            label=label,
            base=base,
            restarted_from=restarted_from,
        )
        queued = (
            select(SessionRow).where(
                is_of_target(project, target),
                SessionRow.state == SessionState.QUEUED,
                SessionRow.dataset.is_(None),
            )
            if dataset is None
            else select(SessionRow).where(SessionRow.id == values["id"])
        )
        while True:  # the one that was queued may be claimed between the insert and the look
            with self._database.write() as transaction:
                insert_if_new(transaction, SessionRow, values)
                row = transaction.scalar(queued)
                if row is not None:
                    return to_session(row)

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
            Conflict: it has completed, or another of its target is queued.
            StoreError: there is no such session.
        """
        with self._database.write() as transaction:
            row = _get(transaction, session_id)
            state = SessionState(row.state)
            if state in (SessionState.QUEUED, SessionState.RUNNING):
                return to_session(row)
            if SessionState.QUEUED not in TRANSITIONS[state]:
                raise Conflict(
                    f"Session {session_id} has {state.value} and cannot be resumed; request a "
                    "new one."
                )
            other = transaction.scalar(
                select(SessionRow.id).where(
                    SessionRow.project == row.project,
                    SessionRow.target == row.target,
                    SessionRow.state == SessionState.QUEUED,
                    SessionRow.dataset.is_(None),
                )
            )
            if other is not None:
                raise _beside(session_id, f"session {other}")
            row.state = SessionState.QUEUED
            row.finished_at = None
            row.message = None
            row.stop_requested = False
            row.attempts = 0  # what made it fail may be mended
            row.lease += 1
            try:
                transaction.flush()
            except IntegrityError as error:  # it was queued since the look above
                raise _beside(session_id, "another session") from error
            return to_session(row)

    def delete(self, session_id: str) -> None:
        """Forget a session and its curves; a trainer that keeps house removes its folder.

        Raises:
            Conflict: it is queued or running, or another one starts from its checkpoint.
            StoreError: there is no such session.
        """
        follows = and_(
            SessionRow.restarted_from == session_id,
            SessionRow.state.in_((SessionState.QUEUED, SessionState.RUNNING)),
        )
        with self._database.write() as transaction:
            row = _get(transaction, session_id)
            if SessionState(row.state) not in ENDED:
                raise Conflict(
                    f"Session {session_id} is {row.state} and cannot be deleted; stop it first."
                )
            follower = transaction.scalar(select(SessionRow.id).where(follows).limit(1))
            if follower is not None:
                raise Conflict(
                    f"Session {follower} starts from the checkpoint of session {session_id}; wait "
                    "for its end, or stop it, before you delete this one."
                )
            transaction.execute(
                delete(SessionPointRow).where(SessionPointRow.session_id == session_id)
            )
            transaction.delete(row)
            values = {"id": session_id, "deleted_at": self._clock()}
            insert_or_replace(transaction, DeletedSessionRow, values)

    def prune_deleted(self) -> None:
        """Forget which sessions were deleted so long ago that no trainer has their folders.

        Raises:
            StoreError
        """
        old = DeletedSessionRow.deleted_at < self._clock() - DELETED_KEPT_S
        with self._database.write() as transaction:
            transaction.execute(delete(DeletedSessionRow).where(old))


def new_row(project: ProjectKey, target: str, *, created_at: float, **asked: Any) -> dict[str, Any]:
    """Return the row of a session that nobody has worked on yet."""
    return {
        "id": uuid.uuid4().hex,
        "project": str(project),
        "target": target,
        "state": SessionState.QUEUED,
        "created_at": created_at,
        "lease": 0,
        "lease_until": 0.0,
        "stop_requested": False,
        "attempts": 0,
        "progress": to_json({}),
        **asked,
    }


def _get(transaction: Transaction, session_id: str) -> SessionRow:
    row = transaction.get(SessionRow, session_id, with_for_update=True)
    if row is None:
        raise StoreError(
            f"There is no session {session_id!r}; `ml-backend sessions list` shows them."
        )
    return row


def _beside(session_id: str, other: str) -> Conflict:
    return Conflict(
        f"Session {session_id} cannot be resumed while {other} of the same controls is queued; "
        "stop that one first."
    )
