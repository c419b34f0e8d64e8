"""Events that were read and wait for the fit of a toolkit class, in the order they came."""

from __future__ import annotations

from sqlalchemy import Text, cast, func, select, update

from ml_backend.domain import ProjectKey
from ml_backend.store.database import Database
from ml_backend.store.events import Event, EventState, to_event
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import EventRow


class WaitingEvents:
    """The part of the table of events that is about toolkit classes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, job: str, project: ProjectKey, message: str) -> None:
        """Have an event wait that was read.

        Args:
            job: The event's.
            project: That it belongs to.
            message: A sentence on what else came of it.

        Raises:
            StoreError
        """
        statement = (
            update(EventRow)
            .where(EventRow.job == job, EventRow.state == EventState.QUEUED)
            .values(state=EventState.WAITING, project=str(project), message=message)
        )
        with self._database.write() as transaction:
            transaction.execute(statement)

    def next(self, project: ProjectKey) -> Event | None:
        """Return the oldest event of a project that waits, None when none does.

        Raises:
            StoreError
        """
        query = (
            select(EventRow)
            .where(EventRow.state == EventState.WAITING, EventRow.project == str(project))
            .order_by(EventRow.id)
            .limit(1)
        )
        with self._database.read() as transaction:
            row = transaction.scalar(query)
            return None if row is None else to_event(row)

    def newest(self) -> dict[ProjectKey, float]:
        """Return the projects with events that wait, and when the newest of each came.

        Raises:
            StoreError
        """
        query = (
            select(EventRow.project, func.max(EventRow.received_at))
            .where(EventRow.state == EventState.WAITING, EventRow.project.is_not(None))
            .group_by(EventRow.project)
        )
        with self._database.read() as transaction:
            found = transaction.execute(query).all()
        return {parse_key(project): newest for project, newest in found if project is not None}

    def give_up(self, project: ProjectKey, *, until: float, message: str) -> int:
        """End the waiting of a project's events that came until then; return how many.

        Args:
            project: Whose.
            until: Seconds since the epoch.
            message: A sentence for a person: why.

        Raises:
            StoreError
        """
        statement = (
            update(EventRow)
            .where(
                EventRow.state == EventState.WAITING,
                EventRow.project == str(project),
                EventRow.received_at <= until,
            )
            .values(
                state=EventState.FAILED,
                message=message,
                # as when one is finished: the same may come again
                content_hash=EventRow.content_hash + ":" + cast(EventRow.id, Text),
            )
            .returning(EventRow.id)
        )
        with self._database.write() as transaction:
            return len(transaction.execute(statement).all())
