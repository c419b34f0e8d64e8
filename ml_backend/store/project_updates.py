"""Which projects people changed lately: a change may undo what a swap has set."""

from __future__ import annotations

from sqlalchemy import func, select

from ml_backend.store.database import Database
from ml_backend.store.schema import EventRow

PROJECT_UPDATED = "PROJECT_UPDATED"


class ProjectUpdates:
    """Reads new PROJECT_UPDATED events once, from the moment it was made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: int | None = None

    def new(self) -> set[int]:
        """Return the numbers of projects with events that were not returned before.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            newest = session.scalar(select(func.max(EventRow.id))) or 0
            if self._seen is None or newest <= self._seen:
                self._seen = newest
                return set()
            query = select(EventRow.project_id).where(
                EventRow.id > self._seen,
                EventRow.id <= newest,
                EventRow.action == PROJECT_UPDATED,
                EventRow.project_id.is_not(None),
            )
            found = {number for number in session.scalars(query) if number is not None}
        self._seen = newest
        return found
