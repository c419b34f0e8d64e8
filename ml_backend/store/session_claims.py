"""How training sessions get a trainer: each is claimed by one at a time, who gets a lease."""

from __future__ import annotations

from sqlalchemy import case, func, or_, update

from ml_backend.datasets import DATASET_CONTROLS, StoredDataset
from ml_backend.learning import Lease, SessionState, TrainingParameters, Trigger
from ml_backend.store.packing import to_json
from ml_backend.store.schema import SessionRow
from ml_backend.store.session_requests import SessionRequests, new_row
from ml_backend.store.session_rows import is_claimable, target_of
from ml_backend.store.upsert import insert_if_new


class SessionClaims(SessionRequests):
    """The part of the table of training sessions that gives out leases."""

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

    def begin(
        self,
        dataset: StoredDataset,
        *,
        parameters: TrainingParameters,
        owner: str,
        lease_s: float,
        label: str | None = None,
        base: str | None = None,
    ) -> Lease:
        """Make a session about a dataset that runs already: no trainer gets it in between.

        Args:
            dataset: What it is about.
            parameters: How it is trained.
            owner: A name for who trains it, for people.
            lease_s: How long it stays theirs without a heartbeat.
            label: A word of the person's own.
            base: Name of the model to start from.

        Raises:
            StoreError
        """
        now = self._clock()
        values = new_row(
            dataset.key,
            target_of(DATASET_CONTROLS),
            created_at=now,
            trigger=Trigger.PERSON,
            parameters=to_json(parameters.canonical()),
            dataset=dataset.name,
            label=label,
            base=base,
        )
        values |= {
            "state": SessionState.RUNNING,
            "lease": 1,
            "attempts": 1,
            "lease_owner": owner,
            "lease_until": now + lease_s,
            "heartbeat_at": now,
            "started_at": now,
        }
        with self._database.write() as transaction:
            insert_if_new(transaction, SessionRow, values)
        return Lease(session_id=values["id"], number=1, owner=owner)

    def take_up(self, session_id: str, *, owner: str, lease_s: float) -> Lease | None:
        """Go on with a session about a dataset that was stopped or has failed; None: not to be had.

        Like `resume` and then `claim`, but no trainer gets it in between. One that waits, or whose
        trainer was not heard of for as long as its lease, is to be had as well.

        Args:
            session_id: Which one.
            owner: A name for who trains it, for people.
            lease_s: How long it stays theirs without a heartbeat.

        Raises:
            StoreError
        """
        now = self._clock()
        is_idle = SessionRow.state.in_((SessionState.STOPPED, SessionState.FAILED))
        statement = (
            update(SessionRow)
            .where(
                SessionRow.id == session_id,
                SessionRow.dataset.is_not(None),
                or_(is_idle, is_claimable(now)),
            )
            .values(
                state=SessionState.RUNNING,
                lease=SessionRow.lease + 1,
                attempts=case((is_idle, 1), else_=SessionRow.attempts + 1),
                lease_owner=owner,
                lease_until=now + lease_s,
                heartbeat_at=now,
                started_at=func.coalesce(SessionRow.started_at, now),
                finished_at=None,
                message=None,
                stop_requested=False,
            )
            .returning(SessionRow.lease)
        )
        with self._database.write() as transaction:
            number = transaction.scalar(statement)
        if number is None:
            return None
        return Lease(session_id=session_id, number=number, owner=owner)
